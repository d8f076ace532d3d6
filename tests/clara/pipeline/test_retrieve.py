"""What is found for a question, on real stores and with tiny models."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import delete

from clara.db.tables import DenseEntry
from clara.errors import IndexUnavailable
from clara.filters import Equals, Range
from clara.mentions import TokenEncoder
from clara.model.models import Models
from clara.pipeline.asking import Answering
from clara.pipeline.compress import Compressing, compress_collection
from clara.pipeline.index import Indexing
from clara.pipeline.retrieve import Retrieved, retrieve
from clara.retrieval import hybrid
from clara.retrieval.ports import LexicalIndex
from clara.serving.encoding import EncoderOnEngine
from clara.types import Fate, Mode, PassageText, Rerank, SourceDocument
from clara.wording import NOT_ANSWERED, NOT_MENTIONED
from tests.clara.pipeline.conftest import Ask, Write, index

FACTS = [
    "Tea came from Canton.",
    "Bees dance on the comb.",
    "Ice forms on the sea.",
    "The harbour wall was built.",
    "Salt water cools.",
    "A ship came to market.",
    "Flowers grow by the wall.",
]


def documents() -> list[SourceDocument]:
    return [
        SourceDocument(text, external_id=str(at), metadata={"number": at, "even": at % 2 == 0})
        for at, text in enumerate(FACTS)
    ]


@pytest.fixture
def filled(write: Write, indexing: Indexing, collection: UUID) -> UUID:
    index(write(*documents()), indexing)
    return collection


@pytest.fixture
def compressed(filled: UUID, answering: Answering, indexing: Indexing) -> UUID:
    compress(filled, answering, indexing)
    return filled


def compress(collection: UUID, answering: Answering, indexing: Indexing) -> None:
    compressing = Compressing(
        open_db=answering.open_db,
        latents=answering.latents,
        compressor=answering.models.compressor,
        engine=answering.engine,
        tokenizer=indexing.tokenizer,
        fingerprint=answering.models.fingerprint,
        doc_max_length=indexing.doc_max_length,
        on_processor=True,
    )
    compress_collection(
        collection, compressing, budget_s=60, on_batch=lambda _: None, stopped=lambda: False
    )


def limited(answering: Answering, **limits: Any) -> Answering:
    return replace(answering, limits=replace(answering.limits, **limits))


def texts(found: Retrieved, fate: Fate | None = None) -> list[str]:
    return [one.read.text for one in found.considered if fate in (None, one.fate)]


def test_latents_rank_by_the_function_of_training(
    compressed: UUID, answering: Answering, ask: Ask
) -> None:
    found = retrieve(ask("Who came?"), answering)
    assert found.reranked_by == "latent"
    query = answering.models.reasoner.encode(["Who came?"])[0]
    for one in found.considered:
        block = found.latents[one.read.candidate.passage_id]
        assert one.read.score == pytest.approx(answering.models.score(query, [block]).item())
        assert (one.cosine, one.latent) == (None, one.read.score)
    scores = [one.read.score for one in found.considered]
    assert scores == sorted(scores, reverse=True)
    assert sorted(texts(found)) == sorted(FACTS)


def test_latents_are_one_voice_of_three_where_both_are_asked_for(
    compressed: UUID, answering: Answering, ask: Ask
) -> None:
    words = "harbour wall"
    alone = {
        one.read.candidate.passage_id: one.latent
        for one in retrieve(ask(words), answering).considered
    }
    heavy = limited(answering, latent_weight=3.0, min_score=1.0)
    found = retrieve(ask(words, rerank=Rerank.BOTH), heavy)
    assert found.reranked_by == "both"
    latents = {one.read.candidate.passage_id: one.latent or 0.0 for one in found.considered}
    assert latents == pytest.approx(alone)
    cosines = {one.read.candidate.passage_id: one.cosine or 0.0 for one in found.considered}
    candidates = [one.read.candidate for one in found.considered]
    wanted = hybrid.fuse(candidates, cosines, latents, weight=3.0)
    assert {
        one.read.candidate.passage_id: one.read.score for one in found.considered
    } == pytest.approx(wanted)
    scores = [one.read.score for one in found.considered]
    assert scores == sorted(scores, reverse=True)
    assert len(found.chosen) == 5  # a bound for latents cuts nothing that others put first


def test_a_trained_checkpoint_can_be_left_out_of_the_ranking(
    compressed: UUID, answering: Answering, untrained_models: Models, ask: Ask
) -> None:
    found = retrieve(ask("harbour wall", rerank=Rerank.FUSION), limited(answering, min_score=1.0))
    plain = retrieve(ask("harbour wall"), replace(answering, models=untrained_models))
    assert (found.reranked_by, plain.reranked_by) == ("fusion", "fusion")
    assert texts(found) == texts(plain)
    assert [one.latent for one in found.considered] == [None] * len(FACTS)
    assert set(found.latents) >= {one.candidate.passage_id for one in found.chosen}  # to be read


@pytest.mark.parametrize("rerank", list(Rerank))
def test_without_the_vectors_every_ranking_goes_on(
    compressed: UUID, answering: Answering, ask: Ask, rerank: Rerank
) -> None:
    lose_vectors(answering, compressed)
    found = retrieve(ask("harbour wall", rerank=rerank), answering)
    assert (found.degraded, found.reranked_by) == (["dense"], rerank)
    assert set(texts(found)) == {FACTS[3], FACTS[6]}


def test_the_losers_of_a_question_are_told_apart(
    compressed: UUID, answering: Answering, ask: Ask
) -> None:
    plain = retrieve(ask("Who came?", top_k=2), answering)
    scores = [one.read.score for one in plain.considered]
    cut = limited(answering, min_score=scores[4], max_candidates=50)
    found = retrieve(ask("Who came?", top_k=2), cut)
    fates = [one.fate for one in found.considered]
    assert fates == ([Fate.READ] * 2 + [Fate.BEYOND_TOP_K] * 3 + [Fate.BELOW_MIN_SCORE] * 2)
    assert [one.text for one in found.chosen] == texts(found, Fate.READ)


def test_what_is_found_beyond_the_candidates_is_not_ranked(
    compressed: UUID, answering: Answering, ask: Ask
) -> None:
    found = retrieve(ask("Who came?"), limited(answering, max_candidates=3))
    assert len(found.considered) == len(FACTS)
    beyond = found.considered[3:]
    assert {one.fate for one in beyond} == {Fate.BEYOND_CANDIDATES}
    assert not {one.read.candidate.passage_id for one in beyond} & found.latents.keys()


def test_a_score_at_the_bound_is_read_and_one_above_all_refuses_all(
    compressed: UUID, answering: Answering, ask: Ask
) -> None:
    best = retrieve(ask("Who came?"), answering).considered[0].read.score
    at = retrieve(ask("Who came?"), limited(answering, min_score=best))
    assert [one.score for one in at.chosen] == [best]
    above = limited(answering, min_score=float(np.nextafter(best, 2.0)))
    refused = retrieve(ask("Who came?"), above)
    assert refused.chosen == []
    assert set(texts(refused, Fate.BELOW_MIN_SCORE)) == set(FACTS)


@pytest.mark.parametrize("rerank", list(Rerank))
def test_where_every_vector_is_too_far_nothing_is_read_unless_it_has_the_words(
    compressed: UUID, answering: Answering, ask: Ask, rerank: Rerank
) -> None:
    asked = ask("Who paints?", rerank=rerank)
    best = max(
        one.cosine or 0.0 for one in retrieve(asked, limited(answering, min_cosine=-0.9)).considered
    )
    near = retrieve(asked, limited(answering, min_cosine=best))
    assert len(near.chosen) == 5
    strict = limited(answering, min_cosine=float(np.nextafter(best, 2.0)))
    far = retrieve(asked, strict)
    assert far.chosen == []
    assert [one.read for one in far.considered] == [one.read for one in near.considered]
    assert {one.fate for one in far.considered} == {Fate.BELOW_MIN_SCORE, Fate.BEYOND_TOP_K}
    words = ask("Canton's tea?", rerank=rerank)
    assert len(retrieve(words, limited(answering, min_cosine=1.0)).chosen) == 5


def test_a_search_shows_what_is_too_far_to_be_answered_from(
    compressed: UUID, answering: Answering, ask: Ask
) -> None:
    asked = ask("Who paints in Vienna?", search_only=True)
    found = retrieve(asked, limited(answering, min_cosine=1.0, min_mention=1.0))
    assert len(found.chosen) == 5


def test_a_name_that_no_passage_mentions_is_not_answered_from_any(
    compressed: UUID, answering: Answering, ask: Ask
) -> None:
    strict = limited(answering, min_mention=1.0)
    foreign = retrieve(ask("Who paints in Vienna?"), strict)
    assert foreign.chosen == []
    assert foreign.notice == NOT_MENTIONED.format(name="Vienna")
    held = retrieve(ask("When did tea come from Canton?"), strict)
    assert (len(held.chosen), held.notice) == (5, None)
    loose = retrieve(ask("Who paints in Vienna?"), limited(answering, min_mention=-0.99))
    assert (len(loose.chosen), loose.notice) == (5, None)


def test_an_encoder_that_shows_no_tokens_has_no_names_looked_for(
    compressed: UUID, answering: Answering, ask: Ask
) -> None:
    shown = answering.encoder.encoder

    class Whole:
        name, dimension = shown.name, shown.dimension
        encode, encode_questions = shown.encode, shown.encode_questions

    assert isinstance(shown, TokenEncoder)
    encoder = EncoderOnEngine(Whole(), answering.engine)
    other = limited(replace(answering, encoder=encoder), min_mention=1.0)
    assert len(retrieve(ask("Who paints in Vienna?"), other).chosen) == 5


def test_passages_that_do_not_look_like_an_answer_are_not_read(
    compressed: UUID, answering: Answering, ask: Ask
) -> None:
    shown = answering.encoder.encoder

    class Reading:
        name, dimension = shown.name, shown.dimension
        encode, encode_questions = shown.encode, shown.encode_questions
        least_answerability = 0.3

        def answerability(self, question: str, passages: Sequence[str]) -> list[float]:
            return [
                0.5 if "comb" in passage and "Bees" in question else 0.1 for passage in passages
            ]

    reading = replace(answering, encoder=EncoderOnEngine(Reading(), answering.engine))
    held = retrieve(ask("Where do Bees dance?"), reading)
    assert (len(held.chosen), held.notice) == (5, None)
    missed = retrieve(ask("Where do ships dance?"), reading)
    assert (missed.chosen, missed.notice) == ([], NOT_ANSWERED)
    assert {one.fate for one in missed.considered} == {Fate.BELOW_MIN_SCORE, Fate.BEYOND_TOP_K}
    strict = retrieve(ask("Where do Bees dance?"), limited(reading, min_answerability=0.6))
    assert (strict.chosen, strict.notice) == ([], NOT_ANSWERED)
    loose = retrieve(ask("Where do ships dance?"), limited(reading, min_answerability=-1.0))
    assert len(loose.chosen) == 5
    assert len(retrieve(ask("Where do ships dance?", search_only=True), reading).chosen) == 5


def test_a_fused_score_is_not_cut_by_a_bound_for_latents(
    filled: UUID, answering: Answering, untrained_models: Models, ask: Ask
) -> None:
    plain = limited(replace(answering, models=untrained_models), min_score=1.0)
    found = retrieve(ask("Who came to the market?"), plain)
    assert found.reranked_by == "fusion"
    assert len(found.chosen) == 5
    assert all(one.cosine is not None for one in found.considered)


def test_one_passage_without_a_latent_has_all_ranked_by_fusion(
    compressed: UUID, write: Write, answering: Answering, indexing: Indexing, ask: Ask
) -> None:
    index(write(SourceDocument("Coffee came later.")), indexing)
    assert retrieve(ask("Who came?"), answering).reranked_by == "fusion"


def test_every_candidate_says_who_found_it_and_where(
    filled: UUID, answering: Answering, ask: Ask
) -> None:
    found = retrieve(ask("harbour wall", mode=Mode.TEXT), answering)
    by_text = {one.read.text: one.read.candidate for one in found.considered}
    assert by_text["The harbour wall was built."].lexical_rank == 1
    assert by_text["Flowers grow by the wall."].lexical_rank == 2
    assert by_text["Tea came from Canton."].lexical is None
    assert sorted(one.dense_rank or 0 for one in by_text.values()) == list(range(1, 8))


def test_filters_are_applied_before_the_cut_in_both_retrievers(
    filled: UUID, answering: Answering, ask: Ask
) -> None:
    few = limited(answering, bm25_top_k=1, dense_top_k=1)
    filters = (Equals("even", True), Range("number", gt=3))
    for question in ("Who came to the market?", "tea", "harbour wall"):
        found = retrieve(ask(question, filters=filters), few)
        assert set(texts(found)) <= {FACTS[4], FACTS[6]}
        assert [
            one.read.candidate.dense_rank
            for one in found.considered
            if one.read.candidate.dense_rank
        ] == [1]
    wall = retrieve(ask("harbour wall", filters=filters), few).considered
    assert [one.read.text for one in wall if one.read.candidate.lexical_rank == 1] == [FACTS[6]]


def test_a_filter_nothing_fulfils_finds_nothing_and_degrades_nothing(
    filled: UUID, answering: Answering, ask: Ask
) -> None:
    found = retrieve(ask("tea", filters=(Equals("even", "yes"),)), answering)
    assert (list(found.considered), found.degraded) == ([], [])


def test_what_only_an_index_knows_takes_no_place(
    filled: UUID, answering: Answering, indexing: Indexing, ask: Ask
) -> None:
    """As a worker leaves it that died, or is just about to commit."""
    strangers = [PassageText(uuid4(), uuid4(), "", "harbour wall") for _ in range(30)]
    indexing.lexical.put(filled, strangers)
    vector = indexing.encoder.encode(["harbour wall"])[0]
    indexing.dense.put(filled, {one.id: vector for one in strangers})
    found = retrieve(ask("harbour wall"), limited(answering, bm25_top_k=2, dense_top_k=2))
    by_words = [one.read for one in found.considered if one.read.candidate.lexical_rank]
    assert {one.text for one in by_words} == {FACTS[3], FACTS[6]}
    assert {one.candidate.lexical_rank for one in by_words} == {1, 2}
    assert sum(one.read.candidate.dense_rank is not None for one in found.considered) == 2


def lose_words(answering: Answering, collection: UUID) -> None:
    shutil.rmtree(Path(answering.lexical._path(collection, None)))  # type: ignore[attr-defined]


def lose_vectors(answering: Answering, collection: UUID) -> None:
    with answering.open_db.begin() as db:
        db.execute(delete(DenseEntry))
    answering.dense._copies.clear()  # type: ignore[attr-defined]


def test_an_index_that_is_gone_is_told_and_the_other_answers(
    filled: UUID, answering: Answering, ask: Ask
) -> None:
    lose_words(answering, filled)
    found = retrieve(ask("harbour wall"), answering)
    assert found.degraded == ["lexical"]
    assert set(texts(found)) == set(FACTS)


def test_the_other_way_round(filled: UUID, answering: Answering, ask: Ask) -> None:
    lose_vectors(answering, filled)
    found = retrieve(ask("harbour wall"), answering)
    assert found.degraded == ["dense"]
    assert set(texts(found)) == {FACTS[3], FACTS[6]}


def test_without_both_there_is_an_error_that_says_what_to_do(
    filled: UUID, answering: Answering, ask: Ask
) -> None:
    lose_words(answering, filled)
    lose_vectors(answering, filled)
    with pytest.raises(IndexUnavailable, match=r"lexical, dense without entries.*again"):
        retrieve(ask("harbour wall"), answering)


@pytest.mark.parametrize(
    "question",
    [
        "to be or not to be, that is the",
        'title:wall AND (harbour OR "tea") NOT bees~2 [a TO z] /.*/ + - && || ! ^ *',
        "\x00\x00",
        "harbour\x00wall",
        "\U0001f41d\u200d\U0001f52c\ufe0f",
        "東京都の港の壁",
        "wall, " * 1_666,
        "w" * 10_000,
        "\u202e\u0301\u0301\u0301",
    ],
)
@pytest.mark.parametrize("narrow", [False, True])
def test_no_question_breaks_a_search_or_degrades_it(
    lexical: LexicalIndex,
    write: Write,
    answering: Answering,
    indexing: Indexing,
    ask: Ask,
    question: str,
    narrow: bool,
) -> None:
    index(write(*documents()), replace(indexing, lexical=lexical))
    filters = (Equals("even", True),) if narrow else ()
    patient = limited(replace(answering, lexical=lexical), max_question_tokens=10_000)
    found = retrieve(ask(question, filters=filters), patient)
    assert found.degraded == []
    assert set(texts(found)) == {fact for at, fact in enumerate(FACTS) if at % 2 == 0 or not narrow}


def test_a_damaged_folder_of_words_is_told_and_its_return_needs_no_restart(
    filled: UUID, answering: Answering, ask: Ask
) -> None:
    meta = Path(answering.lexical._path(filled, None)) / "meta.json"  # type: ignore[attr-defined]
    sound = meta.read_bytes()
    meta.write_bytes(b"{")
    found = retrieve(ask("harbour wall"), answering)
    assert (found.degraded, set(texts(found))) == (["lexical"], set(FACTS))
    meta.write_bytes(sound)
    assert retrieve(ask("harbour wall"), answering).degraded == []


def test_an_empty_collection_is_not_degraded(
    collection: UUID, answering: Answering, ask: Ask
) -> None:
    found = retrieve(ask("harbour wall"), answering)
    assert (list(found.considered), found.degraded) == ([], [])


def test_a_question_without_a_word_that_occurs_is_not_degraded(
    filled: UUID, answering: Answering, ask: Ask
) -> None:
    assert retrieve(ask("xylophone"), answering).degraded == []


def test_a_document_replaced_between_search_and_record_is_looked_for_again(
    filled: UUID, write: Write, answering: Answering, indexing: Indexing, ask: Ask
) -> None:
    """Each search finds the version before, the record only knows the one after."""

    class Overtaken:
        """A lexical index slow enough for a replacement, twice."""

        def __init__(self) -> None:
            self.searches = 0

        def search(self, *args: Any, **options: Any) -> Any:
            found = indexing.lexical.search(*args, **options)
            self.searches += 1
            if self.searches < 3:
                text = f"Tea comes by air {self.searches}."
                index(write(SourceDocument(text, external_id="0")), indexing)
            return found

        def count(self, collection: UUID) -> int:
            return indexing.lexical.count(collection)

    overtaken: Any = Overtaken()
    found = retrieve(ask("tea", mode=Mode.TEXT), replace(answering, lexical=overtaken))
    assert overtaken.searches > 2
    assert [one for one in texts(found) if "Tea" in one] == ["Tea comes by air 2."]
    assert found.considered[0].read.candidate.lexical_rank == 1
