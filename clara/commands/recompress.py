"""`clara recompress`, `clara generations`, `clara rollback`: what a collection answers from."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clara.client import ApiProblem, Client, Json
from clara.commands.show import seconds

REASONS = {
    "fingerprint": "latents of another compressor only",
    "missing": "no latent",
    "damaged": "damaged latent",
    "text": "written again, not split yet",
}

WAYS = {
    "nothing": "nothing to do",
    "followed": "the latents are the same: the checkpoint takes over at once",
    "repaired": "what is lacking is made in place, while the collection answers",
    "switched": "a new generation is made beside the active one, then switched to",
}

EVERY_S = 2.0
"""Seconds between two looks at a run that is waited for."""

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def recompress(
    client: Client,
    collection: str,
    console: Console,
    *,
    checkpoint: str | None,
    dry_run: bool,
    gate: bool,
    rebuild_indexes: bool,
    wait: bool,
) -> None:
    """Show the plan; then, unless it is a dry run, start, and where asked wait for the end.

    Raises:
        ApiProblem: it was refused, or it failed.
    """
    which: dict[str, Any] = {"checkpoint": checkpoint, "rebuild_indexes": rebuild_indexes}
    show_plan(client.plan_recompression(collection, **which), console)
    if dry_run:
        return
    run_id = client.recompress(collection, gate=gate, **which)
    console.print(f"run {run_id}", highlight=False)
    if wait:
        show_end(_ended(client, run_id, console), console)
    else:
        console.print("it works in the background: `clara runs show` tells how far it is")


def show_plan(plan: Json, console: Console) -> None:
    """What is stale and why, and what making it anew costs."""
    console.print(
        Text.assemble(
            (plan["collection"], "bold"), f" with {plan['checkpoint']} ({plan['fingerprint'][:12]})"
        )
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("passages", f"{plan['passages']:,}", "in all")
    for reason, count in plan["stale"].items():
        table.add_row(reason, f"{count:,}", f"passages: {REASONS.get(reason, '')}")
    if plan["too_long"]:
        table.add_row("too long", f"{plan['too_long']:,}", "passages that stay text")
    table.add_row("to make", f"{plan['to_make']:,}", "latents")
    if plan["to_make"]:
        table.add_row("", f"{plan['tokens']:,}", "tokens to read")
        size = plan["bytes"]["value"]
        table.add_row("", "?" if size is None else bytes_of(size), plan["bytes"]["basis"])
        time_s = plan["seconds"]["value"]
        table.add_row("", "?" if time_s is None else seconds(time_s), plan["seconds"]["basis"])
    if rebuild := plan.get("rebuild"):
        table.add_row("to index", f"{rebuild['passages']:,}", "passages, in a new lexical index")
        time_s = rebuild["seconds"]["value"]
        table.add_row("", "?" if time_s is None else seconds(time_s), rebuild["seconds"]["basis"])
    console.print(table)
    console.print(WAYS.get(plan["way"], plan["way"]), highlight=False)
    if plan.get("rebuild"):
        console.print("the lexical index is made anew beside the one that is searched")


def show_end(run: Json, console: Console) -> None:
    """What a recompression came to."""
    result = run["result"] or {}
    told = f"{result.get('outcome')}: {result.get('done', 0):,} latents made"
    if result.get("skipped"):
        told += f", {result['skipped']:,} passages stay text"
    if result.get("remains"):
        told += f", {result['remains']:,} remain"
    if result.get("indexed"):
        told += f", {result['indexed']:,} passages in a new lexical index"
    if result.get("forgotten"):
        told += f", {result['forgotten']:,} old latents deleted"
    console.print(told, highlight=False)
    for reason in (result.get("gate") or {}).get("reasons", []):
        console.print(Text(f"gate: {reason}", style="dim"))
    if result.get("generation"):
        console.print(f"generation {result['generation']} answers", highlight=False)


def show_generations(client: Client, collection: str, console: Console) -> None:
    """A table of a collection's generations, the newest first."""
    found = client.generations(collection)
    table = Table(box=None, header_style="dim")
    for heading in ("number", "status", "checkpoint", "fingerprint", "latents", "since"):
        table.add_column(heading, no_wrap=heading != "checkpoint")
    for row in found["generations"]:
        table.add_row(
            str(row["number"]),
            Text(row["status"], style="green" if row["status"] == "active" else ""),
            Text(row["checkpoint"]),
            row["fingerprint"][:12],
            f"{row['latents']:,}",
            (row["activated_at"] or "")[:16].replace("T", " "),
        )
    console.print(table)
    for row in found["generations"]:
        if reasons := (row["gate"] or {}).get("reasons"):
            told = f"generation {row['number']}, recall gate: {'; '.join(reasons)}"
            console.print(Text(told, style="dim"))
    if found["held"]:
        console.print(
            "held: promotions and nights leave it there until you recompress it", style="yellow"
        )


def roll_back(client: Client, collection: str, console: Console, *, to: int | None) -> None:
    """Answer from an earlier generation. Raises ApiProblem where there is none."""
    found = client.roll_back(collection, to=to)
    now = found["generation"]
    console.print(Text(f"generation {now['number']} answers: {now['checkpoint']}"))
    if found["cancelled"]:
        console.print(f"run {found['cancelled']} cancelled", style="yellow", highlight=False)
    console.print("held there until you recompress it", style="dim")


def bytes_of(count: float) -> str:
    """Bytes in the unit a person would use."""
    size, unit = float(count), 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:,.0f} {UNITS[unit]}" if unit == 0 else f"{size:,.1f} {UNITS[unit]}"


def _ended(client: Client, run_id: str, console: Console) -> Json:
    """Wait for the end, with a line where something changed.

    Raises:
        ApiProblem: it failed or was cancelled.
    """
    told = ""
    while True:
        run = client.run(run_id)
        if run["status"] == "succeeded":
            return run
        if run["status"] in ("failed", "cancelled"):
            error = run.get("error") or {"message": f"the run was {run['status']}"}
            raise ApiProblem(error | {"detail": error.get("message")})
        if (line := _progress(run)) != told:
            told = line
            console.print(line, highlight=False)
        time.sleep(EVERY_S)


def _progress(run: Json) -> str:
    progress = run["progress"]
    line: str = progress.get("phase") or run["status"]
    if progress["total"]:
        line += f": {progress['done']:,} of {progress['total']:,} passages"
    if progress.get("rate"):
        line += f", {progress['rate']:,.1f} a second"
    if progress.get("seconds_left"):
        line += f", {seconds(progress['seconds_left'])} left"
    return line
