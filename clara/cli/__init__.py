"""The `clara` command."""

from __future__ import annotations

import sys

import typer

from clara.cli import checkpoints, collections, evaluating, runs, system, training
from clara.cli.shared import console as console
from clara.cli.shared import errors
from clara.errors import ClaraError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="CLaRa Workers: latent-compression RAG on a queue.",
)
for part in (system.app, collections.app, evaluating.app):
    app.add_typer(part)
app.add_typer(runs.app, name="runs")
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(training.data_app, name="data")
app.add_typer(training.train_app, name="train")


def main() -> None:
    """Run a command; an error of ours is one line and exit status 1."""
    try:
        app()
    except ClaraError as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False)
        if error.field:
            errors.print(f"  at {error.field}", style="red", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("interrupted", style="yellow")
        sys.exit(130)
