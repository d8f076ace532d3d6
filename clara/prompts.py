"""The one prompt builder, for training and for answering: texts, memory slots, chat template.

No model and no tokenizer here: a prompt is a string, `clara.model.tokens` turns it into ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from jinja2.exceptions import TemplateError

from clara.errors import InvalidCheckpoint

ANSWER_SYSTEM = (
    "You are a helpful assistant. Your task is to extract relevant information from provided "
    "documents and to answer to questions as briefly as possible."
)
QUESTIONS_SYSTEM = (
    "You are a helpful assistant. Given a document, your task is to generate some single questions "
    "to cover all key information of the document and answer them sequentially."
)
PARAPHRASE_SYSTEM = (
    "You are a helpful assistant. Your task is follow the instructions to paraphrase the "
    "background information."
)
PARAPHRASES = (
    "Background: {docs} means the same as",
    "Background: {docs} Can you put the above sentences in your own terms?",
    "Background: {docs} Please provide a reinterpretation of the preceding background text.",
    "These two expressions are equivalent in essence:\n(1) {docs}\n(2)",
    "Background: {docs} is a paraphrase of what?",
    "Background: {docs} Could you give me a different version of the background sentences above?",
    "In other words, background: {docs} is just another way of saying:",
    "You're getting across the same point whether you say background: {docs} or",
    "Background: {docs} After unpacking the ideas in the background information above, we got:",
    "Background: {docs} Please offer a restatement of the background sentences I've just read.",
    "Background: {docs}, which also means:",
    "Strip away the mystery, and you'll find background: {docs} is simply another rendition of:",
    "The essence of background: {docs} is captured again in the following statement:",
)
"""Instructions of the compression stage, one drawn per record; `{docs}` is where the slots go."""

SEPARATOR = "<SEP>"
"""Written after every passage's slots, also by checkpoints whose latents run over it."""


class ChatTemplate(Protocol):
    """Writes a conversation as the one string its base was tuned on."""

    def __call__(self, messages: list[dict[str, str]], *, go_on: bool) -> str:
        """`go_on` opens the assistant's turn. Raises jinja2's TemplateError where it refuses."""
        ...


Places = int | Sequence[int]
"""How many passages of `n_mem` rows each, or the rows of every passage's latent."""


def memory_slots(rows: Sequence[int], tokens: Sequence[str]) -> str:
    """The places of passages' latents in a prompt, without spaces.

    Args:
        rows: of each passage's latent.
        tokens: different memory tokens, at least as many as rows, or one that is repeated.
    """
    return "".join(
        (tokens[0] * count if len(tokens) == 1 else "".join(tokens[:count])) + SEPARATOR
        for count in rows
    )


def joined_answers(pairs: Iterable[tuple[str, str]]) -> str:
    """Questions with their answers, as the compression stage writes its target."""
    return "\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in pairs)


class PlainText:
    """Makes a user's text harmless: no part of it is read as a control token.

    A control token written out in a text (`</s>`, `<MEM0>`) gets a space after its first
    character. Any other text is returned as it is, so its token ids stay the published ones.
    """

    def __init__(self, control: Iterable[str]) -> None:
        names = sorted({name for name in control if name.strip()}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names))) if names else None

    def __call__(self, text: str) -> str:
        """`text` without any control token; broken ones can join to a new one, hence the loop."""
        while self._pattern is not None and self._pattern.search(text):
            text = self._pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}".rstrip(), text)
        return text


@dataclass(frozen=True)
class PromptBuilder:
    """Every prompt of one checkpoint, as text.

    Without `answer` a prompt ends where the model has to go on; with it, the text is what the
    model is trained on.
    """

    template: ChatTemplate
    n_mem: int
    """Memory tokens per passage."""
    memory: tuple[str, ...]
    """The memory tokens' texts: `n_mem` of them, or one that is repeated."""
    plain: PlainText

    def from_latents(self, question: str, places: Places, answer: str | None = None) -> str:
        """A question to answer from latents; without places, a question alone."""
        return self._question(question, self._slots(places), answer)

    def from_text(self, question: str, passages: Sequence[str], answer: str | None = None) -> str:
        """The same question with the passages written out, blank lines between them."""
        background = "\n\n".join(self.plain(passage.strip()) for passage in passages)
        return self._question(question, background, answer)

    def questions(self, places: Places, pairs: Sequence[tuple[str, str]] | None = None) -> str:
        """Ask for questions and answers that cover the passages; `pairs` is the target."""
        target = None if pairs is None else joined_answers(pairs)
        return self._render(QUESTIONS_SYSTEM, f"Background:\n{self._slots(places)}", target)

    def paraphrase(self, places: Places, instruction: int, answer: str | None = None) -> str:
        """Ask for the passages' content in other words; `instruction` counts in PARAPHRASES."""
        user = PARAPHRASES[instruction].replace("{docs}", self._slots(places))
        return self._render(PARAPHRASE_SYSTEM, user, answer)

    def _slots(self, places: Places) -> str:
        rows = [self.n_mem] * places if isinstance(places, int) else places
        return memory_slots(rows, self.memory)

    def _question(self, question: str, background: str, answer: str | None) -> str:
        user = f"Background:\n{background}\n\nQuestion:{self.plain(question)}"
        return self._render(ANSWER_SYSTEM, user, answer)

    def _render(self, system: str, user: str, answer: str | None) -> str:
        target = None if answer is None else self.plain(answer)
        return render(self.template, system, user.replace(":\\ ", ": "), target)


def render(template: ChatTemplate, system: str, user: str, answer: str | None = None) -> str:
    """One exchange in the base's chat template.

    Templates that refuse a system message get one user message: system text, newline, user text.

    Raises:
        InvalidCheckpoint: the template refuses that too.
    """
    last = [] if answer is None else [{"role": "assistant", "content": answer}]
    asked = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    merged = [{"role": "user", "content": f"{system}\n{user}"}]
    try:
        return template(asked + last, go_on=answer is None)
    except TemplateError:
        try:
            return template(merged + last, go_on=answer is None)
        except TemplateError as error:
            raise InvalidCheckpoint(
                f"the chat template of the base refuses a single question: {error}",
                field="chat_template",
                remedy="Use a base whose template accepts a user message",
            ) from error
