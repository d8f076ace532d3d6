"""Commands about runs: what is worked on, was done, or failed."""

from __future__ import annotations

from typing import Annotated

import typer

from clara.cli.shared import Address, address, console

app = typer.Typer(no_args_is_help=True, help="What is worked on, was done, or failed.")

RunKindName = Annotated[str | None, typer.Option("--kind", help="ingest, query, train, ...")]
RunCollection = Annotated[str | None, typer.Option("--collection", "-c", help="A name.")]
ErrorCode = Annotated[str | None, typer.Option("--code", help="Of the error, as it is shown.")]
RunId = Annotated[str, typer.Argument(metavar="ID")]
RunIds = Annotated[list[str], typer.Argument(metavar="ID...")]


@app.command("list")
def runs_list(
    api: Address = "",
    kind: RunKindName = None,
    status: Annotated[str | None, typer.Option(help="queued, running, failed, ...")] = None,
    collection: RunCollection = None,
    code: ErrorCode = None,
    parent: Annotated[str | None, typer.Option(help="Id of the run they are parts of.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
) -> None:
    """List runs, newest first; with --status failed, those that were given up."""
    from clara.client import Client
    from clara.commands import show

    given = {"kind": kind, "status": status, "code": code, "parent": parent, "limit": limit}
    with Client(address(api)) as client:
        show.runs(client.runs(collection=collection, **given), console)


@app.command("show")
def runs_show(run_id: RunId, api: Address = "") -> None:
    """Say everything about a run: how far it is, its parts, its error with the traceback."""
    from clara.client import Client
    from clara.commands import runs

    with Client(address(api)) as client:
        runs.show(client, run_id, console)


@app.command("cancel")
def runs_cancel(run_ids: RunIds, api: Address = "") -> None:
    """Cancel runs that have not ended, and their parts."""
    from clara.client import Client
    from clara.commands import runs

    with Client(address(api)) as client:
        runs.cancel(client, run_ids, console)


@app.command("retry")
def runs_retry(
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed.")] = False,
    kind: RunKindName = None,
    collection: RunCollection = None,
    code: ErrorCode = None,
    since: Annotated[
        str | None, typer.Option(help="Failed since then: 2h, 3d, or 2026-01-31T08:00+01:00.")
    ] = None,
    api: Address = "",
) -> None:
    """Try runs again: those of some ids, or with --failed all, or those the options name.

    Exit status 1 where one was refused.
    """
    from clara.client import Client
    from clara.commands import runs

    which = {"kind": kind, "collection": collection, "code": code}
    if bool(run_ids) == failed or (run_ids and (since or any(which.values()))):
        raise typer.BadParameter("give ids, or --failed with options that name fewer")
    with Client(address(api)) as client:
        if run_ids:
            refused = runs.retry(client, run_ids, console)
        else:
            refused = runs.retry_failed(client, which, since, console)
    if refused:
        raise typer.Exit(1)
