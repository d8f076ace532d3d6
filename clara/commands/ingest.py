"""`clara ingest`: files and folders into a collection, safe to interrupt and to run again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from clara.client import Client, Json
from clara.errors import ClaraError, InvalidInput
from clara.extraction import extract, find_files, read_jsonl
from clara.settings import Settings
from clara.types import SourceDocument

BATCH_DOCUMENTS = 200
BATCH_CHARS = 2_000_000
"""One request holds at most this much, far under the API's own limits."""


@dataclass
class Sent:
    """What became of the documents."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: list[ClaraError] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Documents the API took or knew."""
        return self.created + self.updated + self.unchanged


def ingest(
    client: Client,
    paths: Sequence[Path],
    collection: str,
    config: Settings,
    console: Console,
    *,
    wait_for: str = "searchable",
) -> Sent:
    """Send every document of `paths`, then watch until the collection is `wait_for`.

    Args:
        wait_for: `searchable`, `indexed` or `none`.
    Returns:
        Counts, and the files that were refused; those do not stop the others.
    """
    client.create_collection(collection, exist_ok=True)
    sent = Sent()
    with bars(console) as progress:
        sending = progress.add_task("sending", total=None)
        for batch in batches(_documents(paths, config, sent)):
            reply = client.write_documents(collection, batch)
            for document in reply["documents"]:
                outcome = document["outcome"]
                setattr(sent, outcome, getattr(sent, outcome) + 1)
            progress.update(sending, advance=len(batch))
        progress.update(sending, total=sent.total)
        if wait_for != "none":
            watch(client, collection, progress, wait_for)
    return sent


def watch(client: Client, collection: str, progress: Progress, wait_for: str) -> Json:
    """Show how far the collection is until every document is `wait_for` or failed.

    Raises:
        InvalidInput: nothing is being done any more and not all is done.
    """
    searchable = progress.add_task("searchable", total=None)
    indexed = progress.add_task("indexed", total=None)
    for state in client.watch(collection):
        by_status = state["documents"]
        total = sum(by_status.values())
        ready = by_status["searchable"] + by_status["indexed"]
        progress.update(searchable, total=total, completed=ready)
        progress.update(indexed, total=total, completed=by_status["indexed"])
        reached = ready if wait_for == "searchable" else by_status["indexed"]
        if reached + by_status["failed"] >= total:
            return state
        if by_status["pending"] == 0 and not state["active_runs"]:
            _explain(client, collection)
    raise AssertionError("watching ends inside the loop")


def bars(console: Console) -> Progress:
    """A progress display with counts and times."""
    return Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def batches(documents: Iterable[SourceDocument]) -> Iterator[list[SourceDocument]]:
    """Groups that fit one request."""
    batch: list[SourceDocument] = []
    chars = 0
    for document in documents:
        full = len(batch) == BATCH_DOCUMENTS or chars + len(document.text) > BATCH_CHARS
        if batch and full:
            yield batch
            batch, chars = [], 0
        batch.append(document)
        chars += len(document.text)
    if batch:
        yield batch


def _documents(paths: Sequence[Path], config: Settings, sent: Sent) -> Iterator[SourceDocument]:
    """Every document of every file; a file that cannot be read is noted and left out."""
    for path in _files(paths):
        try:
            yield from _read(path, config)
        except InvalidInput as error:
            sent.refused.append(error)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as given; of folders, every file a reader exists for, hidden ones left out."""
    for path in paths:
        if path.is_dir():
            lines = [file for file in path.rglob("*") if _is_lines(file)]
            shown = [f for f in lines if not any(p[0] == "." for p in f.relative_to(path).parts)]
            yield from sorted([*find_files([path]), *shown])
        elif _is_lines(path) and path.is_file():
            yield path
        else:
            yield from find_files([path])


def _is_lines(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def _read(path: Path, config: Settings) -> Iterator[SourceDocument]:
    limit = config.max_document_chars
    if _is_lines(path):
        yield from read_jsonl(path, max_chars=limit)
    else:
        yield extract(str(path), path.read_bytes(), max_chars=limit)


def _explain(client: Client, collection: str) -> None:
    """Nothing is being done and not all is done: say why; more waiting would never end."""
    failed = client.runs(collection=collection, status="failed", limit=1)
    if not failed:
        raise InvalidInput(
            "some documents will not be indexed by themselves: passages that the checkpoint cannot "
            "read, or a cancelled run",
            field=collection,
            remedy="They are answered from text. `clara runs` shows what was skipped or cancelled.",
        )
    error = failed[0].get("error") or {}
    raise InvalidInput(
        f"run {failed[0]['id']} ({failed[0]['kind']}) failed: {error.get('message', 'no reason')}",
        field=collection,
        remedy="Look at `clara runs` and at the worker's log.",
    )
