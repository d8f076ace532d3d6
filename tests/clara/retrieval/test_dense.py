from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from clara.db.connect import OpenDb
from clara.errors import InvalidSettings
from clara.retrieval.dense import dense_index
from clara.retrieval.elasticsearch_dense import ElasticsearchDense
from clara.retrieval.faiss import FaissIndex
from clara.settings import Settings


def test_faiss_is_the_default_and_keeps_its_snapshots_under_home(
    db: OpenDb, collection: UUID, tmp_path: Path
) -> None:
    config = Settings(home=tmp_path)
    index = dense_index(config, db, encoder="tiny", dimension=4)
    assert isinstance(index, FaissIndex)
    index._snapshot_rows, index._later = 1, lambda task: task()
    index.put(collection, {uuid4(): np.eye(4, dtype=np.float32)[0]})
    index.search(collection, np.eye(4, dtype=np.float32)[0], limit=1)
    assert len(list(config.snapshots.rglob("*.snapshot"))) == 1


def test_elasticsearch_is_taken_where_the_settings_say_so(db: OpenDb) -> None:
    config = Settings(dense_index="elasticsearch", elasticsearch_url="http://127.0.0.1:9")
    index = dense_index(config, db, encoder="tiny", dimension=4)
    assert isinstance(index, ElasticsearchDense)
    assert index.dimension == 4


def test_elasticsearch_without_an_address_is_an_error_that_names_it(db: OpenDb) -> None:
    config = Settings(dense_index="elasticsearch", elasticsearch_url="")
    with pytest.raises(InvalidSettings) as raised:
        dense_index(config, db, encoder="tiny", dimension=4)
    assert raised.value.field == "CLARA_ELASTICSEARCH_URL"
