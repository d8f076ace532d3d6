"""What the commands have in common: where they print, what several of them are given."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer
from rich.console import Console

from clara.settings import settings

console = Console()
errors = Console(stderr=True)

Address = Annotated[
    str, typer.Option("--api", help="Address of the API.", envvar="CLARA_API", show_default=False)
]
CollectionName = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
CheckpointName = Annotated[
    str, typer.Argument(metavar="PATH", help="Folder, Hub name with sub-folder, or `default`.")
]
BaseName = Annotated[
    str, typer.Option("--base", help="Folder or Hub name of the base, where it is not found.")
]


def address(given: str) -> str:
    """Of the API: what was given, else where this installation serves it."""
    config = settings()
    return given or f"http://{config.api_host}:{config.api_port}"


def stop_event(*, raises: bool = False) -> threading.Event:
    """Set by Ctrl-C and by a plain kill; with `raises`, either ends the program by exception."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        stop.set()
        if raises:
            raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop
