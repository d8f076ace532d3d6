"""Real stores and tiny models; what a test changes is in a database of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from clara.db.connect import OpenDb
from clara.documents import create_collection, find_collection, write_documents
from clara.model.checkpoint import load, untrained
from clara.model.models import Models, load_models
from clara.passages import FastTokenizer
from clara.pipeline.asking import Answering, Asked, Limits
from clara.pipeline.index import Indexing, index_documents
from clara.retrieval.cluster import Cluster
from clara.retrieval.elasticsearch import ElasticsearchIndex
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.faiss import FaissIndex
from clara.retrieval.latents import PostgresLatents
from clara.retrieval.ports import LexicalIndex
from clara.retrieval.tantivy import TantivyIndex
from clara.serving.encoding import EncoderOnEngine
from clara.serving.engine import Engine
from clara.types import Mode, SourceDocument
from tests.clara.retrieval.conftest import NO_ELASTICSEARCH, lacking
from tests.tiny import tiny_base, tiny_checkpoint, tiny_encoder

RATE, DOC_MAX_LENGTH = 4, 32

Write = Callable[..., list[UUID]]
Ask = Callable[..., Asked]


@pytest.fixture(scope="session")
def elasticsearch_url() -> str:
    url = os.environ.get("CLARA_ELASTICSEARCH_URL", "")
    if not url:
        lacking(NO_ELASTICSEARCH)
    return url


def cluster_at(url: str, **options: Any) -> Cluster:
    """A cluster of the tests, under a prefix of its own."""
    return Cluster(
        url,
        user=os.environ.get("CLARA_ELASTICSEARCH_USER", ""),
        password=os.environ.get("CLARA_ELASTICSEARCH_PASSWORD", ""),
        **{"timeout_s": 10, "prefix": f"clara-test-{uuid4().hex[:8]}"} | options,
    )


@pytest.fixture(params=["tantivy", "elasticsearch"])
def lexical(
    request: pytest.FixtureRequest, tmp_path: Path, collection: UUID
) -> Iterator[LexicalIndex]:
    """Each lexical index in turn."""
    if request.param == "tantivy":
        yield TantivyIndex(tmp_path / "tantivy")
        return
    cluster = cluster_at(request.getfixturevalue("elasticsearch_url"))
    index = ElasticsearchIndex(cluster)
    yield index
    index.drop(collection)
    cluster.close()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    return SentenceEncoder(tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny"))


@pytest.fixture(scope="module")
def models(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A trained checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_checkpoint(folder, base, rate=RATE, doc_max_length=DOC_MAX_LENGTH)
    return load_models(load(folder), device="cpu")


@pytest.fixture(scope="module")
def untrained_models(base: Path) -> Models:
    weights = untrained(base, compr_rate=RATE, doc_max_length=DOC_MAX_LENGTH)
    return load_models(weights, base=base, device="cpu")


@pytest.fixture(scope="module")
def model_engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close(drain=False)


@pytest.fixture
def indexing(
    db: OpenDb, base: Path, encoder: SentenceEncoder, model_engine: Engine, tmp_path: Path
) -> Indexing:
    """Tantivy and FAISS."""
    return Indexing(
        open_db=db,
        lexical=TantivyIndex(tmp_path / "tantivy"),
        dense=FaissIndex(db, encoder=encoder.name, dimension=encoder.dimension),
        encoder=EncoderOnEngine(encoder, model_engine),
        tokenizer=FastTokenizer.from_folder(base),
        doc_max_length=DOC_MAX_LENGTH,
    )


@pytest.fixture
def answering(indexing: Indexing, models: Models, model_engine: Engine) -> Iterator[Answering]:
    """On the indexes of `indexing`, with a trained checkpoint that cuts nothing."""
    pool = ThreadPoolExecutor(4)
    yield Answering(
        open_db=indexing.open_db,
        lexical=indexing.lexical,
        dense=indexing.dense,
        latents=PostgresLatents(indexing.open_db),
        encoder=indexing.encoder,
        tokenizer=indexing.tokenizer,
        models=models,
        engine=model_engine,
        pool=pool,
        checkpoint_id=uuid4(),
        limits=Limits(
            bm25_top_k=25,
            dense_top_k=12,
            max_candidates=50,
            min_score=-1.0,
            max_question_tokens=100,
        ),
    )
    pool.shutdown()


@pytest.fixture
def collection(db: OpenDb) -> UUID:
    with db.begin() as session:
        return create_collection(session, "shop").id


@pytest.fixture
def write(db: OpenDb, collection: UUID) -> Write:
    """Stores documents; returns their ids."""

    def run(*documents: SourceDocument) -> list[UUID]:
        with db.begin() as session:
            shop = find_collection(session, "shop")
            return [one.id for one in write_documents(session, shop, documents)]

    return run


@pytest.fixture
def ask(collection: UUID) -> Ask:
    """A question, detached; its text and what differs from the usual."""

    def run(text: str, **options: Any) -> Asked:
        usual = Asked(uuid4(), collection, text, Mode.AUTO, top_k=5, max_answer_tokens=4)
        return replace(usual, **options)

    return run


def index(ids: list[UUID], indexing: Indexing, **options: Any) -> int:
    """Make documents searchable, as a worker that does not die."""
    given = {
        "on_batch": lambda _: None,
        "stopped": lambda: False,
        "on_replaced": lambda *_: lambda: None,
    }
    return index_documents(ids, indexing, **given | options)
