"""A filtered search gives what is left of the whole ranking, on every index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clara.db.connect import OpenDb, connect, open_db
from clara.filters import Equals, Filter, In, Prefix, Range
from clara.pipeline.record import Members
from clara.retrieval.elasticsearch import ElasticsearchIndex
from clara.retrieval.elasticsearch_dense import ElasticsearchDense
from clara.retrieval.faiss import FaissIndex
from clara.retrieval.hybrid import within
from clara.retrieval.tantivy import TantivyIndex
from clara.types import Hit, PassageText
from tests.clara.pipeline.conftest import cluster_at
from tests.conftest import with_database
from tests.factories import make_collection, make_document, make_passage

WORDS = ["harbour", "wall", "bees", "comb", "tea", "canton", "ice", "salt"]
COUNT, DIMENSION = 90, 4

Find = Callable[..., list[Hit]]


@pytest.fixture(scope="module")
def db(postgres_url: str, template_database: str) -> Iterator[OpenDb]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"')
    engine = connect(with_database(postgres_url, name))
    yield open_db(engine)
    engine.dispose()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def filled(db: OpenDb) -> tuple[UUID, list[PassageText], dict[UUID, NDArray[np.float32]]]:
    """A collection in the record: texts of a few words each, and a vector."""
    numbers = np.random.default_rng(0)
    texts: list[PassageText] = []
    with db.begin() as session:
        collection = make_collection(session)
        for at in range(COUNT):
            words = " ".join(numbers.choice(WORDS, 1 + at % 7))
            metadata = {"number": at, "lang": ["en", "de", "fr"][at % 3], "path": f"{at % 4}/{at}"}
            document = make_document(session, collection, words, metadata_=metadata)
            passage = make_passage(session, document)
            texts.append(PassageText(passage.id, document.id, "", words))
    vectors = numbers.normal(size=(COUNT, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return collection.id, texts, {t.id: v for t, v in zip(texts, vectors, strict=True)}


@pytest.fixture(scope="module", params=["tantivy", "faiss", "elasticsearch", "elasticsearch dense"])
def find(
    request: pytest.FixtureRequest, db: OpenDb, filled: Any, tmp_path_factory: Any
) -> Iterator[tuple[bool, Callable[[list[str]], Find]]]:
    """Whether the index is a lexical one, and a search for some words or the vector they make."""
    collection, texts, vectors = filled
    cluster = None
    if request.param == "tantivy":
        index: Any = TantivyIndex(tmp_path_factory.mktemp("tantivy"))
    elif request.param == "faiss":
        index = FaissIndex(db, encoder="e", dimension=DIMENSION)
    else:
        cluster = cluster_at(request.getfixturevalue("elasticsearch_url"))
        index = ElasticsearchIndex(cluster)
        if request.param == "elasticsearch dense":
            index = ElasticsearchDense(cluster, encoder="e", dimension=DIMENSION)
    lexical = request.param in ("tantivy", "elasticsearch")
    index.put(collection, texts if lexical else vectors)
    yield (
        lexical,
        lambda words: partial(
            index.search, collection, " ".join(words) if lexical else vector_of(words)
        ),
    )
    index.drop(collection)
    if cluster:
        cluster.close()


def vector_of(words: list[str]) -> NDArray[np.float32]:
    numbers = np.random.default_rng([WORDS.index(word) for word in words])
    vector = numbers.normal(size=DIMENSION).astype(np.float32)
    return vector / np.linalg.norm(vector)


some_filters = st.one_of(
    st.builds(lambda n: Range("number", gte=n), st.integers(0, COUNT)),
    st.builds(lambda n: Range("number", lt=n), st.integers(0, COUNT)),
    st.builds(Equals, st.just("lang"), st.sampled_from(["en", "de", "xx"])),
    st.builds(In, st.just("number"), st.lists(st.integers(0, COUNT), min_size=1).map(tuple)),
    st.builds(Prefix, st.just("path"), st.sampled_from(["", "1/", "3/8"])),
)


@settings(max_examples=25)
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    filters=st.lists(some_filters, min_size=1, max_size=2),
    limit=st.integers(1, 5),
)
def test_the_filter_comes_before_the_cut(
    find: tuple[bool, Callable[[list[str]], Find]],
    filled: tuple[UUID, list[PassageText], dict[UUID, NDArray[np.float32]]],
    db: OpenDb,
    words: list[str],
    filters: list[Filter],
    limit: int,
) -> None:
    lexical, search_for = find
    members = Members(db, filled[0], filters)
    whole = {hit.passage_id: hit.score for hit in search_for(words)(limit=COUNT)}
    left = sorted((score for id_, score in whole.items() if id_ in members.members()), reverse=True)
    found = within(search_for(words), members, limit=limit, exact=lexical)
    # of passages with one score any may come: compare scores, and each passage with its own
    assert [hit.score for hit in found] == pytest.approx(left[:limit], abs=1e-5)
    assert {hit.passage_id for hit in found} <= members.members()
    assert all(hit.score == pytest.approx(whole[hit.passage_id], abs=1e-5) for hit in found)


def test_only_given_passages_are_found_and_none_where_none_is_given(
    find: tuple[bool, Callable[[list[str]], Find]],
) -> None:
    _, search_for = find
    find_bees = search_for(["bees"])
    ranking = find_bees(limit=COUNT)
    chosen = [ranking[7], ranking[3]]
    found = find_bees(limit=COUNT, only=[hit.passage_id for hit in chosen] + [uuid4()])
    assert {hit.passage_id for hit in found} == {hit.passage_id for hit in chosen}
    assert [hit.score for hit in found] == pytest.approx(
        sorted((hit.score for hit in chosen), reverse=True), abs=1e-5
    )
    assert find_bees(limit=COUNT, only=[]) == []
