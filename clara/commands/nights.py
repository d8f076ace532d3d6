"""`clara nights`: when every collection was looked through, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clara.client import Client, Json

COLOURS = {
    **{"succeeded": "green", "done": "green", "current": "green"},
    **{"failed": "red", "refused": "red"},
    **{"running": "cyan", "leased": "cyan"},
    **{"cancelled": "yellow", "paused": "yellow", "busy": "yellow"},
}
TOTALS = ("collections", "stale", "done", "remains", "failed", "audited", "as_text")


def nights(client: Client, console: Console, *, limit: int) -> None:
    """The newest nights, a line each, and when the next one is due."""
    page = client.nights(limit=limit)
    table = Table(box=None, header_style="dim")
    table.add_column("id", no_wrap=True, min_width=36)  # to be copied whole
    table.add_column("due", no_wrap=True)
    table.add_column("status")
    for heading in TOTALS:
        table.add_column(heading.replace("_", " "), justify="right")
    for row in page["nights"]:
        numbers = [str(row["totals"].get(name, "")) for name in TOTALS]
        table.add_row(row["id"], _minute(row["tick"]), _word(row["status"] or "noted"), *numbers)
    if page["nights"]:
        console.print(table)
    console.print(_next(page), highlight=False)


def night(client: Client, console: Console, night_id: str) -> None:
    """One night, collection by collection."""
    found = client.night(night_id)
    console.print(Text.assemble(_word(found["status"] or "noted"), f"  {found['schedule']}"))
    console.print(f"due {_minute(found['tick'])}{_window(found)}", highlight=False)
    if found["skipped"]:
        ticks = ", ".join(map(_minute, found["skipped"]))
        more = " and more" if found["skipped_more"] else ""
        console.print(f"skipped, nothing ran then: {ticks}{more}", style="yellow", highlight=False)
    if found["collections"]:
        console.print(_collections(found["collections"]))
    for row in found["collections"]:
        for words in _faults(row):
            console.print(Text(f"{row['collection']}: {words}", style="yellow"))


def _collections(rows: list[Json]) -> Table:
    table = Table(box=None, header_style="dim")
    for heading in ("collection", "outcome", "stale"):
        table.add_column(heading)
    for heading in ("done", "remains", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("audit")
    for row in rows:
        table.add_row(
            Text(row["collection"]),
            _word(row.get("outcome", "at work")),
            _reasons(row.get("stale", {})),
            str(row.get("done", "")),
            str(row.get("remains", "")),
            f"{row['seconds']:.1f}" if "seconds" in row else "",
            _audit(row.get("audit")),
        )
    return table


def _reasons(stale: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in stale.items()) or "-"


def _audit(found: Json | None) -> str:
    """`18 told, 0.92 kept, 2 as text`, or why not."""
    if found is None:
        return ""
    if "skipped" in found:
        return f"none: {found['skipped']}"
    if "error" in found:
        return "failed"
    kept = f", {found['kept']:.2f} kept" if found["kept"] is not None else ""
    cut = "" if found["complete"] else ", cut short"
    return f"{found['audited']} told{kept}, {found['as_text']} as text{cut}"


def _faults(row: Json) -> list[str]:
    errors = [row.get("error"), row.get("audit", {}).get("error")]
    told = [error["message"] for error in errors if error]
    if row.get("busy_with"):
        told.append(f"recompressed by run {row['busy_with']}, which was left alone")
    return told


def _window(found: Json) -> str:
    if found["finished_at"]:
        return f", ended {_minute(found['finished_at'])}"
    return f", pauses {_minute(found['ends'])}" if found["ends"] else ""


def _next(page: Json) -> str:
    if not page["schedule"]:
        return "CLARA_NIGHTLY is empty: no night is due"
    due = _minute(page["due"]) if page["due"] else "never"
    return f"next {due} ({page['schedule']})"


def _word(status: str) -> Text:
    return Text(status, style=COLOURS.get(status, ""))


def _minute(moment: str) -> str:
    """`2026-11-23 02:00Z`."""
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")
