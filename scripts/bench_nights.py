"""What nights, plans and rollbacks cost a large collection.

Usage: python scripts/bench_nights.py [--passages 100000] [--sample 3000] [--times 3]
           [--hidden 256] [--layers 6] [--only night changed rollback rebuild]

The collection is written as rows, one passage to a document, with latents of the right shape and
random content; what is compressed is compressed, by a random model. One worker of one thread in
this process, on a Postgres and a Valkey of its own. Prints a table, then one line of JSON. Run it
from the root of the project.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]  # the tiny models are those of the tests

from fastapi.testclient import TestClient  # noqa: E402
from nightly.rows import fill  # noqa: E402
from nightly.worker import COLLECTION, DOC_MAX_LENGTH, RATE, Worker, worker  # noqa: E402
from sqlalchemy import delete, select, update  # noqa: E402

from api.app import create_app  # noqa: E402
from clara import generations  # noqa: E402
from clara.db.tables import Checkpoint, Document, DocumentStatus, Latent, Passage  # noqa: E402
from clara.pipeline import rebuild  # noqa: E402
from clara.pipeline.recompress import Range, compress_range  # noqa: E402
from clara.pipeline.recompress_plan import make_plan  # noqa: E402
from clara.pipeline.settle import settle_documents  # noqa: E402
from tests.factories import make_checkpoint  # noqa: E402

Found = dict[str, Any]

NIGHT_S, SHARE, ROLLBACK_S = 10.0, 0.015, 1.0
"""Goals: seconds of a night that finds nothing; share of the full cost of one that finds 1 %;
seconds of a rollback."""


def main() -> None:
    """Measure and print, row by row."""
    arguments = _parser().parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with _folder() as home, worker(home, hidden=arguments.hidden, layers=arguments.layers) as at:
        began = time.monotonic()
        fill(
            at.open_db,
            at.collection,
            arguments.passages,
            tokenizer=at.tokenizer,
            fingerprint=at.models.fingerprint,
            rows=DOC_MAX_LENGTH // RATE,
            width=arguments.hidden,
        )
        block = DOC_MAX_LENGTH // RATE * arguments.hidden * 2
        print(
            f"{arguments.passages:,} passages as rows, blocks of {block:,} bytes, written in "
            f"{time.monotonic() - began:.0f} s\n\n| what | median | least .. most | |\n"
            "| --- | --- | --- | --- |"
        )
        found = {name: SECTIONS[name](at, arguments) for name in arguments.only}
    print(json.dumps({"passages": arguments.passages, **found}))


def _night(at: Worker, arguments: argparse.Namespace) -> Found:
    """A plan and a night that find nothing."""
    with at.open_db() as db:
        checkpoint = db.get_one(Checkpoint, at.checkpoint)
        form = at.config.latent_form
        plans = _times(
            lambda: make_plan(db, at.collection, checkpoint, form=form), arguments.times + 2
        )
    reports: list[Found] = []
    nights = _times(lambda: reports.append(at.night()), arguments.times)
    assert {one["outcome"] for one in reports} == {"current"}  # noqa: S101 - it was a no-op
    return {
        "plan_s": _row("a recompression's plan, nothing stale", plans, "s"),
        "night_s": _row("a night, nothing stale", nights, "s", goal=NIGHT_S),
    }


def _changed(at: Worker, arguments: argparse.Namespace) -> Found:
    """A night with 1 % of the latents missing, against compressing all of them."""
    _lose(at, arguments.sample)
    compressing = at.loaded.compressing(at.checkpoint)
    began = time.monotonic()
    made = compress_range(
        Range(at.collection, None, None),
        compressing,
        budget_s=3_600.0,
        on_page=lambda _: None,
        stopped=lambda: False,
    )
    each = (time.monotonic() - began) / made.latents
    full = each * arguments.passages
    print(f"| compressing a passage, {made.latents:,} of them | {1000 * each:.1f} ms | | |")
    print(f"| full cost: that times all passages | {full:.0f} s | | |")
    some = arguments.passages // 100
    seconds = []
    for _ in range(arguments.times):
        _lose(at, some)
        began = time.monotonic()
        report = at.night()
        seconds.append(time.monotonic() - began)
        assert (report["outcome"], report["done"]) == ("done", some), report  # noqa: S101
    _row(f"a night, {some:,} latents missing", seconds, "s")
    shares = [one / full for one in seconds]
    shown = [100 * one for one in shares]
    _row("its share of the full cost", shown, "%", goal=100 * SHARE)
    return {"passage_ms": 1000 * each, "full_s": full, "share": statistics.median(shares)}


def _rollback(at: Worker, arguments: argparse.Namespace) -> Found:
    """There and back between two generations, every document changing its status each time."""
    with at.open_db.begin() as db:
        other = make_checkpoint(db, fingerprint="0" * 64)
        made = generations.build(db, at.collection, other, None)
        generations.switch(db, made.id, keep=2)
    _settle(at)
    back, settled = [], []
    with TestClient(create_app(at.config)) as client:
        for _ in range(2 * arguments.times):
            began = time.monotonic()
            answer = client.post(f"/v1/collections/{COLLECTION}/rollback", json={})
            back.append(time.monotonic() - began)
            answer.raise_for_status()
            began = time.monotonic()
            assert _settle(at) == arguments.passages  # noqa: S101 - all of them change
            settled.append(time.monotonic() - began)
    title = "`POST .../rollback`"
    found = {"rollback_s": _row(title, back, "s", goal=ROLLBACK_S)}
    title = "the status of all documents, which follows it"
    return found | {"settle_s": _row(title, settled, "s")}


def _rebuild(at: Worker, _: argparse.Namespace) -> Found:
    """A new lexical index of all passages, in a folder."""
    ready = at.loaded.get(at.checkpoint)
    copied = rebuild.Copied(rebuild.begin(at.open_db, at.collection, ready.lexical))
    began = time.monotonic()
    rebuild.copy(
        at.collection,
        copied,
        ready.lexical,
        open_db=at.open_db,
        tokenizer=ready.tokenizer,
        doc_max_length=DOC_MAX_LENGTH,
        budget_s=3_600.0,
        on_page=lambda _: None,
        stopped=lambda: False,
    )
    seconds = time.monotonic() - began
    assert rebuild.is_whole(at.open_db, at.collection, ready.lexical, copied.number)  # noqa: S101
    return {"rebuild_s": _row(f"a lexical index of {copied.passages:,} passages", [seconds], "s")}


SECTIONS: dict[str, Callable[[Worker, argparse.Namespace], Found]] = {
    "night": _night,
    "changed": _changed,
    "rebuild": _rebuild,
    "rollback": _rollback,
}


def _lose(at: Worker, count: int) -> None:
    """Take some latents away, as damage does, and the status of their documents with them."""
    some = select(Latent.passage_id).order_by(Latent.passage_id).limit(count)
    with at.open_db.begin() as db:
        gone = db.scalars(
            delete(Latent).where(Latent.passage_id.in_(some)).returning(Latent.passage_id)
        ).all()
        documents = select(Passage.document_id).where(Passage.id.in_(gone))
        lost = {"status": DocumentStatus.SEARCHABLE, "indexed_at": None}
        db.execute(update(Document).where(Document.id.in_(documents)).values(lost))


def _settle(at: Worker) -> int:
    return settle_documents(at.open_db, at.collection, stopped=lambda: False)


def _times(call: Callable[[], object], times: int) -> list[float]:
    seconds = []
    for _ in range(times):
        began = time.monotonic()
        call()
        seconds.append(time.monotonic() - began)
    return seconds


def _row(what: str, values: list[float], unit: str, *, goal: float | None = None) -> float:
    """Print a row; returns the median."""
    middle = statistics.median(values)
    met = (
        "" if goal is None else f"at most {goal:g} {unit}: {'met' if middle <= goal else 'missed'}"
    )
    print(f"| {what} | {middle:.3g} {unit} | {min(values):.3g} .. {max(values):.3g} | {met} |")
    return middle


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary one that an embedded Postgres may enter as another user."""
    with tempfile.TemporaryDirectory(prefix="bench-nights-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="What nights, plans and rollbacks cost.")
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=3_000, help="compressed for the full cost")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=256, help="of the random model")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    return parser


if __name__ == "__main__":
    main()
