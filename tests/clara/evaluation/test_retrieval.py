"""What is found is compared with what a plain second way finds over the whole corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clara.evaluation.retrieval import (
    BY_LATENTS,
    Found,
    Limits,
    Method,
    Retrievers,
    latent_orders,
    measure,
    orders,
    search,
)
from clara.evaluation.retrieval_data import Question, SearchSet
from clara.evaluation.retrieval_scores import CUTS
from clara.evaluation.retrieval_vectors import (
    Blocks,
    EncoderEmbedding,
    ExactVectors,
    KeptEmbedding,
    LatentEmbedding,
    Vectors,
    embedding_of,
)
from clara.model.checkpoint import untrained
from clara.model.models import Models
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.hybrid import FUSION_K
from clara.retrieval.latent_encoder import LatentEncoder
from clara.retrieval.tantivy import TantivyIndex
from clara.types import Candidate, Hit, PassageText
from tests.tiny import tiny_encoder

TEXTS = [
    "The harbour wall was built in 1874.",
    "Honey bees tell each other where flowers grow.",
    "Tea reached the market in 1723.",
    "Sea ice forms when salt water cools.",
    "The engineer was Margaret Osgood.",
    "A ship came from Canton.",
    "The market is on the wall.",
]
IDS = [UUID(int=100 + n) for n in range(len(TEXTS))]
PASSAGES = [PassageText(id_, id_, "", text) for id_, text in zip(IDS, TEXTS, strict=True)]
ASKED = ["honey", "Who built the harbour wall?", "Which market?"]
GOLD = [{IDS[1]: 1.0}, {IDS[0]: 1.0, IDS[4]: 2.0}, {IDS[6]: 1.0}]
QUESTIONS = [Question(text, grades) for text, grades in zip(ASKED, GOLD, strict=True)]
SET = SearchSet("tiny", PASSAGES, QUESTIONS)
EVERYTHING = Limits(lexical=9, dense=9, candidates=9)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    folder = tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")
    return SentenceEncoder(folder, dtype=torch.float32)


@pytest.fixture
def index(tmp_path: Path) -> TantivyIndex:
    return TantivyIndex(tmp_path / "tantivy")


def by_brute_force(texts: Sequence[str], encoder: SentenceEncoder) -> list[list[UUID]]:
    cosines = encoder.encode(texts) @ encoder.encode(TEXTS).T
    return [[IDS[at] for at in np.argsort(-row, kind="stable")] for row in cosines]


def test_words_and_vectors_find_what_they_find_alone(
    index: TantivyIndex, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    found = [one.orders for one in search(SET, index, EncoderEmbedding(encoder), Limits())]
    assert [one[Method.BM25] for one in found] == [[IDS[1]], [IDS[0], IDS[6]], [IDS[6], IDS[2]]]
    assert [one[Method.DENSE] for one in found] == by_brute_force(ASKED, encoder)
    assert list((tmp_path / "tantivy").iterdir()) == []  # nothing stays


def test_a_question_is_kept_to_its_own_passages(
    index: TantivyIndex, encoder: SentenceEncoder
) -> None:
    own = frozenset({IDS[1], IDS[2], IDS[6]})
    asked = [Question(ASKED[2], GOLD[2], own)]
    (found,) = search(SearchSet("own", PASSAGES, asked), index, EncoderEmbedding(encoder), Limits())
    (whole,) = by_brute_force(ASKED[2:], encoder)
    assert found.orders[Method.BM25] == [IDS[6], IDS[2]]
    assert found.orders[Method.DENSE] == [passage for passage in whole if passage in own]
    assert set(found.orders[Method.UNION]) == own


def test_an_interrupted_search_leaves_nothing(
    index: TantivyIndex, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    def stop(what: str, done: int, _total: int) -> None:
        if (what, done) == ("questions", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(SET, index, EncoderEmbedding(encoder), Limits(), progress=stop)
    assert list((tmp_path / "tantivy").iterdir()) == []


def candidates(*passages: UUID) -> Found:
    """Found by words in this order."""
    found = [Candidate(passage, lexical_rank=at) for at, passage in enumerate(passages, start=1)]
    return Found({}, found, {})


def hits(*numbers: int) -> list[Hit]:
    return [Hit(UUID(int=number), 1 / rank) for rank, number in enumerate(numbers, start=1)]


def ids(*numbers: int) -> list[UUID]:
    return [UUID(int=number) for number in numbers]


def test_the_union_takes_the_first_of_each_and_each_alone_is_seen_whole() -> None:
    cosines = dict(zip(ids(1, 2, 4, 5), [0.1, 0.9, 0.4, 0.2], strict=True))
    asked: list[UUID] = []

    def exact(passages: Sequence[UUID]) -> dict[UUID, float]:
        asked.extend(passages)
        return {passage: cosines[passage] for passage in passages}

    one = orders(hits(1, 2, 3), hits(4, 2, 5), Limits(lexical=2, dense=2), exact)
    found = one.orders
    assert found[Method.BM25] == ids(1, 2, 3)
    assert found[Method.DENSE] == ids(4, 2, 5)
    assert found[Method.UNION] == ids(1, 4, 2)
    assert found[Method.RRF] == ids(2, 1, 4)
    # ranks (1, 3), (2, 1), (-, 2) of words and exact cosines: 4/4 + 4/6, 4/5 + 4/4, 4/5
    assert found[Method.FUSED] == ids(2, 1, 4)
    assert set(asked) == set(ids(1, 2, 4))
    assert [candidate.passage_id for candidate in one.candidates] == found[Method.UNION]
    assert one.cosines == {passage: cosines[passage] for passage in ids(1, 4, 2)}
    few = orders(hits(1, 2, 3), hits(4, 2, 5), Limits(2, 2, candidates=2), exact).orders
    assert [len(few[method]) for method in Method if method in few] == [3, 3, 2, 2, 2]


def test_each_retriever_is_asked_for_the_deepest_cut() -> None:
    assert Limits().depth == max(CUTS)
    assert Limits(lexical=100).depth == 100


@given(
    table=arrays(np.int8, st.tuples(st.integers(1, 12), st.just(3)), elements=st.integers(-2, 2)),
    limit=st.integers(0, 14),
)
def test_the_nearest_vectors_are_those_of_a_full_sort(
    table: np.ndarray[tuple[int, int], np.dtype[np.int8]], limit: int
) -> None:
    vectors = table.astype(np.float32)
    question = np.array([1, 2, -1], np.float32)
    passages = [UUID(int=(7 * n) % 13) for n in range(len(vectors))]
    cosines = dict(zip(passages, (vectors @ question).tolist(), strict=True))
    wanted = sorted(passages, key=lambda one: (-cosines[one], one))[:limit]
    index = ExactVectors(passages, vectors)
    assert [hit.passage_id for hit in index.search(question, limit=limit)] == wanted
    some = frozenset(passages[::2])
    among = index.search(question, limit=limit, only=some)
    whole = sorted(some, key=lambda one: (-cosines[one], one))
    assert [hit.passage_id for hit in among] == whole[:limit]


def test_latents_rank_the_union_by_the_function_of_training(
    index: TantivyIndex, encoder: SentenceEncoder, models: Models
) -> None:
    found = measure(SET, Retrievers(index, encoder, models, EVERYTHING))
    blocks = models.compressor.compress(TEXTS)
    wanted = []
    for text, grades in zip(ASKED, GOLD, strict=True):
        scores = models.score(models.reasoner.encode([text])[0], blocks).tolist()
        order = [IDS[at] for at in sorted(range(len(IDS)), key=lambda at: -scores[at])]
        wanted.append(len(set(order[:3]) & set(grades)) / len(grades))
    assert found[Method.LATENT]["recall@3"] == pytest.approx(np.mean(wanted))
    assert (found[Method.LATENT]["checkpoint"], found[Method.LATENT]["cut"]) == ("tiny", 0)
    assert (found[Method.BOTH]["checkpoint"], found[Method.BOTH]["latent_weight"]) == ("tiny", 0.5)
    for numbers in found.values():
        assert (numbers["n"], numbers["passages"], numbers["vectors"]) == (3, 7, encoder.name)


def test_latents_are_one_voice_beside_words_and_vectors(models: Models) -> None:
    blocks = Blocks(models, PASSAGES)
    found = replace(candidates(*IDS), cosines={one: float(at) for at, one in enumerate(IDS)})
    by_weight: dict[float, list[UUID]] = {}
    latent: list[UUID] = []
    for weight in (1e-6, 1.0, 1e6):
        limits = Limits(latent_weight=weight)
        (order,) = latent_orders(QUESTIONS[:1], [found], blocks, limits)
        by_weight[weight], latent = list(order[Method.BOTH]), list(order[Method.LATENT])
    # ranks by words, by vectors (the other way round) and by latents
    ranks = {id_: (at + 1, 7 - at, latent.index(id_) + 1) for at, id_ in enumerate(IDS)}
    scores = {id_: sum(1 / (FUSION_K + rank) for rank in each) for id_, each in ranks.items()}
    assert by_weight[1.0] == sorted(IDS, key=lambda id_: -scores[id_])
    assert by_weight[1e6] == latent
    without = {id_: sum(1 / (FUSION_K + rank) for rank in each[:2]) for id_, each in ranks.items()}
    fused = [round(without[id_], 5) for id_ in by_weight[1e-6]]
    assert fused == sorted(fused, reverse=True)
    assert latent not in (by_weight[1.0], by_weight[1e-6])  # else this would show nothing


def test_every_method_has_its_numbers(index: TantivyIndex, encoder: SentenceEncoder) -> None:
    found = measure(SET, Retrievers(index, encoder))
    assert list(found) == [method for method in Method if method not in BY_LATENTS]
    # `honey` is in one passage; the wall is found and its engineer is not; the market is
    bm25 = found[Method.BM25]
    assert [bm25[f"recall@{k}"] for k in CUTS] == pytest.approx([2.5 / 3] * len(CUTS))
    assert bm25["mrr@10"] == 1.0
    assert bm25["ndcg@10"] == pytest.approx((1 + 1 / (2 + 1 / np.log2(3)) + 1) / 3)
    assert found[Method.DENSE]["recall@25"] == 1.0


def test_untrained_latents_rank_nothing(
    index: TantivyIndex, encoder: SentenceEncoder, base: Path, opened: Callable[..., Models]
) -> None:
    models = opened(untrained(base, compr_rate=4, doc_max_length=32), base=base)
    assert not set(BY_LATENTS) & measure(SET, Retrievers(index, encoder, models)).keys()


def test_latents_make_vectors_too_and_are_made_once(index: TantivyIndex, models: Models) -> None:
    blocks = Blocks(models, PASSAGES)
    made: list[int] = []
    embedding = LatentEmbedding(blocks)
    vectors = embedding.passages(PASSAGES, lambda _what, done, _total: made.append(done))
    served = LatentEncoder(models.compressor, models.reasoner, fingerprint="", width=models.width)
    assert np.allclose(vectors, served.encode(TEXTS), atol=1e-6)
    assert np.allclose(embedding.questions(ASKED), served.encode_questions(ASKED), atol=1e-6)
    assert made == [len(TEXTS)]
    before = blocks.of(IDS)
    latent_orders(QUESTIONS, [candidates(*IDS)] * 3, blocks, Limits())
    assert all(one is other for one, other in zip(blocks.of(IDS), before, strict=True))
    found = measure(SET, Retrievers(index, None, models))
    assert found[Method.DENSE]["vectors"] == f"latents:{models.fingerprint}"


def test_texts_longer_than_one_pass_are_read_from_their_beginning(models: Models) -> None:
    long = PassageText(UUID(int=1), UUID(int=1), "Tea", "tea and bees " * 40)
    blocks = Blocks(models, [long, *PASSAGES])
    asked = [Question("wall " * 80, {IDS[0]: 1.0})]
    (order,) = latent_orders(asked, [candidates(long.id, *IDS)], blocks, Limits())
    assert [set(order[method]) for method in BY_LATENTS] == [{long.id, *IDS}] * 2
    assert blocks.cut == 1


def test_a_question_for_which_nothing_was_found_has_nothing_ranked(models: Models) -> None:
    found = latent_orders(QUESTIONS[:1], [candidates()], Blocks(models, []), Limits())
    assert found == [{Method.LATENT: [], Method.BOTH: []}]


def test_vectors_are_kept_for_the_same_words_in_the_same_space(
    encoder: SentenceEncoder, tmp_path: Path
) -> None:
    made: list[int] = []

    def tell(_what: str, done: int, _total: int) -> None:
        made.append(done)

    def vectors(passages: Sequence[PassageText], name: str = "tiny") -> Vectors:
        embedding = EncoderEmbedding(encoder)
        embedding.name = name
        return KeptEmbedding(embedding, tmp_path / "kept").passages(passages, tell)

    first = vectors(PASSAGES)
    assert np.array_equal(first, encoder.encode(TEXTS))
    assert np.array_equal(vectors(PASSAGES), first)
    assert made == [7]
    vectors(PASSAGES[:3])
    vectors(PASSAGES, "another space")
    assert made == [7, 3, 7]
    for path in (tmp_path / "kept").iterdir():
        path.write_bytes(path.read_bytes()[:200])  # cut short
    assert np.array_equal(vectors(PASSAGES), first)
    assert made == [7, 3, 7, 7]


def test_vectors_need_something_that_makes_them() -> None:
    with pytest.raises(ValueError, match="an encoder or by a checkpoint"):
        embedding_of(None, None)
