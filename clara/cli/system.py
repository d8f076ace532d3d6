"""Commands that run everything on this machine, or one process, and look whether it can."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from clara.cli.shared import console, errors, stop_event
from clara.settings import settings

app = typer.Typer()
serve_app = typer.Typer(no_args_is_help=True, help="One long-running process, in the foreground.")
app.add_typer(serve_app, name="serve")
models_app = typer.Typer(no_args_is_help=True, help="The default models.")
app.add_typer(models_app, name="models")


@app.command()
def up() -> None:
    """Start everything on this machine and stay; Ctrl-C stops all of it."""
    from clara import default_models
    from clara.client import Client
    from clara.commands.demo import wait_until_ready
    from clara.commands.supervisor import system

    config = settings()
    default_models.fetch_all(config.models, say=console.print)
    stop = stop_event()
    with system(config) as running, Client(running.api) as client:
        wait_until_ready(running, client, sleep=lambda s: _wait(stop, s))
        console.print(f"API docs  {running.api}/docs")
        console.print(f"Flower    {running.flower}")
        console.print(f"logs      {config.home / 'log'}")
        console.print("Ctrl-C stops everything.")
        while not stop.wait(1):
            for name in running.tend():
                errors.print(f"{name} ended and was started again; see its log", style="yellow")
        console.print("stopping")


@app.command()
def down() -> None:
    """End what a crashed `clara up` left behind."""
    from clara.commands import supervisor

    ended = supervisor.down(settings())
    console.print(f"ended: {', '.join(ended)}" if ended else "nothing was running")


@app.command()
def demo(
    samples: Annotated[Path, typer.Option(help="Folder of the sample shop.")] = Path("samples"),
) -> None:
    """Run the whole path once: ingest the sample shop, ask, write var/demo/report.json."""
    from clara.commands.demo import demo as run

    stop_event(raises=True)
    run(settings(), samples, console)


@app.command()
def doctor() -> None:
    """Check every server, model files, disk and memory; say what to do."""
    from clara.commands.doctor import examine

    bad = 0
    for finding in examine(settings()):
        mark = "[green]ok  [/]" if finding.ok else "[red]FAIL[/]"
        console.print(f"{mark} {finding.name:<17}", end=" ")
        console.print(finding.detail, markup=False, highlight=False)
        if finding.remedy:
            console.print(f"     -> {finding.remedy}", markup=False, style="yellow")
        bad += not finding.ok
    if bad:
        raise typer.Exit(1)


@app.command()
def migrate() -> None:
    """Bring the tables of CLARA_DATABASE_URL up to date."""
    from clara.db.migrate import migrate as run

    run(settings().database_url)
    console.print("tables are up to date")


@models_app.command("fetch")
def models_fetch() -> None:
    """Fetch the default models into CLARA_HOME/models unless they are there."""
    from clara import default_models

    config = settings()
    default_models.fetch_all(config.models, say=console.print)
    console.print(f"models are in {config.models}")


def _serve(name: str) -> None:
    from clara.commands import serve

    serve.run(name, settings())


@serve_app.command("api")
def serve_api() -> None:
    """The HTTP API."""
    _serve("api")


@serve_app.command("model-worker")
def serve_model_worker() -> None:
    """Questions and compression; holds the language model."""
    _serve("model-worker")


@serve_app.command("cpu-worker")
def serve_cpu_worker() -> None:
    """Splitting, embedding and indexing."""
    _serve("cpu-worker")


@serve_app.command("train-worker")
def serve_train_worker() -> None:
    """Trainings, one at a time; each computes in processes of its own."""
    _serve("train-worker")


@serve_app.command("beat")
def serve_beat() -> None:
    """The clock of the reconciler."""
    _serve("beat")


@serve_app.command("flower")
def serve_flower() -> None:
    """The queue monitor."""
    _serve("flower")


def _wait(stop: threading.Event, seconds: float) -> None:
    if stop.wait(seconds):
        raise KeyboardInterrupt
