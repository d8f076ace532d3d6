from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from clara.retrieval import faiss_kinds
from clara.retrieval.dense_log import unit
from clara.retrieval.faiss_copy import Copy, State
from clara.retrieval.faiss_kinds import Kind
from clara.retrieval.snapshots import Snapshots, _checksum

DIMENSION = 8
COLLECTION = UUID(int=7)

WRITER = """
import os, sys, signal
from pathlib import Path
from clara.retrieval import snapshots
from tests.clara.retrieval.test_snapshots import kept_in, state

def killed(path):
    os.kill(os.getpid(), signal.SIGKILL)

snapshots._checksum = killed
kept_in(Path(sys.argv[1])).save(state(200))
"""


def kept_in(
    folder: Path,
    collection: UUID = COLLECTION,
    *,
    encoder: str = "tiny",
    dimension: int = DIMENSION,
) -> Snapshots:
    return Snapshots(folder, collection, encoder=encoder, dimension=dimension)


def state(watermark: int, *, kind: Kind = Kind.FLAT, count: int = 90) -> State:
    """Of a copy with a removed vector and, for a built kind, a tail."""
    random = np.random.default_rng(watermark)
    vectors = unit(random.standard_normal((count, DIMENSION)).astype(np.float32))
    rows = [
        (watermark - count + at + 1, uuid4(), vector.astype("<f2").tobytes())
        for at, vector in enumerate(vectors)
    ]
    copy = Copy(DIMENSION)
    if kind is not Kind.FLAT:
        copy.build(kind, faiss_kinds.empty(kind, DIMENSION, vectors, count=count))
    copy.apply(rows[:-5])
    copy.finish()
    copy.apply(rows[-5:])
    copy.apply([(watermark, rows[0][1], None)])
    return copy.state()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]


@pytest.mark.parametrize("kind", [Kind.FLAT, Kind.HNSW, Kind.IVFPQ])
def test_a_copy_comes_back_as_it_was(tmp_path: Path, kind: Kind) -> None:
    before = state(500, kind=kind)
    written = kept_in(tmp_path).save(before)
    ((path, after),) = kept_in(tmp_path).read()
    assert path == written
    question = np.full(DIMENSION, DIMENSION**-0.5, dtype=np.float32)
    one, other = Copy(DIMENSION), Copy(DIMENSION)
    one.restore(before)
    other.restore(after)
    assert other.digest() == one.digest()
    assert (other.watermark, other.kind, other.count, other.dead, other.tail) == (
        500,
        kind,
        89,
        1,
        90 if kind is Kind.FLAT else 5,
    )
    near = one.near(question, 10)
    assert other.near(question, 10) == near
    assert other.scores(question, near) == one.scores(question, near)


def test_a_copy_goes_on_following_after_it_was_restored(tmp_path: Path) -> None:
    kept_in(tmp_path).save(state(500, kind=Kind.HNSW))
    ((_, after),) = kept_in(tmp_path).read()
    copy, new = Copy(DIMENSION), uuid4()
    copy.restore(after)
    vector = np.eye(DIMENSION, dtype=np.float32)[0]
    for seq in (501, 502):
        copy.apply([(seq, new, vector.astype("<f2").tobytes())])
    assert copy.count == 90
    assert new in copy.near(vector, 1)


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    for watermark in (100, 300):
        assert kept.save(state(watermark)) is not None
    for watermark in (200, 300):
        assert kept.save(state(watermark)) is None
    assert [found.watermark for _, found in kept.read()] == [300]
    assert len(files(tmp_path)) == 1
    kept.drop()
    assert list(kept.read()) == []


def test_a_process_that_writes_keeps_others_from_it(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    kept.save(state(100))
    with kept._alone() as alone:
        assert alone
        assert kept_in(tmp_path).save(state(200)) is None
    assert kept_in(tmp_path).save(state(200)) is not None


def test_a_process_killed_while_it_writes_leaves_nothing_half_written(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    first = kept.save(state(100))
    done = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(files(tmp_path)) == 2  # what it left over is no snapshot
    assert [path for path, _ in kept.read()] == [first]
    last = kept.save(state(300))
    assert files(tmp_path) == [last]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "renamed"])
def test_a_damaged_file_is_told_of_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    kept = kept_in(tmp_path)
    path = kept.save(state(100))
    assert path is not None
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path = path.rename(path.with_name("9" * 20 + "-0123.snapshot"))
    with caplog.at_level(logging.WARNING):
        assert list(kept.read()) == []
    assert f"the snapshot {path} is not used" in caplog.text
    assert not path.exists()


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"collection": UUID(int=8)}, "collection"),
        ({"encoder": "other"}, "encoder"),
        ({"dimension": 4}, "dimension"),
    ],
)
def test_a_file_from_elsewhere_is_told_of_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, other: dict[str, object], named: str
) -> None:
    path = kept_in(tmp_path / "here").save(state(100))
    assert path is not None
    there = kept_in(tmp_path / "there", **other)  # type: ignore[arg-type]
    there._folder.mkdir(parents=True)
    shutil.copy(path, there._folder)
    with caplog.at_level(logging.WARNING):
        assert list(there.read()) == []
    assert f"its {named} is" in caplog.text
    assert files(tmp_path) == [path]


def test_sound_bytes_that_are_no_snapshot_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = kept_in(tmp_path)
    path = kept.save(state(100))
    assert path is not None
    path.write_bytes(os.urandom(500))
    path.rename(path.with_name(f"{100:020d}-{_checksum(path)}.snapshot"))
    with caplog.at_level(logging.WARNING):
        assert list(kept.read()) == []
    assert "is not used" in caplog.text


def test_without_a_folder_there_is_nothing_to_read(tmp_path: Path) -> None:
    kept = kept_in(tmp_path / "never")
    assert list(kept.read()) == []
    kept.drop()
    assert not (tmp_path / "never").exists()
