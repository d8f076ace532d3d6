from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clara import CLaRa
from clara.errors import (
    CheckpointMismatch,
    ClaraError,
    EmptyText,
    InvalidCheckpoint,
    InvalidInput,
    ModelMissing,
    QuestionTooLong,
    TextTooLong,
)
from clara.library import answering, loading
from clara.library.answering import answers
from clara.model.compressor import Compressor
from clara.prompts import PARAPHRASES
from tests.tiny import HIDDEN, tiny_base, tiny_checkpoint

WALL = "The wall was built in 1874."
BEES = "Honey bees dance on the comb."
TEA = "Tea came by ship."
ICE = "Sea ice forms below minus 1.8."
LONG = f"{WALL} {BEES} {TEA} {ICE}"
ASKED = ["Who built the wall?", "When?", "What do bees do on the comb?"]
GIVEN = [[WALL], [BEES, TEA, ICE, WALL, "ice"], [TEA, BEES]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, and a checkpoint for each of two rates in one more folder."""
    home = tmp_path_factory.mktemp("home")
    base = tiny_base(home / "base")
    for rate in (4, 8):
        tiny_checkpoint(home / "tiny" / f"compression-{rate}", base, rate=rate)
    return home


@pytest.fixture(scope="module")
def model(home: Path) -> CLaRa:
    return CLaRa.from_pretrained(home / "tiny", subfolder="compression-4", **SMALL)


SMALL: dict[str, Any] = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every text that goes through the compressor."""
    seen: list[str] = []
    real = Compressor.compress

    def spy(self: Compressor, texts: list[str], **options: bool) -> Any:
        seen.extend(texts)
        return real(self, texts, **options)

    monkeypatch.setattr(Compressor, "compress", spy)
    return seen


# -- loading


def test_importing_clara_loads_no_model_code() -> None:
    code = "import sys, clara; print(dir(clara)); print({'torch', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, heavy = done.stdout.splitlines()
    assert heavy == "set()"
    assert "'CLaRa'" in names
    assert "'RAGMaster'" in names


def test_a_name_clara_does_not_have_is_an_attribute_error() -> None:
    import clara

    with pytest.raises(AttributeError, match="'clara' has no attribute 'Clara'"):
        clara.Clara  # noqa: B018


def test_a_rate_chooses_the_sub_folder(home: Path) -> None:
    found = CLaRa.from_pretrained(home / "tiny", rate=8, **SMALL)
    assert found.models.checkpoint.config.compr_rate == 8
    assert found.compress_documents([WALL])[0].shape == (4, HIDDEN)


def test_a_checkpoint_by_its_own_folder_needs_no_sub_folder(home: Path) -> None:
    found = CLaRa.from_pretrained(str(home / "tiny" / "compression-4"), **SMALL)
    assert found.models.rows == 8


def test_a_folder_of_checkpoints_names_them_where_none_is_chosen(home: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="compression-4, compression-8"):
        CLaRa.from_pretrained(home / "tiny", **SMALL)


def test_a_sub_folder_that_is_not_there_names_those_that_are(home: Path) -> None:
    with pytest.raises(ModelMissing, match=r"no sub-folder 'compression-16'.*compression-8"):
        CLaRa.from_pretrained(home / "tiny", subfolder="compression-16", **SMALL)


def test_a_rate_the_checkpoint_was_not_trained_for_is_refused_with_those_it_was(
    home: Path,
) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"rate 16 is none of those .* trained for: 8"):
        CLaRa.from_pretrained(home / "tiny", subfolder="compression-8", rate=16, **SMALL)


def test_a_name_on_the_hub_is_looked_up_with_its_sub_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(name: str | Path, *, revision: str | None = None) -> Path:
        asked.append(f"{name}@{revision}" if revision else str(name))
        if Path(name).is_dir():
            return Path(name)
        folder = home / str(name).removeprefix("owner/")
        if not folder.is_dir():
            raise ModelMissing(f"no model at {name!r}")
        return folder

    monkeypatch.setattr(loading, "local_folder", fetch)
    monkeypatch.setattr("clara.model.checkpoint.local_folder", fetch)
    CLaRa.from_pretrained("owner/tiny", subfolder="compression-8", revision="v2", **SMALL)
    assert asked[0] == "owner/tiny/compression-8@v2"
    by_rate = CLaRa.from_pretrained("owner/tiny", rate=4, **SMALL)
    assert by_rate.models.checkpoint.config.compr_rate == 4
    with pytest.raises(ModelMissing, match="'owner/nothing'"):
        CLaRa.from_pretrained("owner/nothing", rate=4, **SMALL)


def test_a_base_that_lies_elsewhere_is_asked_for_and_taken(home: Path, tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    shutil.copytree(home / "base", tmp_path / "base")
    tiny_checkpoint(lost, tmp_path / "base")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(
        ModelMissing, match=r"the base that tiny was trained on is not to be found"
    ) as e:
        CLaRa.from_pretrained(lost, **SMALL)
    assert e.value.field == "base"
    found = CLaRa.from_pretrained(lost, base=home / "base", **SMALL)
    assert found.generate_from_text(["Who?"], [[WALL]], 3)


def test_a_dtype_may_be_given_by_name(home: Path) -> None:
    folder = home / "tiny" / "compression-4"
    found = CLaRa.from_pretrained(folder, device="cpu", dtype="bfloat16")
    assert found.compress_documents([WALL])[0].dtype == torch.bfloat16
    with pytest.raises(InvalidInput, match="dtype is 'int8'; known are auto, float32"):
        CLaRa.from_pretrained(folder, device="cpu", dtype="int8")


def test_a_base_alone_gives_an_untrained_model(home: Path) -> None:
    found = CLaRa.untrained(home / "base", rate=8, doc_max_length=64, **SMALL)
    assert not found.models.checkpoint.trained
    assert found.compress_documents([WALL])[0].shape == (8, HIDDEN)


def test_nothing_outside_the_model_changes(home: Path) -> None:
    before = dict(os.environ), torch.get_num_threads(), torch.random.get_rng_state().tolist()
    shuffled, grad = random.getstate(), torch.is_grad_enabled()
    with CLaRa.from_pretrained(home / "tiny", rate=4, **SMALL) as model:
        model.generate_from_paraphrase(None, [[WALL]], 3, instruction=None)
        next(model.stream("Who?", [WALL]))
        assert not torch.is_inference_mode_enabled()
    after = dict(os.environ), torch.get_num_threads(), torch.random.get_rng_state().tolist()
    assert after == before
    assert (random.getstate(), torch.is_grad_enabled()) == (shuffled, grad)


def test_a_closed_model_says_so(home: Path) -> None:
    with CLaRa.from_pretrained(home / "tiny", rate=4, **SMALL) as model:
        pass
    model.close()
    with pytest.raises(ModelMissing, match="this model was closed"):
        model.encode_questions(["Who?"])


# -- the three calls


def test_all_documents_are_read_in_their_order(model: CLaRa) -> None:
    one = model.generate_from_text(["Who?"], [[WALL, BEES]], 8)
    assert one == model.generate_from_text(["Who?"], [(WALL, BEES)], 8)
    assert one != model.generate_from_text(["Who?"], [[BEES, WALL]], 8)
    assert one != model.generate_from_text(["Who?"], [[WALL]], 8)


def test_a_batch_gives_what_each_question_gives_alone(model: CLaRa) -> None:
    together = model.generate_from_text(ASKED, GIVEN, max_new_tokens=12)
    alone = [model.generate_from_text([q], [d], 12)[0] for q, d in zip(ASKED, GIVEN, strict=True)]
    assert together == alone
    assert len(set(together)) == len(ASKED)


def test_a_batch_of_candidates_gives_what_each_question_gives_alone(model: CLaRa) -> None:
    together = model.generate_from_questions(ASKED, GIVEN, max_new_tokens=12)
    alone = [model.generate_from_questions([q], [d], 12) for q, d in zip(ASKED, GIVEN, strict=True)]
    assert together == ([texts[0] for texts, _ in alone], [chosen[0] for _, chosen in alone])
    assert [len(chosen) for chosen in together[1]] == [1, 2, 2]


def test_a_batch_of_paraphrases_gives_what_each_gives_alone(model: CLaRa) -> None:
    together = model.generate_from_paraphrase([""] * 3, GIVEN, max_new_tokens=12)
    assert together == [model.generate_from_paraphrase([""], [d], 12)[0] for d in GIVEN]


def test_the_chosen_documents_are_the_best_by_cosine_and_are_read_best_first(
    model: CLaRa,
) -> None:
    question, candidates = ASKED[2], [WALL, TEA, BEES, ICE]
    found, (chosen,) = model.generate_from_questions(
        [question], [candidates], 10, generation_top_k=3
    )
    (query,) = model.encode_questions([question])
    latents = model.compress_documents(candidates)
    vectors = torch.stack([query.flatten(), *[latent.flatten().float() for latent in latents]])
    unit = torch.nn.functional.normalize(vectors, dim=1)
    order = (unit[1:] @ unit[0]).argsort(descending=True).tolist()
    assert chosen == order[:3]
    assert found == model.generate_from_latents([question], [[latents[i] for i in chosen]], 10)


def test_a_top_k_of_one_call_is_not_kept(model: CLaRa) -> None:
    def chosen(**options: int) -> list[int]:
        return [len(row) for row in model.generate_from_questions(ASKED, GIVEN, 1, **options)[1]]

    assert chosen() == [1, 2, 2]
    assert chosen(generation_top_k=4) == [1, 4, 2]
    model.generate_from_text(["Who?"], [[WALL, BEES, TEA]], 1)
    assert chosen() == [1, 2, 2]


def test_equal_candidates_keep_their_order_and_are_compressed_once(
    model: CLaRa, compressed: list[str]
) -> None:
    _, chosen = model.generate_from_questions(
        ["Who?", "When?"], [[WALL] * 5, [WALL, WALL]], 1, generation_top_k=3
    )
    assert chosen == [[0, 1, 2], [0, 1]]
    assert compressed == [WALL]


def test_latents_made_before_give_the_answer_of_their_documents(
    model: CLaRa, compressed: list[str]
) -> None:
    latents = model.compress_documents([WALL, BEES, WALL])
    assert compressed == [WALL, BEES]
    assert torch.equal(latents[0], latents[2])
    compressed.clear()
    found = model.generate_from_latents(["Who?"], [latents[:2]], 10)
    assert compressed == []
    assert found == model.generate_from_text(["Who?"], [[WALL, BEES]], 10)


def test_a_paraphrase_has_the_first_instruction_unless_another_is_named(model: CLaRa) -> None:
    plain = model.generate_from_paraphrase([""], [[WALL]], 10)
    assert plain == model.generate_from_paraphrase(None, [[WALL]], 10, instruction=0)
    assert plain != model.generate_from_paraphrase([""], [[WALL]], 10, instruction=5)


def test_drawn_instructions_depend_on_the_seed_alone(model: CLaRa) -> None:
    def drawn(seed: int) -> list[str]:
        return model.generate_from_paraphrase(None, [[WALL]] * 6, 6, instruction=None, seed=seed)

    known = {
        model.generate_from_paraphrase(None, [[WALL]], 6, instruction=i)[0]
        for i in range(len(PARAPHRASES))
    }
    assert drawn(3) == drawn(3) != drawn(4)
    assert len(set(drawn(3))) > 1
    assert set(drawn(3)) <= known


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    places=st.integers(1, 300),
    context=st.integers(1, 70),
)
def test_batches_hold_every_prompt_once_under_the_budget_and_the_context(
    lengths: list[int], places: int, context: int
) -> None:
    groups = list(answering._groups(lengths, places, context))
    assert sorted(at for group in groups for at in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[at] for at in group)
        assert len(group) == 1 or (len(group) * longest <= places and longest <= context)


def test_the_size_of_the_batches_changes_no_answer(model: CLaRa) -> None:
    latents = [model.compress_documents(documents) for documents in GIVEN]
    prompts = [
        model.models.generator.prompt_from_latents(*pair)
        for pair in zip(ASKED, latents, strict=True)
    ]
    wanted = answers(model.models, prompts, max_new_tokens=9, batch_tokens=10_000)
    assert answers(model.models, prompts, max_new_tokens=9, batch_tokens=1) == wanted


def test_an_answer_near_the_end_of_the_context_is_as_long_as_alone(model: CLaRa) -> None:
    prompts = [
        model.models.generator.prompt_from_latents(question, model.compress_documents(documents))
        for question, documents in (("Who?", [WALL]), ("Who?", [WALL, BEES, TEA, ICE]))
    ]
    longest = max(map(len, prompts))
    generator = replace(model.models.generator, context=longest + 3, ends=frozenset())
    models = replace(model.models, generator=generator)
    together = answers(models, prompts, max_new_tokens=9)
    assert together == [answers(models, [prompt], max_new_tokens=9)[0] for prompt in prompts]
    assert together[0] != answers(models, prompts[:1], max_new_tokens=3)[0]


# -- streaming


def test_a_stream_gives_the_answer_in_pieces(model: CLaRa) -> None:
    pieces = list(model.stream("Who?", [WALL, BEES], max_new_tokens=20))
    assert len(pieces) > 2
    assert "".join(pieces) == model.generate_from_text(["Who?"], [[WALL, BEES]], 20)[0]


def test_a_stream_may_choose_its_documents_or_read_latents(model: CLaRa) -> None:
    chosen = "".join(model.stream(ASKED[1], GIVEN[1], generation_top_k=2, max_new_tokens=9))
    assert chosen == model.generate_from_questions([ASKED[1]], [GIVEN[1]], 9)[0][0]
    latents = model.compress_documents(GIVEN[2])
    streamed = "".join(model.stream(ASKED[2], latents=latents, max_new_tokens=9))
    assert streamed == model.generate_from_latents([ASKED[2]], [latents], 9)[0]


def test_a_stream_computes_only_what_is_asked_for(
    model: CLaRa, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    real = torch.nn.Embedding.forward

    def spy(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        steps.append(ids.numel())
        return real(self, ids)

    stream = model.stream("Who?", [WALL], max_new_tokens=50)
    monkeypatch.setattr(torch.nn.Embedding, "forward", spy)
    next(stream)
    assert 0 < len(steps) < 10
    stream.close()  # type: ignore[attr-defined]


def test_a_stream_refuses_before_its_first_piece(model: CLaRa) -> None:
    with pytest.raises(InvalidInput, match="neither documents nor latents were given"):
        model.stream("Who?")
    with pytest.raises(InvalidInput, match="documents and latents were given; one of them"):
        model.stream("Who?", [WALL], latents=model.compress_documents([WALL]))
    with pytest.raises(InvalidInput, match=r"documents is empty"):
        model.stream("Who?", [])
    with pytest.raises(TextTooLong, match=r"documents\[1\] has"):
        model.stream("Who?", [WALL, LONG])
    with pytest.raises(InvalidInput, match=r"latents\[0\] is a list"):
        model.stream("Who?", latents=[[1.0]])  # type: ignore[list-item]


def test_pieces_are_told_with_the_position_of_their_answer(model: CLaRa) -> None:
    told: dict[int, list[str]] = {}

    def take(position: int, piece: str) -> None:
        told.setdefault(position, []).append(piece)

    found = model.generate_from_text(ASKED, GIVEN, 12, on_token=take)
    assert ["".join(told[position]) for position in range(3)] == found
    again: dict[int, str] = {}
    model.generate_from_paraphrase(
        None, GIVEN, 6, on_token=lambda at, piece: again.update({at: again.get(at, "") + piece})
    )
    assert list(dict(sorted(again.items())).values()) == model.generate_from_paraphrase(
        None, GIVEN, 6
    )


def test_an_answer_that_has_ended_is_told_no_further(model: CLaRa) -> None:
    free = model.generate_from_text(ASKED, GIVEN, 12)
    prompt = model.models.generator.prompt_from_latents(
        ASKED[0], model.compress_documents(GIVEN[0])
    )
    (ids,) = model.models.generator.generate([prompt], max_new_tokens=12)
    generator = replace(model.models.generator, ends=frozenset(ids[2:3]))
    ending = CLaRa(replace(model.models, generator=generator))
    told = ["", "", ""]

    def take(position: int, piece: str) -> None:
        told[position] += piece

    assert ending.generate_from_text(ASKED, GIVEN, 12, on_token=take) == told
    assert len(told[0]) < len(free[0])


# -- documents over the limit


def test_a_document_over_the_limit_is_refused_by_its_place(model: CLaRa) -> None:
    with pytest.raises(TextTooLong, match=r"documents\[1\]\[2\] has .* one pass takes 32") as e:
        model.generate_from_text(["Who?", "When?"], [[WALL], [BEES, WALL, LONG]])
    assert (e.value.field, e.value.limit) == ("documents[1][2]", 32)
    assert 'long_documents="split"' in str(e.value)
    with pytest.raises(TextTooLong, match=r"documents\[1\] has"):
        model.compress_documents([WALL, LONG])


def test_a_document_that_is_split_is_read_passage_by_passage(model: CLaRa) -> None:
    spans = model.split_document(LONG)
    passages = [LONG[span.start : span.end] for span in spans]
    assert len(passages) > 1
    assert all(count <= 32 for count in model.models.tokens.count(passages))
    found = model.generate_from_text(["Who?"], [[TEA, LONG]], 10, long_documents="split")
    assert found == model.generate_from_text(["Who?"], [[TEA, *passages]], 10)


def test_chosen_passages_count_for_the_document_they_are_from(model: CLaRa) -> None:
    spans = model.split_document(LONG)
    passages = [LONG[span.start : span.end] for span in spans]
    documents, flat = [TEA, LONG, ICE], [TEA, *passages, ICE]
    home = [0, *[1] * len(passages), 2]
    for k in range(1, len(flat) + 1):
        found, (chosen,) = model.generate_from_questions(
            ["Who?"], [documents], 5, generation_top_k=k, long_documents="split"
        )
        same, (wanted,) = model.generate_from_questions(["Who?"], [flat], 5, generation_top_k=k)
        assert found == same
        assert chosen == list(dict.fromkeys(home[position] for position in wanted))


def test_a_document_that_is_cut_loses_its_end(model: CLaRa) -> None:
    cut = model.generate_from_text(["Who?"], [[LONG]], 10, long_documents="cut")
    assert cut == model.generate_from_text(
        ["Who?"], [[f"{LONG} More of it."]], 10, long_documents="cut"
    )
    assert cut != model.generate_from_text(["Who?"], [[LONG[5:]]], 10, long_documents="cut")
    assert model.compress_documents([LONG], long_documents="cut")[0].shape == (8, HIDDEN)


def test_a_document_within_the_limit_is_the_same_whatever_the_choice(model: CLaRa) -> None:
    found = {
        model.generate_from_text(["Who?"], [[WALL, BEES]], 8, long_documents=choice)[0]
        for choice in ("error", "split", "cut")
    }
    assert len(found) == 1


def test_one_latent_per_document_cannot_be_had_of_a_document_that_is_split(model: CLaRa) -> None:
    with pytest.raises(InvalidInput, match='long_documents is "split", but each document has one'):
        model.compress_documents([LONG], long_documents="split")
    with pytest.raises(InvalidInput, match="long_documents is 'chop'; known are 'error'"):
        model.compress_documents([LONG], long_documents="chop")


@settings(max_examples=25)
@given(text=st.text(max_size=300).filter(lambda text: bool(text.strip())))
def test_a_split_loses_nothing_and_every_passage_fits(model: CLaRa, text: str) -> None:
    try:
        spans = model.split_document(text)
    except ClaraError:  # a character that takes more tokens than one pass
        return
    kept = "".join(text[span.start : span.end] for span in spans)
    assert "".join(kept.split()) == "".join(text.split())
    for span in spans:
        assert model.models.tokens.count([text[span.start : span.end]])[0] <= 32


# -- what is refused


@pytest.mark.parametrize(
    ("questions", "documents", "message", "field"),
    [
        ("Who?", [[WALL]], "questions is a string; a list of texts is due", "questions"),
        (["Who?"], WALL, "documents is a string; a list of lists of documents", "documents"),
        (["Who?"], [WALL], r"documents\[0\] is a string; a list of documents", "documents[0]"),
        (["Who?"], [[WALL], [TEA]], "1 questions, but documents has 2 lists", "documents"),
        (["Who?", "When?"], [[WALL], []], r"documents\[1\] is empty", "documents[1]"),
        ([], [], "questions is empty", "questions"),
        (["Who?"], [[WALL, None]], r"documents\[0\]\[1\] is a NoneType", "documents[0][1]"),
        (["Who?"], [[WALL, " \n"]], r"documents\[0\]\[1\] is empty", "documents[0][1]"),
        ([" "], [[WALL]], r"questions\[0\] is empty", "questions[0]"),
        ([7], [[WALL]], r"questions\[0\] is a int; a text is due", "questions[0]"),
        (["Who?"], {"a": [WALL]}, "documents is a dict", "documents"),
        (None, [[WALL]], "questions is a NoneType", "questions"),
        (["Who?"], [[WALL]] * 0, "1 questions, but documents has 0", "documents"),
    ],
)
@pytest.mark.parametrize("call", ["generate_from_text", "generate_from_questions"])
def test_lists_of_the_wrong_shape_are_refused_with_their_place(
    model: CLaRa, call: str, questions: object, documents: object, message: str, field: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        getattr(model, call)(questions, documents, 4)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be a whole number from 1 on"),
        ({"max_new_tokens": True}, "max_new_tokens is True"),
        ({"generation_top_k": 0}, "generation_top_k is 0"),
        ({"generation_top_k": 1.5}, "generation_top_k is 1.5"),
    ],
)
def test_numbers_out_of_range_are_refused(
    model: CLaRa, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        model.generate_from_questions(["Who?"], [[WALL]], **{"max_new_tokens": 4, **options})


def test_paraphrases_are_refused_like_answers(model: CLaRa) -> None:
    with pytest.raises(InvalidInput, match=r"instruction is 13; .* in 0\.\.12"):
        model.generate_from_paraphrase(None, [[WALL]], instruction=13)
    with pytest.raises(InvalidInput, match="2 questions, but documents has 1 lists"):
        model.generate_from_paraphrase(["", ""], [[WALL]])
    with pytest.raises(InvalidInput, match="documents is a string"):
        model.generate_from_paraphrase([""], WALL)  # type: ignore[arg-type]


def test_a_question_the_reasoner_cannot_read_is_refused(model: CLaRa) -> None:
    with pytest.raises(QuestionTooLong, match=r"question 1 has .* one pass takes 32"):
        model.generate_from_questions(["Who?", "why " * 40], [[WALL], [WALL]])
    with pytest.raises(EmptyText, match=r"questions\[0\] is empty"):
        model.encode_questions([""])


def test_a_prompt_over_the_context_is_refused_before_anything_is_generated(model: CLaRa) -> None:
    generator = replace(model.models.generator, context=120)
    small = CLaRa(replace(model.models, generator=generator))
    told: list[str] = []
    with pytest.raises(TextTooLong, match=r"questions\[1\] has .* the base reads 120") as caught:
        small.generate_from_text(
            ["Who?", "Who?"], [[WALL], [WALL] * 9], 4, on_token=lambda _, piece: told.append(piece)
        )
    assert caught.value.limit == 120
    assert told == []
    with pytest.raises(TextTooLong, match="the prompt of question has"):
        small.stream("Who?", [WALL] * 9)


def test_latents_of_another_checkpoint_are_refused(model: CLaRa, home: Path) -> None:
    other = CLaRa.from_pretrained(home / "tiny", rate=8, **SMALL).compress_documents([WALL])
    with pytest.raises(CheckpointMismatch, match=r"shape \(4, 32\)"):
        model.generate_from_latents(["Who?"], [other])


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (lambda one: [one], r"latents\[0\]\[0\] is a Tensor of shape \(32,\)"),
        (lambda one: [[one.tolist()]], r"latents\[0\]\[0\] is a list"),
        (lambda _: [[]], r"latents\[0\] is empty"),
        (lambda _: "latent", "latents is a string"),
        (lambda one: [[one], [one]], "1 questions, but latents has 2 lists"),
    ],
)
def test_what_is_no_list_of_latents_is_refused(model: CLaRa, latents: Any, message: str) -> None:
    (one,) = model.compress_documents([WALL])
    with pytest.raises(InvalidInput, match=message):
        model.generate_from_latents(["Who?"], latents(one))


def test_nothing_to_compress_or_encode_gives_nothing(model: CLaRa) -> None:
    assert model.compress_documents([]) == []
    assert model.encode_questions([]) == []


# -- the pooled kind


@pytest.fixture(scope="module")
def pooled(home: Path) -> Path:
    return tiny_checkpoint(home / "pooled", home / "base", rate=4, pooled_rates=(2, 4, 8))


def test_a_short_document_has_fewer_rows_where_latents_are_pooled(pooled: Path) -> None:
    model = CLaRa.from_pretrained(pooled, **SMALL)
    short, long = model.compress_documents(["ice", BEES])
    assert len(short) < len(long) <= 8
    assert (
        "".join(model.stream("Who?", latents=[short, long], max_new_tokens=9))
        == (model.generate_from_text(["Who?"], [["ice", BEES]], 9)[0])
    )


@pytest.mark.parametrize("rate", [2, 4, 8])
def test_batches_of_pooled_latents_give_what_each_gives_alone(pooled: Path, rate: int) -> None:
    model = CLaRa.from_pretrained(pooled, rate=rate, **SMALL)
    together = model.generate_from_questions(ASKED, GIVEN, 9)
    alone = [model.generate_from_questions([q], [d], 9) for q, d in zip(ASKED, GIVEN, strict=True)]
    assert together == ([texts[0] for texts, _ in alone], [chosen[0] for _, chosen in alone])
    assert model.generate_from_paraphrase(None, GIVEN, 9) == [
        model.generate_from_paraphrase(None, [documents], 9)[0] for documents in GIVEN
    ]


def test_a_long_document_may_be_split_or_cut_where_latents_are_pooled(pooled: Path) -> None:
    model = CLaRa.from_pretrained(pooled, **SMALL)
    (cut,) = model.compress_documents([LONG], long_documents="cut")
    assert cut.shape == (8, HIDDEN)
    assert model.generate_from_text(["Who?"], [[LONG]], 5, long_documents="split")


def test_pooled_rates_that_were_not_trained_are_refused_with_those_that_were(
    pooled: Path,
) -> None:
    with pytest.raises(InvalidCheckpoint, match="2, 4, 8"):
        CLaRa.from_pretrained(pooled, rate=16, **SMALL)
