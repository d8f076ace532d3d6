"""Commands about folders of trained weights, and about which of them serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clara.cli.shared import Address, BaseName, CheckpointName, address, console
from clara.commands.checkpoints import Form, Precision
from clara.settings import settings

app = typer.Typer(no_args_is_help=True, help="Folders of trained weights.")

Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]


@app.command("convert")
def checkpoints_convert(
    source: CheckpointName,
    target: Annotated[Path, typer.Argument(help="Folder to make.")],
    to: Annotated[Form, typer.Option(help="Safetensors with a manifest, or as published.")],
    base: BaseName = "",
    dtype: Annotated[Precision, typer.Option(help="Of the original form.")] = Precision.BFLOAT16,
    licence: Annotated[str, typer.Option(help="Of the weights, where it is not known.")] = "",
    revision: Revision = None,
) -> None:
    """Write a checkpoint in our own form, or in that of the published CLaRa models."""
    from clara.commands import checkpoints

    given = checkpoints.Source(source, base, revision)
    checkpoints.convert(given, target, to, settings(), console, precision=dtype, licence=licence)


@app.command("show")
def checkpoints_show(
    path: CheckpointName,
    base: BaseName = "",
    revision: Revision = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a checkpoint holds: kind, rates, adapters, licence, base, fingerprint, files."""
    from clara.commands import checkpoints

    given = checkpoints.Source(path, base, revision)
    checkpoints.show(given, settings(), console, as_json=as_json)


@app.command("verify")
def checkpoints_verify(
    path: CheckpointName,
    base: BaseName = "",
    revision: Revision = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "",
) -> None:
    """Check files, values and shapes, load it, compress a sentence and answer.

    Exit status 1 with the first fault.
    """
    from clara.commands import checkpoints

    given = checkpoints.Source(path, base, revision)
    checkpoints.verify(given, settings(), console, device=device)


@app.command("list")
def checkpoints_list(api: Address = "") -> None:
    """List the registered checkpoints, newest first; `*` marks the one that serves."""
    from clara.client import Client
    from clara.commands import promote

    with Client(address(api)) as client:
        promote.show_all(client, console)


@app.command("score")
def checkpoints_score(
    checkpoint: Annotated[str, typer.Argument(help="Id or name.")],
    scores: Annotated[
        Path, typer.Argument(help="What `clara evaluate --json` wrote.", exists=True)
    ],
    api: Address = "",
) -> None:
    """Keep an evaluation's numbers with a checkpoint, for the gate to compare."""
    from clara.client import Client
    from clara.commands import promote

    with Client(address(api)) as client:
        promote.score(client, checkpoint, scores, console)


@app.command("promote")
def checkpoints_promote(
    checkpoint: Annotated[str, typer.Argument(help="Id, name, or a folder to register first.")],
    base: BaseName = "",
    scores: Annotated[
        Path | None,
        typer.Option(help="What `clara evaluate --json` wrote, to attach first.", exists=True),
    ] = None,
    force: Annotated[
        str, typer.Option(metavar="REASON", help="Overrule the gate, and keep why.")
    ] = "",
    api: Address = "",
) -> None:
    """Let a checkpoint serve, if it was scored and is no worse than the one that does."""
    from clara.client import Client
    from clara.commands import promote

    with Client(address(api)) as client:
        promote.promote(client, checkpoint, console, base=base, scores=scores, force=force)
