from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from clara import CLaRa, RAGMaster
from clara.errors import (
    EmptyText,
    InvalidCheckpoint,
    InvalidInput,
    InvalidSettings,
    ModelMissing,
    QuestionTooLong,
)
from clara.model.compressor import Compressor
from clara.model.generator import Generator
from clara.rag.answered import Answered, is_supported
from clara.rag.config import RagConfig, config_of, read_config
from clara.rag.search import Passage, fused, narrow
from clara.retrieval.encoder import SentenceEncoder
from clara.settings import Settings
from clara.types import Mode
from clara.wording import (
    NO_ENCODER,
    NOT_ANSWERED,
    NOT_IN_DOCUMENTS,
    NOT_MENTIONED,
    UNSUPPORTED,
    UNTRAINED,
    UNTRAINED_TEXT,
    WITHOUT_DOCUMENTS,
)
from tests.tiny import tiny_base, tiny_checkpoint, tiny_encoder

SHIPPED = Path(__file__).parents[2] / "rag_config.yaml"
HARBOUR = (
    "The harbour wall was built in 1874. Its engineer was Margaret Osgood. The stone came by sea "
    "from the north. Ships of every size lie behind it when the wind turns."
)
BEES = "Honey bees dance on the comb. A short dance means that food is near."
TEA = "Tea reached the market in 1723. It came from Canton."
DOCUMENTS = [TEA, HARBOUR, BEES]
QUESTION = "Who was the engineer of the wall?"
ANY: dict[str, Any] = {
    "reranking": {"min_score": -1.0},
    "generation": {"max_new_tokens": 8},
    "guardrails": {"require_citations": False},
}
"""Everything goes: the scores and answers of random weights mean nothing."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    base = tiny_base(home / "base")
    for rate in (4, 8):
        tiny_checkpoint(home / "tiny" / f"compression-{rate}", base, rate=rate)
    tiny_encoder(home / "encoder")
    return home


@pytest.fixture(scope="module")
def model(home: Path) -> CLaRa:
    return CLaRa.from_pretrained(home / "tiny", rate=4, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def untrained(home: Path) -> CLaRa:
    return CLaRa.untrained(home / "base", rate=4, doc_max_length=32, device="cpu", dtype="float32")


def master(model: CLaRa, **sections: dict[str, Any]) -> RAGMaster:
    """Sections are those of the file, over ANY."""
    retrieval = {"encoder": None} | sections.pop("retrieval", {})
    merged = {name: ANY.get(name, {}) | values for name, values in sections.items()}
    return RAGMaster(model, config=config_of({**ANY, "retrieval": retrieval, **merged}))


# -- answering


def test_an_answer_unpacks_into_response_and_citations(model: CLaRa) -> None:
    response, citations = master(model).query(QUESTION, DOCUMENTS)
    assert response.strip()
    assert [citation.rank for citation in citations] == [1, 2, 3, 4, 5]
    scores = [citation.score for citation in citations]
    assert scores == sorted(scores, reverse=True)
    with pytest.raises(FrozenInstanceError):
        citations[0].rank = 9  # type: ignore[misc]


def test_citations_point_at_their_words_in_the_documents(
    model: CLaRa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "text_of", lambda *_: "Margaret Osgood")
    _, citations = master(model, reranking={"top_k": 20}).query(QUESTION, DOCUMENTS)
    assert {citation.document for citation in citations} == {0, 1, 2}
    for citation in citations:
        document = DOCUMENTS[citation.document]
        assert document[citation.start : citation.end] == citation.text
        if citation.evidence is not None:
            assert citation.start <= citation.evidence_start < citation.evidence_end
            assert document[citation.evidence_start : citation.evidence_end] == citation.evidence
    evidence = {citation.evidence for citation in citations}
    assert "Its engineer was Margaret Osgood." in evidence


def test_scores_are_the_cosines_of_query_and_passage(model: CLaRa) -> None:
    _, citations = master(model, reranking={"top_k": 20}).query(QUESTION, DOCUMENTS)
    (query,) = model.encode_questions([QUESTION])
    for citation in citations:
        (latent,) = model.compress_documents([citation.text])
        wanted = cosine_similarity(query.flatten(), latent.flatten(), dim=0)
        assert citation.score == pytest.approx(float(wanted), abs=1e-5)


def test_the_generator_reads_the_latents_of_the_cited_passages_best_first(model: CLaRa) -> None:
    answered = master(
        model, generation={"temperature": 0.0, "max_new_tokens": 8}, reranking={"top_k": 3}
    ).query(QUESTION, DOCUMENTS)
    latents = model.compress_documents([citation.text for citation in answered.citations])
    (wanted,) = model.generate_from_latents([QUESTION], [latents], 8)
    assert answered.response == wanted.strip()
    assert (answered.mode, answered.refused, answered.notices) == (Mode.LATENT, False, ())


def test_text_mode_lets_the_base_read_the_passages(model: CLaRa) -> None:
    answered = master(
        model, generation={"mode": "text", "temperature": 0.0}, reranking={"top_k": 2}
    ).query(QUESTION, DOCUMENTS)
    texts = [citation.text for citation in answered.citations]
    wanted = model.models.generator.answer_from_text(QUESTION, texts, max_new_tokens=8)
    assert answered.response == wanted.text
    assert answered.mode is Mode.TEXT


def test_the_same_seed_gives_the_same_answer(model: CLaRa) -> None:
    def answer(seed: int, temperature: float = 2.0) -> str:
        chosen = {"max_new_tokens": 8, "temperature": temperature, "seed": seed}
        return master(model, generation=chosen).query(QUESTION, DOCUMENTS).response

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) > 1
    assert answer(1, 0.0) == answer(2, 0.0)


def test_a_passage_is_compressed_once_for_all_questions(
    model: CLaRa, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = Compressor.compress

    def spy(self: Compressor, texts: list[str], **options: bool) -> Any:
        seen.extend(texts)
        return real(self, texts, **options)

    monkeypatch.setattr(Compressor, "compress", spy)
    rag = master(model)
    first = rag.query(QUESTION, [*DOCUMENTS, TEA])
    rag.query("When did tea come?", DOCUMENTS)
    assert len(seen) == len(set(seen)) > len(DOCUMENTS)
    assert rag.query(QUESTION, [*DOCUMENTS, TEA]) == first
    forgetful = RAGMaster(model, config=rag.config, cache_bytes=3000)
    assert forgetful.query(QUESTION, [*DOCUMENTS, TEA]) == first
    assert 0 < forgetful._latents.bytes <= 3000


def test_a_passage_is_encoded_once_for_ranking_and_for_every_question(
    untrained: CLaRa, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = SentenceEncoder.encode

    def spy(self: SentenceEncoder, texts: Sequence[str]) -> Any:
        seen.extend(texts)
        return real(self, texts)

    monkeypatch.setattr(SentenceEncoder, "encode", spy)
    few = {"encoder": str(home / "encoder"), "candidates": 5}
    rag = master(untrained, retrieval=few)
    first = rag.query(QUESTION, [*DOCUMENTS, TEA])
    rag.query("When did tea come?", [*DOCUMENTS, TEA])
    assert len(seen) == len(set(seen)) > len(DOCUMENTS)
    assert rag.query(QUESTION, [*DOCUMENTS, TEA]) == first
    forgetful = RAGMaster(untrained, config=rag.config, cache_bytes=0)
    assert forgetful.query(QUESTION, [*DOCUMENTS, TEA]) == first
    assert seen.count(QUESTION) > 1


def test_closing_lets_go_of_a_model_that_was_opened_here(home: Path) -> None:
    with RAGMaster(home / "tiny", 8, config=config_of(ANY), device="cpu") as rag:
        assert rag.model.models.checkpoint.config.compr_rate == 8
        rag.query(QUESTION, DOCUMENTS)
        weights = weakref.ref(rag.model.models.generator.model)
    gc.collect()
    assert weights() is None
    with pytest.raises(ModelMissing, match="closed"):
        rag.query(QUESTION, DOCUMENTS)


def test_closing_leaves_a_model_that_was_given(model: CLaRa) -> None:
    rag = master(model)
    rag.query(QUESTION, DOCUMENTS)
    rag.close()
    assert rag._latents.bytes == 0
    assert model.compress_documents([TEA])


# -- guardrails


def best_score(model: CLaRa) -> float:
    return master(model).query(QUESTION, DOCUMENTS).citations[0].score


def test_only_passages_that_score_enough_are_read(model: CLaRa) -> None:
    scores = [c.score for c in master(model).query(QUESTION, DOCUMENTS).citations]
    between = (scores[1] + scores[2]) / 2
    found = master(model, reranking={"min_score": between}).query(QUESTION, DOCUMENTS)
    assert [citation.score for citation in found.citations] == scores[:2]


def test_nothing_that_scores_enough_is_refused_with_a_fixed_sentence(
    model: CLaRa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "generate", None)  # the model is not even asked
    for sections in (
        {"reranking": {"min_score": 1.0}},
        {"guardrails": {"min_score": 1.0}},
    ):
        response, citations = answered = master(model, **sections).query(QUESTION, DOCUMENTS)
        assert response == NOT_IN_DOCUMENTS
        assert citations == []
        assert answered.refused


def test_the_best_passage_alone_decides_whether_there_is_an_answer(model: CLaRa) -> None:
    guard = best_score(model) - 1e-4
    found = master(model, guardrails={"min_score": guard}).query(QUESTION, DOCUMENTS)
    assert len(found.citations) == 5
    assert not found.refused


def test_an_answer_without_documents_is_given_where_it_is_allowed(model: CLaRa) -> None:
    loose = {"require_citations": False, "allow_out_of_context": True, "min_score": 1.0}
    found = master(model, guardrails=loose, generation={"temperature": 0.0}).query(
        QUESTION, DOCUMENTS
    )
    wanted = model.models.generator.answer_from_text(QUESTION, [], max_new_tokens=8)
    assert found == (wanted.text, [])
    assert found.notices == (WITHOUT_DOCUMENTS,)
    assert not found.refused


def test_an_answer_no_passage_supports_is_withheld_unless_it_may_stand(model: CLaRa) -> None:
    question, documents = "Xylem qua?", ["Zzz yyy."]
    strict = master(model, guardrails={"require_citations": True}).query(question, documents)
    assert strict == (NOT_IN_DOCUMENTS, [])
    assert (strict.refused, strict.notices) == (True, (UNSUPPORTED,))
    loose = master(model).query(question, documents)
    assert not loose.refused
    assert loose.citations[0].evidence is None


def test_an_answer_is_supported_where_one_of_its_sentences_is() -> None:
    passages = [Passage(0, 0, len(HARBOUR), HARBOUR)]
    right = "Margaret Osgood was the engineer."
    long = f"{right} " + " ".join(f"Zwo{n} quil{n} brap{n} snok{n} vlim{n}." for n in range(9))
    assert is_supported(right, QUESTION, passages)
    assert is_supported(long, QUESTION, passages)
    assert not is_supported("Zwo quil brap snok vlim wurp.", "Xylem qua?", passages)
    assert not is_supported("", "Xylem qua?", passages)


def test_documents_that_are_beside_the_question_are_not_answered_from(
    model: CLaRa, home: Path
) -> None:
    encoder = {"encoder": str(home / "encoder")}

    def asked(question: str, **guards: Any) -> Answered:
        free = {"require_citations": False}
        return master(model, retrieval=encoder, guardrails=free | guards).query(question, [HARBOUR])

    assert not asked("Xylem qua?").refused  # another encoder has no bound of its own
    assert asked("Xylem qua?", min_cosine=1.0) == (NOT_IN_DOCUMENTS, [])
    assert not asked("Xylem qua?", min_cosine=-1.0).refused
    assert not asked(HARBOUR.split(".")[0], min_cosine=1.0).refused  # it has the words


def test_a_name_that_no_document_mentions_is_not_answered_from_them(
    model: CLaRa, home: Path
) -> None:
    encoder = {"encoder": str(home / "encoder")}
    question, documents = "Who paid for the pier in Vienna?", [HARBOUR]

    def asked(question: str, documents: Sequence[str], **guards: Any) -> Answered:
        free = {"require_citations": False}
        return master(model, retrieval=encoder, guardrails=free | guards).query(question, documents)

    assert not asked(question, documents).refused  # another encoder has no bound of its own
    strict = asked(question, documents, min_mention=1.0)
    assert (strict.refused, strict.citations) == (True, [])
    assert strict.notices == (NOT_MENTIONED.format(name="Vienna"),)
    assert not asked(question, documents, min_mention=-1.0).refused
    assert not asked(question, [*documents, "Vienna has no sea."], min_mention=1.0).refused


def test_documents_that_do_not_look_like_an_answer_are_not_answered_from(
    model: CLaRa, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reading(SentenceEncoder):
        least_answerability = 0.3

        def answerability(self, question: str, passages: Sequence[str]) -> list[float]:
            return [0.5 if "pier" in question else 0.1 for _ in passages]

    installed = "clara.{}.installed_answerability"
    monkeypatch.setattr(installed.format("rag.guarding"), lambda: home)
    monkeypatch.setattr(installed.format("rag_master"), lambda: home)
    monkeypatch.setattr(
        "clara.library.installed.settings", lambda: Settings(sentence_encoder=str(home / "encoder"))
    )
    monkeypatch.setattr(
        "clara.answerability.encoder.open_encoder",
        lambda source, _, device: Reading(source, device=device),
    )

    def asked(question: str, **guards: Any) -> Answered:
        free = {"require_citations": False}
        own = {"encoder": "default"}
        asking = master(model, retrieval=own, guardrails=free | guards)
        return asking.query(question, [HARBOUR])

    assert not asked("Who paid for the pier?").refused
    missed = asked("Who paid for the mast?")
    assert (missed.refused, missed.citations) == (True, [])
    assert missed.notices == (NOT_ANSWERED,)
    assert not asked("Who paid for the mast?", min_answerability=-1.0).refused
    assert asked("Who paid for the pier?", min_answerability=0.6).refused


# -- an untrained checkpoint


def test_an_untrained_model_reads_text_refuses_nothing_and_says_so(untrained: CLaRa) -> None:
    strict = {"min_score": 1.0}
    found = master(
        untrained, reranking=strict, guardrails=strict, generation={"temperature": 0.0}
    ).query(QUESTION, DOCUMENTS)
    assert found.mode is Mode.TEXT
    assert found.notices == (UNTRAINED_TEXT,)
    assert not found.refused
    assert "Its engineer was Margaret Osgood." in found.citations[0].text
    assert all(0 <= citation.score <= 1 for citation in found.citations)
    texts = [citation.text for citation in found.citations]
    wanted = untrained.models.generator.answer_from_text(QUESTION, texts, max_new_tokens=8)
    assert found.response == wanted.text


def test_an_untrained_model_reads_latents_only_when_told_to(untrained: CLaRa) -> None:
    found = master(untrained, generation={"mode": "latent", "max_new_tokens": 4}).query(
        QUESTION, DOCUMENTS
    )
    assert (found.mode, found.notices) == (Mode.LATENT, (UNTRAINED,))


def test_the_encoder_helps_to_rank_for_an_untrained_model(untrained: CLaRa, home: Path) -> None:
    plain, helped = (
        master(untrained, retrieval={"encoder": encoder}, reranking={"top_k": 9})
        .query(QUESTION, DOCUMENTS)
        .citations
        for encoder in (None, str(home / "encoder"))
    )
    assert [c.text for c in plain] != [c.text for c in helped]
    assert {c.text for c in plain} == {c.text for c in helped}


# -- finding, where there are many passages


MANY = [f"Passage {number} tells of thing {number}." for number in range(12)]


def test_few_passages_are_all_compressed(model: CLaRa) -> None:
    rag = master(
        model,
        retrieval={"candidates": 12, "bm25_top_k": 1, "dense_top_k": 1},
        reranking={"top_k": 12},
    )
    assert len(rag.query("thing 7?", MANY).citations) == 12


def test_of_many_passages_those_that_share_words_are_compressed(model: CLaRa) -> None:
    rag = master(model, retrieval={"candidates": 3, "bm25_top_k": 2}, reranking={"top_k": 9})
    found = rag.query("7 or 9?", MANY)
    assert {citation.document for citation in found.citations} == {7, 9}
    assert found.notices == ()


def test_the_encoder_adds_passages_that_share_no_word(model: CLaRa, home: Path) -> None:
    few = {"candidates": 6, "bm25_top_k": 2, "dense_top_k": 3, "encoder": str(home / "encoder")}
    for fusion in ("union", "rrf"):
        rag = master(model, retrieval={**few, "fusion": fusion}, reranking={"top_k": 9})
        documents = {c.document for c in rag.query("7 or 9?", MANY).citations}
        assert {7, 9} < documents
        assert len(documents) <= 5


def test_a_missing_encoder_is_told_where_it_would_have_helped(
    model: CLaRa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clara.library.installed.settings", lambda: Settings(home=tmp_path))
    few = {"candidates": 3, "encoder": "default"}
    assert master(model, retrieval=few).query("7 or 9?", MANY).notices == (NO_ENCODER,)
    assert master(model, retrieval=few).query("7 or 9?", MANY[:3]).notices == ()


@settings(max_examples=50)
@given(
    numbers=st.lists(st.integers(0, 9), min_size=1, max_size=15),
    candidates=st.integers(1, 9),
    bm25=st.integers(1, 9),
    asked=st.integers(0, 9),
)
def test_narrowing_keeps_existing_passages_once_and_no_more_than_allowed(
    numbers: list[int], candidates: int, bm25: int, asked: int
) -> None:
    passages = [Passage(at, 0, 7, f"thing {number}") for at, number in enumerate(numbers)]
    retrieval = config_of(
        {"retrieval": {"candidates": candidates, "bm25_top_k": bm25, "encoder": None}}
    ).retrieval
    found = narrow(str(asked), passages, retrieval, None)
    assert len(set(found)) == len(found)
    assert set(found) <= set(range(len(passages)))
    assert 1 <= len(found) <= max(candidates, 1)
    if len(passages) > candidates and asked in numbers:
        assert {numbers[at] for at in found} == {asked}
    scores = fused(str(asked), passages, None)
    assert all(
        (score > 0) == (number == asked) for score, number in zip(scores, numbers, strict=True)
    )


# -- what is refused


@pytest.mark.parametrize(
    ("question", "documents", "kind", "message"),
    [
        (QUESTION, TEA, InvalidInput, "documents is a string; a list of documents is due"),
        (QUESTION, [], InvalidInput, "documents is empty"),
        (QUESTION, [TEA, " "], EmptyText, r"documents\[1\] is empty"),
        (QUESTION, [TEA, 3], InvalidInput, r"documents\[1\] is a int"),
        (" ", [TEA], EmptyText, "question is empty"),
        (None, [TEA], InvalidInput, "question is a NoneType"),
        ("why " * 40, [TEA], QuestionTooLong, "one pass takes 32"),
    ],
)
def test_a_question_or_documents_that_cannot_be_are_refused(
    model: CLaRa, question: Any, documents: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        master(model).query(question, documents)


def test_a_rate_the_model_does_not_have_is_refused(model: CLaRa, home: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"rate 8 is none of those .* trained for: 4"):
        RAGMaster(model, 8)
    with pytest.raises(InvalidCheckpoint, match="compression-4, compression-8"):
        RAGMaster(home / "tiny", 16, base=home / "base")
    pooled = tiny_checkpoint(home / "pooled", home / "base", pooled_rates=(2, 4))
    loaded = CLaRa.from_pretrained(pooled, device="cpu", dtype="float32")
    assert RAGMaster(loaded, 4, top_k=1, config=config_of(ANY)).query(QUESTION, DOCUMENTS).response
    with pytest.raises(InvalidInput, match="was loaded at rate 4, not 2") as caught:
        RAGMaster(loaded, 2)
    assert caught.value.field == "compression_rate"


def test_a_length_the_checkpoint_does_not_have_is_refused(home: Path) -> None:
    config = config_of({"compression": {"doc_max_length": 256}})
    with pytest.raises(InvalidSettings, match="doc_max_length is 256; tiny was trained for 32"):
        RAGMaster(home / "tiny", 4, config=config)


def test_arguments_are_judged_like_the_file(model: CLaRa) -> None:
    with pytest.raises(InvalidSettings, match=r"rag_master\.reranking\.top_k is 0; "):
        RAGMaster(model, top_k=0)
    assert RAGMaster(model, top_k=2).config.reranking.top_k == 2
    assert RAGMaster(model).config == RagConfig()


# -- the file


def write(folder: Path, content: object) -> Path:
    path = folder / "rag_config.yaml"
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_shipped_has_the_defaults_and_all_keys() -> None:
    config = read_config(SHIPPED)
    told = config.model_dump(exclude={"compression": {"rate", "doc_max_length"}})
    assert told == RagConfig().model_dump(exclude={"compression": {"rate", "doc_max_length"}})
    assert (config.compression.rate, config.compression.doc_max_length) == (16, 256)
    written = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    assert list(written) == ["rag_master"]
    assert list(written["rag_master"]) == list(RagConfig.model_fields)
    text = SHIPPED.read_text(encoding="utf-8")
    for section in RagConfig.model_fields.values():
        for key in section.annotation.model_fields:  # type: ignore[union-attr]
            assert f"{key}:" in text


def test_the_file_shipped_answers_with_the_models_of_this_installation(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / "base", tmp_path / "models" / "smollm2-135m-instruct")
    installed = Settings(home=tmp_path, device="cpu")
    monkeypatch.setattr("clara.library.installed.settings", lambda: installed)
    monkeypatch.setattr("clara.default_models.default_checkpoint", lambda: None)  # of another base
    rag = RAGMaster.from_config(SHIPPED)
    models = rag.model.models
    assert (models.checkpoint.config.compr_rate, models.tokens.doc_max_length) == (16, 256)
    response, citations = answered = rag.query(QUESTION, DOCUMENTS)
    assert answered.notices == (UNTRAINED_TEXT,)
    assert len(citations) == 3
    assert isinstance(response, str)


def test_a_checkpoint_may_ask_for_its_latents_to_be_one_voice_of_three(model: CLaRa) -> None:
    models = model.models
    told = replace(models.checkpoint, config=replace(models.checkpoint.config, latent_weight=0.5))
    asking = CLaRa(replace(models, checkpoint=told))
    free = {**ANY, "reranking": {}}
    rag = RAGMaster(asking, config=config_of({**free, "retrieval": {"encoder": None}}))
    texts = [text[:40] for text in DOCUMENTS]
    passages = [Passage(at, 0, len(text), text) for at, text in enumerate(texts)]
    ranked = rag._rank(QUESTION, passages, [])
    voice = rag._scores(QUESTION, passages)
    assert {one.passage.text: one.score for one in ranked} == dict(
        zip(texts, fused(QUESTION, passages, None, voice, weight=0.5), strict=True)
    )
    bounded = master(asking)
    found = [one.score for one in bounded._rank(QUESTION, passages, [])]
    assert found == sorted(voice, reverse=True)


def test_the_models_of_an_installation_may_be_a_checkpoint_of_its_own(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = Settings(
        home=tmp_path,
        checkpoint=str(home / "tiny"),
        base_model=str(home / "base"),
        sentence_encoder=str(home / "encoder"),
        device="cpu",
    )
    monkeypatch.setattr("clara.library.installed.settings", lambda: installed)
    rag = RAGMaster(compression_rate=8, config=config_of({"retrieval": {"candidates": 3}}))
    assert rag.model.models.checkpoint.trained
    found = rag.query("7 or 9?", MANY)
    assert NO_ENCODER not in found.notices


def test_an_installation_without_models_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clara.library.installed.settings", lambda: Settings(home=tmp_path))
    with pytest.raises(ModelMissing, match="Run `clara models fetch`, or name a model of your own"):
        RAGMaster.from_config(SHIPPED)


def test_a_base_that_is_named_takes_the_place_of_the_installations(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clara.library.installed.settings", lambda: Settings(home=tmp_path))
    rag = RAGMaster(base=home / "base", compression_rate=8, device="cpu")
    assert not rag.model.models.checkpoint.trained
    assert rag.model.models.checkpoint.config.compr_rate == 8


def test_folders_in_the_file_count_from_its_own(home: Path) -> None:
    path = write(
        home,
        {
            "rag_master": {
                "compression": {"model": "tiny", "rate": 4, "base": "base", "device": "cpu"},
                "retrieval": {"encoder": "encoder"},
            }
        },
    )
    config = read_config(path)
    assert config.compression.model == str(home / "tiny")
    assert config.retrieval.encoder == str(home / "encoder")
    rag = RAGMaster.from_config(path, dtype="float32")
    assert rag.model.models.checkpoint.config.compr_rate == 4
    assert rag.model.models.generator.model.dtype == torch.float32


def test_a_model_given_takes_the_place_of_the_files(model: CLaRa) -> None:
    rag = RAGMaster.from_config(SHIPPED, model)
    assert rag.model is model
    assert rag.config.reranking.top_k == 5


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("rag_master.reranking.topk", "top_k"),
        ("rag_master.reranking.min_scor", "min_score"),
        ("rag_master.retrieval.bm_25_top_k", "bm25_top_k"),
        ("rag_master.compression.max_length", "doc_max_length"),
        ("rag_master.guardrail", "guardrails"),
        ("rag_maste", "rag_master"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest_known_one(
    tmp_path: Path, path: str, near: str
) -> None:
    content: dict[str, Any] = {"rag_master": {}}
    place = content
    *above, key = path.split(".")
    for part in above:
        place = place.setdefault(part, {})
    place[key] = {}
    with pytest.raises(InvalidSettings) as caught:
        read_config(write(tmp_path, content))
    assert str(caught.value) == f"{path} is not known. Did you mean {near!r}?"
    assert caught.value.field == path


def test_an_unknown_key_like_no_other_is_told_all_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="Known here: top_k, min_score"):
        read_config(write(tmp_path, {"rag_master": {"reranking": {"zzz": 1}}}))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("reranking.top_k", "5", "is '5'; input should be a valid integer"),
        ("reranking.top_k", True, "is True; input should be a valid integer"),
        ("reranking.top_k", 0, "is 0; input should be greater than or equal to 1"),
        ("reranking.min_score", 1.5, "is 1.5; input should be less than or equal to 1"),
        ("reranking.min_score", float("nan"), "is nan; input should be a finite number"),
        ("generation.temperature", -1, "is -1; input should be greater than or equal to 0"),
        ("generation.mode", "latents", "is 'latents'; input should be 'latent', 'text' or 'auto'"),
        ("generation.seed", 1.5, "is 1.5; input should be a valid integer"),
        ("retrieval.fusion", "sum", "is 'sum'; input should be 'union' or 'rrf'"),
        ("guardrails.require_citations", "yes", "is 'yes'; input should be a valid boolean"),
        ("compression.model", 7, "is 7; input should be a valid string"),
        ("compression", [1], "is [1]; input should be"),
    ],
)
def test_a_value_that_cannot_be_is_an_error_that_names_its_key(
    tmp_path: Path, path: str, value: object, message: str
) -> None:
    content: dict[str, Any] = {}
    place = content
    *above, key = path.split(".")
    for part in above:
        place = place.setdefault(part, {})
    place[key] = value
    with pytest.raises(InvalidSettings) as caught:
        read_config(write(tmp_path, {"rag_master": content}))
    assert caught.value.message.startswith(f"rag_master.{path} {message}")
    assert caught.value.field == f"rag_master.{path}"


def test_guardrails_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    content = {"rag_master": {"guardrails": {"allow_out_of_context": True}}}
    with pytest.raises(
        InvalidSettings, match=r"rag_master\.guardrails: allow_out_of_context needs require_cit"
    ):
        read_config(write(tmp_path, content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no key 'rag_master' at its top"),
        ("- 1", "has no key 'rag_master' at its top"),
        ("rag_master: [", "is no YAML"),
        ("rag_master:\n  reranking: {top_k: 1, top_k: 2}", "the key 'top_k' is given twice"),
        ("rag_master: !!python/object/apply:os.getcwd []", "is no YAML"),
        ("rag_master: 7", "rag_master is 7; input should be"),
        ("rag_master: {? [a] : 1}", "is no YAML"),
    ],
)
def test_a_file_that_is_no_such_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message.replace("(", r"\(")):
        read_config(write(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"nothing.yaml cannot be read: No such file"):
        RAGMaster.from_config(tmp_path / "nothing.yaml")


def test_an_empty_section_has_its_defaults(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "rag_master:")) == RagConfig()
    assert read_config(write(tmp_path, "rag_master: {reranking: {}}")) == RagConfig()
