"""A command that takes words, or gives way to another that its first word names."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand


def or_command(**others: typer.Typer) -> type[TyperCommand]:
    """The class of a command that others stand below, as below a group, without being one.

    So `clara evaluate FILE...` takes files and `clara evaluate retrieval` is a command of its own.
    A file of that name is `./retrieval`.

    Args:
        others: by the word that chooses it, an application of one command.
    """

    class Command(TyperCommand):
        def make_context(
            self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
        ) -> Any:
            if args and args[0] in others:
                chosen = typer.main.get_command(others[args[0]])
                return chosen.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
            return super().make_context(info_name, args, parent, **extra)

    return Command
