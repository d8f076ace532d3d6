"""`clara runs`: look at one run, cancel some, try failed ones again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clara.client import ApiProblem, Client, Json
from clara.commands.show import COLOURS, seconds
from clara.errors import InvalidInput

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGE = re.compile(r"(?P<count>\d{1,6})(?P<unit>[smhd])")


def show(client: Client, run_id: str, console: Console) -> None:
    """Everything about a run, a line each; the traceback of its last failure below."""
    run = client.run(run_id)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _lines(run):
        table.add_row(label, Text(value, style=COLOURS.get(value, "")))
    console.print(table)
    if run["error"] and (told := client.traceback(run_id)):
        console.print(Text(told.rstrip(), style="dim"))


def cancel(client: Client, run_ids: Sequence[str], console: Console) -> None:
    """Cancel runs, one after the other. Raises ApiProblem at the first that cannot be."""
    for run_id in run_ids:
        console.print(f"{client.cancel(run_id)['id']} cancelled", highlight=False)


def retry(client: Client, run_ids: Sequence[str], console: Console) -> int:
    """Queue runs again, each for itself. Returns how many were refused."""
    refused = 0
    for run_id in run_ids:
        try:
            console.print(f"{client.retry(run_id)['id']} queued", highlight=False)
        except ApiProblem as reason:
            refused += 1
            console.print(Text(f"refused: {reason}", style="yellow"))
    return refused


def retry_failed(client: Client, which: Json, since: str | None, console: Console) -> int:
    """Queue all failed runs that the filters name. Returns how many were refused.

    Args:
        client: of the API.
        which: kind, collection and code; None names all.
        since: moment or age of their end, see `moment`.
        console: for the counts and the first reasons.
    Raises:
        InvalidInput: `since` is no moment.
    """
    queued = refused = 0
    start = moment(since) if since else None
    for page in client.retry_failed(**which, since=start.isoformat() if start else None):
        queued += page["queued"]
        refused += page["refused"]
        for one in page["reasons"]:
            console.print(Text(f"refused: {one['detail']}", style="yellow"))
    console.print(f"{queued} queued, {refused} refused", highlight=False)
    return refused


def moment(given: str) -> datetime:
    """A point in time: ISO 8601 (this machine's zone where none is named), or an age such as `2h`.

    Raises:
        InvalidInput: neither.
    """
    if age := _AGE.fullmatch(given):
        return datetime.now(UTC) - timedelta(**{_UNITS[age["unit"]]: int(age["count"])})
    try:
        return datetime.fromisoformat(given).astimezone()
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{given!r} is neither a moment nor an age",
            field="--since",
            remedy="Give an age such as 90m, 2h or 3d, or a moment such as 2026-01-31T08:00+01:00.",
        ) from error


def _lines(run: Json) -> list[tuple[str, str]]:
    error = run["error"] or {}
    rows = [
        ("run", run["id"]),
        ("part of", run["parent_id"] or ""),
        ("kind", run["kind"]),
        ("collection", run["collection"] or ""),
        ("status", run["status"]),
        ("progress", _progress(run["progress"])),
        ("parts", _parts(run["children"])),
        ("attempts", str(run["attempts"])),
        *((name, _time(run[f"{name}_at"])) for name in ("created", "queued", "started")),
        ("finished", _time(run["finished_at"])),
        *((name, _json(run[name])) for name in ("inputs", "details", "result", "timings")),
        ("error", ": ".join(filter(None, (error.get("code"), error.get("message"))))),
        ("remedy", error.get("remedy", "")),
    ]
    return [(label, value) for label, value in rows if value]


def _progress(progress: Json) -> str:
    if not (progress["total"] or progress["phase"]):
        return ""
    parts = [
        progress["phase"],
        f"{progress['done']:,} of {progress['total']:,}" if progress["total"] else "",
        f"{progress['rate']:,.3g} a second" if progress["rate"] else "",
        f"{seconds(progress['seconds_left'])} left" if progress["seconds_left"] else "",
    ]
    return ", ".join(part for part in parts if part)


def _parts(children: Json | None) -> str:
    if children is None:
        return ""
    counts = ", ".join(f"{count} {status}" for status, count in children["by_status"].items())
    return f"{counts}; {_progress(children['progress'])}".rstrip("; ")


def _time(moment: str | None) -> str:
    return moment[:19].replace("T", " ") if moment else ""


def _json(value: Json | None) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""
