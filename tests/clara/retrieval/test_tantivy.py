from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import tantivy

from clara.errors import IndexMismatch, IndexUnavailable
from clara.retrieval import tantivy as adapter
from clara.retrieval.tantivy import TantivyIndex
from clara.types import PassageText

WRITER = """
import sys
from pathlib import Path
from uuid import UUID, uuid4
from clara.retrieval.tantivy import TantivyIndex
from clara.types import PassageText
index = TantivyIndex(Path(sys.argv[1]))
for _ in range(5):
    index.put(UUID(sys.argv[2]), [PassageText(uuid4(), uuid4(), "", "bees dance")])
"""


def bees() -> PassageText:
    return PassageText(uuid4(), uuid4(), "", "bees dance")


def test_another_process_s_writes_are_seen_by_the_next_search(
    folder: Path, collection: UUID
) -> None:
    index = TantivyIndex(folder)
    index.put(collection, [bees()])
    assert index.count(collection) == 1
    command = [sys.executable, "-c", WRITER, str(folder), str(collection)]
    writers = [subprocess.Popen(command) for _ in range(2)]
    for _ in range(5):
        index.put(collection, [bees()])
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert index.count(collection) == 16
    assert len(index.search(collection, "bee", limit=20)) == 16


def test_a_drop_by_one_index_is_seen_by_another(folder: Path, collection: UUID) -> None:
    one, two = TantivyIndex(folder), TantivyIndex(folder)
    one.put(collection, [bees()])
    assert two.count(collection) == 1
    one.drop(collection)
    assert two.search(collection, "bees", limit=5) == []
    two.put(collection, [bees(), bees()])
    assert one.count(collection) == 2


def test_a_writer_waits_for_the_one_before(folder: Path, collection: UUID) -> None:
    index = TantivyIndex(folder)
    index.put(collection, [bees()])
    holder = adapter._open(folder / collection.hex).writer(adapter.HEAP_BYTES, 1)
    release = threading.Timer(0.3, holder.wait_merging_threads)
    release.start()
    index.put(collection, [bees()])
    assert index.count(collection) == 2
    release.join()


def test_waiting_too_long_for_the_lock_is_an_error_with_the_folder(
    folder: Path, collection: UUID
) -> None:
    index = TantivyIndex(folder, lock_timeout_s=0.1)
    index.put(collection, [bees()])
    holder = adapter._open(folder / collection.hex).writer(adapter.HEAP_BYTES, 1)
    for write in (
        lambda: index.put(collection, [bees()]),
        lambda: index.delete(collection, [uuid4()]),
        lambda: index.drop(collection),
    ):
        with pytest.raises(IndexUnavailable, match=rf"writing to .*{collection.hex} for 0\.1 s"):
            write()
    holder.wait_merging_threads()
    assert index.count(collection) == 1


def test_a_failed_put_lets_go_of_the_lock(folder: Path, collection: UUID) -> None:
    index = TantivyIndex(folder, lock_timeout_s=0.1)
    broken = PassageText(uuid4(), uuid4(), "", None)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        index.put(collection, [bees(), broken])
    index.put(collection, [bees()])
    assert index.count(collection) == 1


@pytest.mark.parametrize("suffix", ["meta.json", ".term", ".idx", ".store"])
def test_a_damaged_folder_is_an_error_that_names_it_and_can_be_dropped(
    folder: Path, collection: UUID, suffix: str
) -> None:
    TantivyIndex(folder).put(collection, [bees()])
    for file in (folder / collection.hex).iterdir():
        if file.name.endswith(suffix):
            file.write_bytes(b"{")
    index = TantivyIndex(folder)
    with pytest.raises(IndexUnavailable, match=collection.hex) as raised:
        index.search(collection, "bees", limit=5)
    assert "--rebuild-indexes" in str(raised.value)
    index.drop(collection)
    index.put(collection, [bees()])
    assert index.count(collection) == 1


def test_a_folder_of_another_release_is_refused(folder: Path, collection: UUID) -> None:
    path = folder / collection.hex
    path.mkdir(parents=True)
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("words")
    tantivy.Index(builder.build(), path=str(path))
    index = TantivyIndex(folder)
    for use in (
        lambda: index.put(collection, [bees()]),
        lambda: index.search(collection, "bees", limit=1),
    ):
        with pytest.raises(IndexMismatch, match="another release"):
            use()
    index.drop(collection)
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, collection: UUID) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexUnavailable, match="file"):
        TantivyIndex(tmp_path / "file").put(collection, [bees()])


def test_only_the_collections_used_last_stay_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "MAX_OPEN", 3)
    index = TantivyIndex(folder)
    collections = [uuid4() for _ in range(5)]
    for each in collections:
        index.put(each, [bees()])
        assert index.count(each) == 1
    assert list(index._open) == [folder / each.hex for each in collections[-3:]]
    assert index.count(collections[0]) == 1


@pytest.mark.parametrize("damage", [b"{", None])
def test_a_damaged_folder_gives_way_to_one_that_is_built_beside_it(
    folder: Path, collection: UUID, damage: bytes | None
) -> None:
    index = TantivyIndex(folder)
    index.put(collection, [bees()])
    meta = folder / collection.hex / "meta.json"
    meta.write_bytes(damage) if damage else meta.unlink()
    index.put(collection, [bees(), bees()], generation=2)
    index.switch(collection, 2)
    assert index.count(collection) == len(index.search(collection, "bees", limit=5)) == 2
    index.drop_generation(collection, 1)
    assert index.generations(collection) == {2: True}
    assert [one.name for one in folder.iterdir() if one.is_dir()] == [f"{collection.hex}.2"]


def test_a_switch_is_seen_by_another_process_at_its_next_search(
    folder: Path, collection: UUID
) -> None:
    here, there = TantivyIndex(folder), TantivyIndex(folder)
    here.put(collection, [bees()])
    assert there.count(collection) == 1
    here.put(collection, [bees(), bees()], generation=2)
    here.switch(collection, 2)
    here.drop_generation(collection, 1)
    assert there.count(collection) == 2
    there.drop(collection)
    assert list(folder.iterdir()) == []
    assert here.count(collection) == 0


def test_a_switch_that_was_killed_leaves_nothing_behind_a_drop(
    folder: Path, collection: UUID
) -> None:
    index = TantivyIndex(folder)
    index.put(collection, [bees()])
    (folder / f"{collection.hex}.active.k1ll3d").write_text("2")
    assert index.generations(collection) == {1: True}
    index.drop(collection)
    assert list(folder.iterdir()) == []
