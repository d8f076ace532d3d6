from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clara.commands.ingest import BATCH_CHARS, BATCH_DOCUMENTS, _files, batches
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
