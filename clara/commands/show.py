"""How answers and runs look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from clara.client import Json
from clara.wording import DENSE_SNAPSHOTS

PHASES = ("queue", "retrieval", "rerank", "first_token", "total")
"""Milliseconds shown with an answer; first_token and total count from asking."""


PREVIEW_CHARS = 60
"""Characters shown of a candidate's words."""

COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "leased": "cyan",
    "running": "cyan",
    "cancelled": "yellow",
}
"""Of a run's status."""

WIDE = 110
"""Columns of a terminal from which on a table shows everything."""

NOISE_CHARS = 60
"""Characters shown of what an untrained checkpoint wrote."""


def answer(state: Json, console: Console) -> None:
    """A question with its answer, citations and timings."""
    given = state["answer"]
    parts: list[RenderableType] = [_words(given)]
    parts += [Text(f"note: {notice}", style="yellow") for notice in given["notices"]]
    if given["degraded"]:
        parts.append(Text(f"without: {', '.join(given['degraded'])}", style="yellow"))
    if given["citations"]:
        parts.append(citations(given["citations"]))
    if state.get("explanation"):
        parts += [Text(""), candidates(state["explanation"]["candidates"])]
    parts.append(Text(f"{timings(given['timings'])}{_source(given)}", style="dim"))
    title = Text.assemble((state["question"], "bold cyan"), f"  [{given['mode']}]")
    console.print(Panel(Group(*parts), title=title, title_align="left"))


def _source(given: Json) -> str:
    """Which generation answered, by which checkpoint; none of an earlier release's answers."""
    number = given.get("generation")
    return "" if number is None else f" | generation {number}, {given['checkpoint']['name']}"


def _words(given: Json) -> Text:
    """The answer; what untrained latents gave is shown as the noise it is."""
    words = given["text"] or "(no words)"
    if given["mode"] == "latent" and not given["checkpoint"]["trained"]:
        noise = " ".join(words.split())[:NOISE_CHARS]
        return Text(f"no answer: untrained latents gave {noise!r}", style="dim italic")
    return Text(words, style="bold")


def citations(rows: Sequence[Json]) -> Table:
    """Title, passage, score and evidence sentence of each citation."""
    table = Table(box=None, show_header=True, header_style="dim", pad_edge=False)
    for heading in ("", "document", "passage", "score", "evidence"):
        table.add_column(heading)
    for row in rows:
        passage = row["passage"]
        evidence = row["evidence"]["text"] if row["evidence"] else "-"
        table.add_row(
            str(row["rank"]),
            Text(row["title"] or row["external_id"]),
            f"{passage['start']}-{passage['end']}",
            f"{row['score']:.2f}",
            Text(" ".join(evidence.split()), overflow="ellipsis", no_wrap=False),
        )
    return table


def search(state: Json, console: Console, *, explain: bool) -> None:
    """What was found: the passages an answer reads, or with `explain` all, and why not."""
    found = state["explanation"]
    rows = [row for row in found["candidates"] if explain or row["fate"] == "read"]
    parts: list[RenderableType] = [candidates(rows)] if rows else [Text("(no passage)")]
    if found["degraded"]:
        parts.append(Text(f"without: {', '.join(found['degraded'])}", style="yellow"))
    told = f"ranked by {found['reranked_by']}, {len(found['candidates'])} found"
    parts.append(Text(f"{told} | {timings(found['timings'])}", style="dim"))
    console.print(Group(*parts))


def candidates(rows: Sequence[Json]) -> Table:
    """Every candidate with its score, what every voice said of it, and what became of it."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    headings = ("", "document", "passage", "score", "lexical", "dense", "latent", "fate", "words")
    for heading in headings:
        table.add_column(heading, no_wrap=heading not in ("document", "words"))
    for row in rows:
        passage = row["passage"]
        words = " ".join((passage["text"] or "(replaced since)").split())
        table.add_row(
            str(row["rank"]),
            Text(row["title"] or row["external_id"]),
            f"{passage['start']}-{passage['end']}",
            "" if row["score"] is None else f"{row['score']:.3f}",
            _ranked(row["lexical_rank"], row["lexical"]),
            _ranked(row["dense_rank"], row["dense"]),
            "" if row["latent"] is None else f"{row['latent']:.2f}",
            Text(row["fate"].replace("_", " "), style="green" if row["fate"] == "read" else ""),
            Text(words[:PREVIEW_CHARS], overflow="ellipsis"),
        )
    return table


def _ranked(rank: int | None, score: float | None) -> str:
    """Position and score in one retriever's list."""
    return "" if rank is None or score is None else f"{rank} ({score:.2f})"


def audit(found: Json, console: Console) -> None:
    """What is left, place by place, and what may still take it away."""
    table = Table(box=None, header_style="dim")
    for heading in ("place", "left", "such as"):
        table.add_column(heading)
    for place in found["places"]:
        style = "red" if place["entries"] else "green"
        examples = ", ".join(place["examples"])
        table.add_row(place["name"], Text(str(place["entries"]), style=style), examples)
    console.print(table)
    if found["pending_runs"]:
        console.print(f"not done yet: {', '.join(found['pending_runs'])}", style="yellow")
    console.print("nothing is left" if found["clean"] else "something is left")
    if any(one["name"] == DENSE_SNAPSHOTS and one["entries"] for one in found["places"]):
        console.print("a snapshot only makes a start faster: its folder may be deleted")


def timings(milliseconds: Json) -> str:
    """One line: the phases a user waits for."""
    parts = (
        f"{phase.replace('_', ' ')} {milliseconds[phase]:.0f} ms"
        for phase in PHASES
        if phase in milliseconds
    )
    return " | ".join(parts)


def runs(rows: Sequence[Json], console: Console) -> None:
    """A table of runs, newest first; errors below it, where they have room."""
    wide = console.width >= WIDE
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in ("id", "kind", "status", "progress", *(("left", "tries", "created") * wide)):
        table.add_column(heading, no_wrap=True)  # ids are copied whole
    for row in rows:
        progress = row["progress"]
        more = (seconds(progress["seconds_left"]), str(row["attempts"]), row["created_at"][:19])
        table.add_row(
            row["id"],
            row["kind"],
            Text(row["status"], style=COLOURS.get(row["status"], "")),
            f"{progress['done']:,}/{progress['total']:,}" if progress["total"] else "",
            *(more * wide),
        )
    console.print(table)
    for row in rows:
        if error := row.get("error"):
            told = f"{error.get('code', '')}: {error.get('message', '')}"
            console.print(Text.assemble((f"{row['id']} ", "dim"), (told[:200], "red")))


def seconds(count: float | None) -> str:
    """`45 s`, `12 min`, `3.5 h`; nothing where it is not known."""
    if count is None:
        return ""
    if count < 120:
        return f"{count:.0f} s"
    return f"{count / 60:.0f} min" if count < 7200 else f"{count / 3600:.1f} h"
