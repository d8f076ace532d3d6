"""`clara checkpoints list|score|promote`: what is registered here, and which of it serves."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clara.client import Client, Json
from clara.errors import UnknownCheckpoint
from clara.evaluation.gate import METRICS
from clara.evaluation.report import read_results


def show_all(client: Client, console: Console) -> None:
    """A table of the registered checkpoints, newest first; the active one is marked."""
    table = Table(box=None, header_style="dim")
    table.add_column("")
    table.add_column("id", no_wrap=True, min_width=36)  # to be copied whole
    for heading in ("name", "stage", "fingerprint", "scores", "gate"):
        table.add_column(heading)
    for row in client.checkpoints():
        table.add_row(
            Text("*" if row["active"] else "", style="green"),
            row["id"],
            Text(row["name"]),
            Text(str(row["config"].get("training_stage", ""))),
            Text(row["fingerprint"][:12]),
            Text(_scores(row)),
            Text(_gate(row)),
        )
    console.print(table)


def score(client: Client, named: str, file: Path, console: Console) -> None:
    """Attach the results of an evaluation to a checkpoint.

    Raises:
        InvalidInput: the file holds no results.
        ApiProblem: they were refused.
    """
    results = {name: dict(numbers) for name, numbers in read_results(file).items()}
    row = client.score_checkpoint(_id(client, named), results)
    console.print(Text(f"{row['name']}: {_scores(row)}"))


def promote(
    client: Client,
    named: str,
    console: Console,
    *,
    base: str = "",
    scores: Path | None = None,
    force: str = "",
) -> None:
    """Let a checkpoint serve; a folder is registered first.

    Args:
        client: of the API.
        named: id, name, or folder.
        console: to say what became of it.
        base: of a folder to register.
        scores: results of an evaluation to attach first.
        force: why the gate is overruled; empty leaves it to the gate.
    Raises:
        ApiProblem: the gate refused it, or the folder is damaged.
        InvalidInput: `scores` holds no results.
    """
    folder = Path(named)
    if folder.is_dir():
        checkpoint_id = client.register_checkpoint(str(folder.resolve()), base=base)
    else:
        checkpoint_id = _id(client, named)
    if scores is not None:
        score(client, checkpoint_id, scores, console)
    row = client.promote(checkpoint_id, force=bool(force), reason=force)
    console.print(Text(f"{row['name']} ({row['id']}) serves: {_gate(row)}"))


def _id(client: Client, named: str) -> str:
    """The id itself, or that of the newest checkpoint of the name."""
    try:
        return str(UUID(named))
    except ValueError:
        found = [row["id"] for row in client.checkpoints() if row["name"] == named]
    if not found:
        raise UnknownCheckpoint(
            f"no checkpoint is named {named!r}",
            field="checkpoint",
            remedy="Look at `clara checkpoints list`, or give a folder.",
        )
    return str(found[0])


def _scores(row: Json) -> str:
    """The numbers the gate reads: `nq cover_em 0.412`."""
    return ", ".join(
        f"{name} {metric.key} {numbers[metric.key]:.3g}"
        for name, numbers in row["scores"].items()
        for metric in METRICS
        if metric.key in numbers
    )


def _gate(row: Json) -> str:
    gate = row["gate"]
    if not gate:
        return ""
    said = "; ".join(gate["reasons"])
    return f"by force ({gate['forced']}): {said}" if "forced" in gate else said
