from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from clara.client import Client
from clara.commands.ingest import BATCH_CHARS, BATCH_DOCUMENTS, _files, bars, batches, watch
from clara.errors import InvalidInput
from clara.types import SourceDocument


@given(st.lists(st.integers(1, 3 * BATCH_CHARS // 2), max_size=8), st.integers(0, 450))
def test_batches_keep_every_document_in_order_and_stay_small(long: list[int], short: int) -> None:
    documents = [SourceDocument("x" * size) for size in long] + [SourceDocument("y")] * short
    made = list(batches(documents))
    assert [document for batch in made for document in batch] == documents
    for batch in made:
        assert 1 <= len(batch) <= BATCH_DOCUMENTS
        assert len(batch) == 1 or sum(len(d.text) for d in batch) <= BATCH_CHARS


def test_a_folder_gives_every_file_a_reader_exists_for(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "lines.jsonl", "sub/c.html", "picture.png", ".git/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [path.relative_to(tmp_path).as_posix() for path in _files([tmp_path])]
    assert found == ["a.txt", "b.md", "lines.jsonl", "sub/c.html"]


class Standstill(Client):
    """An API where one document stays `searchable` and nothing is being done."""

    def __init__(self, failed: list[dict[str, Any]]) -> None:
        self.failed = failed
        self.looks = 0

    def watch(self, *_: object, **__: object) -> Iterator[dict[str, Any]]:
        documents = {"pending": 0, "searchable": 1, "indexed": 4, "failed": 0}
        for self.looks in range(1, 50):
            yield {"documents": documents, "active_runs": 0}

    def runs(self, **_: object) -> list[dict[str, Any]]:
        return self.failed


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        ([], "cannot read"),
        ([{"id": "7", "kind": "compress", "error": {"message": "out of memory"}}], "out of memory"),
    ],
)
def test_waiting_for_latents_that_will_not_come_ends_with_the_reason(
    failed: list[dict[str, Any]], said: str
) -> None:
    client = Standstill(failed)
    with bars(Console(quiet=True)) as progress, pytest.raises(InvalidInput, match=said):
        watch(client, "shop", progress, "indexed")
    assert client.looks == 1
