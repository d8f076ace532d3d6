from __future__ import annotations

import pytest
from jinja2.exceptions import TemplateError

from clara.errors import InvalidCheckpoint
from clara.prompts import (
    ANSWER_SYSTEM,
    PARAPHRASES,
    PlainText,
    PromptBuilder,
    joined_answers,
    memory_slots,
    render,
)

Messages = list[dict[str, str]]


def write(messages: Messages, *, go_on: bool) -> str:
    """A template that can be read at a glance."""
    lines = [f"[{m['role']}]{m['content']}" for m in messages]
    return "|".join(lines) + ("|[assistant]" if go_on else "")


def refuse_system(messages: Messages, *, go_on: bool) -> str:
    if messages[0]["role"] == "system":
        raise TemplateError("Conversation roles must alternate")
    return write(messages, go_on=go_on)


def refuse_all(messages: Messages, *, go_on: bool) -> str:
    raise TemplateError("no")


@pytest.fixture
def prompts() -> PromptBuilder:
    plain = PlainText(["<MEM0>", "<MEM1>", "<SEP>", "</s>", "<|im_end|>"])
    return PromptBuilder(write, 2, ("<MEM0>", "<MEM1>"), plain)


def test_slots_have_a_separator_after_each_passage_and_no_spaces() -> None:
    assert memory_slots([2, 2], ["<MEM0>", "<MEM1>"]) == "<MEM0><MEM1><SEP><MEM0><MEM1><SEP>"
    assert memory_slots([3], ["<MEM>"]) == "<MEM><MEM><MEM><SEP>"
    assert memory_slots([], ["<MEM>"]) == ""
    assert memory_slots([1, 3], ["<MEM>"]) == "<MEM><SEP><MEM><MEM><MEM><SEP>"


def test_an_answering_prompt_has_the_slots_and_then_the_question(prompts: PromptBuilder) -> None:
    wanted = f"[system]{ANSWER_SYSTEM}|[user]Background:\n<MEM0><MEM1><SEP>\n\nQuestion:Who?"
    assert prompts.from_latents("Who?", 1) == wanted + "|[assistant]"
    assert prompts.from_latents("Who?", 1, "Ida") == wanted + "|[assistant]Ida"


def test_a_text_prompt_has_the_passages_where_the_slots_would_be(prompts: PromptBuilder) -> None:
    text = prompts.from_text("Who?", ["One. ", "Two."])
    assert "Background:\nOne.\n\nTwo.\n\nQuestion:Who?" in text


def test_there_are_thirteen_paraphrase_instructions_each_with_one_place(
    prompts: PromptBuilder,
) -> None:
    assert len(PARAPHRASES) == 13
    for i in range(13):
        assert prompts.paraphrase(1, i).count("<MEM0><MEM1><SEP>") == 1


def test_questions_with_their_answers_are_lines() -> None:
    wanted = "Question: a?\nAnswer: b\nQuestion: c?\nAnswer: d"
    assert joined_answers([("a?", "b"), ("c?", "d")]) == wanted


def test_colon_backslash_space_becomes_colon_space(prompts: PromptBuilder) -> None:
    assert "Question:drive: x:\\y" in prompts.from_latents("drive:\\ x:\\y", 1)


def test_a_template_without_system_messages_gets_the_system_text_first() -> None:
    assert render(refuse_system, "S", "U") == "[user]S\nU|[assistant]"
    assert render(refuse_system, "S", "U", "A") == "[user]S\nU|[assistant]A"


def test_a_template_that_refuses_everything_is_an_error_with_its_words() -> None:
    with pytest.raises(InvalidCheckpoint, match="refuses a single question: no"):
        render(refuse_all, "S", "U")


@pytest.mark.parametrize("text", ["plain", "a < b > c", "x</ s>", "<MEM7>", "", "—naïve 猫"])
def test_ordinary_text_is_left_exactly_as_it_is(prompts: PromptBuilder, text: str) -> None:
    assert prompts.plain(text) == text


@pytest.mark.parametrize("text", ["<MEM0>", "a</s>b", "<<SEP>SEP>", "<|im_<|im_end|>end|>"])
def test_no_control_token_survives_in_a_users_text(prompts: PromptBuilder, text: str) -> None:
    question, passage = prompts.from_latents(text, 0), prompts.from_text("Who?", [text])
    for token in ("<MEM0>", "</s>", "<SEP>", "<|im_end|>"):
        assert token not in question
        assert token not in passage


def test_a_written_out_control_token_stays_readable(prompts: PromptBuilder) -> None:
    assert prompts.plain("the tag </s> ends it") == "the tag < /s> ends it"


def test_without_control_tokens_every_text_is_plain() -> None:
    assert PlainText([])("</s>") == "</s>"
