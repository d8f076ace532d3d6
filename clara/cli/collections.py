"""Commands about what is in a collection, and what it answers from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clara.cli.shared import Address, CollectionName, address, console, errors
from clara.settings import settings
from clara.types import Fusion, Mode, Rerank

app = typer.Typer()

TopK = Annotated[int | None, typer.Option(help="Passages read.")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="CONDITION",
        help="On metadata: lang=en, lang=en,de, year>=2020, path^=manual/; several must all hold.",
    ),
]
RerankName = Annotated[Rerank | None, typer.Option("--rerank", help="What ranks the candidates.")]
FusionName = Annotated[Fusion | None, typer.Option("--fusion", help="How two rankings become one.")]


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.", exists=True)],
    collection: CollectionName,
    api: Address = "",
    wait: Annotated[
        str, typer.Option(help="Until documents are `searchable`, `indexed`, or `none`.")
    ] = "searchable",
) -> None:
    """Put documents in: .txt .md .html .pdf .docx, .jsonl and .jsonl.gz, whole folders.

    Safe to interrupt and to run again: what is in already is skipped.
    """
    from clara.client import Client
    from clara.commands.ingest import ingest as run

    if wait not in ("searchable", "indexed", "none"):
        raise typer.BadParameter("one of searchable, indexed, none", param_hint="--wait")
    with Client(address(api)) as client:
        sent = run(client, paths, collection, settings(), console, wait_for=wait)
    console.print(f"{sent.created} new, {sent.updated} replaced, {sent.unchanged} unchanged")
    for refused in sent.refused:
        errors.print(f"refused: {refused}", style="red", markup=False)
    if sent.refused:
        raise typer.Exit(1)


@app.command()
def ask(
    question: str,
    collection: CollectionName,
    api: Address = "",
    mode: Annotated[Mode, typer.Option(help="How passages are read.")] = Mode.AUTO,
    top_k: TopK = None,
    filters: Filters = None,
    fusion: FusionName = None,
    rerank: RerankName = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show every candidate.")] = False,
) -> None:
    """Ask one question and show the answer with its citations."""
    from clara.client import Client
    from clara.commands import show
    from clara.commands.search import options

    given = options(top_k=top_k, filters=filters or [], fusion=fusion, rerank=rerank)
    given |= {"mode": mode.value} | ({"explain": True} if explain else {})
    with Client(address(api)) as client:
        show.answer(client.ask(collection, question, **given), console)


@app.command()
def search(
    question: Annotated[str, typer.Argument(metavar="WORDS")],
    collection: CollectionName,
    api: Address = "",
    top_k: TopK = None,
    filters: Filters = None,
    fusion: FusionName = None,
    rerank: RerankName = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show every candidate, read or not, and why.")
    ] = False,
) -> None:
    """Find the passages an answer would read, without the answer."""
    from clara.client import Client
    from clara.commands import show
    from clara.commands.search import options

    given = options(top_k=top_k, filters=filters or [], fusion=fusion, rerank=rerank)
    with Client(address(api)) as client:
        show.search(client.search(collection, question, **given), console, explain=explain)


@app.command()
def audit(
    document: Annotated[str | None, typer.Option(help="Id of a document.")] = None,
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="A name.")] = None,
    api: Address = "",
) -> None:
    """Say what the stores hold of a document, or of a collection's deleted documents.

    Exit status 1 when anything is left.
    """
    from clara.client import Client
    from clara.commands import show

    if (document is None) == (collection is None):
        raise typer.BadParameter("give one of --document and --collection")
    with Client(address(api)) as client:
        found = client.audit(document=document, collection=collection)
    show.audit(found, console)
    if not found["clean"]:
        raise typer.Exit(1)


@app.command()
def recompress(
    collection: CollectionName,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Id or name; the promoted one by default, or the one that answers now."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it takes, no more.")] = False,
    gate: Annotated[
        bool, typer.Option("--gate/--no-gate", help="Let only what finds and tells as much answer.")
    ] = True,
    rebuild_indexes: Annotated[
        bool, typer.Option("--rebuild-indexes", help="Make the lexical index anew from the record.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    api: Address = "",
) -> None:
    """Bring a collection's latents up to a checkpoint: plan, compress, judge, switch.

    The collection answers all the while. What an earlier one made is not made again.
    """
    from clara.client import Client
    from clara.commands import recompress as command

    with Client(address(api)) as client:
        command.recompress(
            client,
            collection,
            console,
            checkpoint=checkpoint,
            dry_run=dry_run,
            gate=gate,
            rebuild_indexes=rebuild_indexes,
            wait=wait,
        )


@app.command()
def generations(collection: CollectionName, api: Address = "") -> None:
    """List what a collection answers from, answered from, and is being made ready for."""
    from clara.client import Client
    from clara.commands.recompress import show_generations

    with Client(address(api)) as client:
        show_generations(client, collection, console)


@app.command()
def rollback(
    collection: CollectionName,
    to: Annotated[
        int | None, typer.Option(min=1, help="Number of a generation; the one before by default.")
    ] = None,
    api: Address = "",
) -> None:
    """Answer from an earlier generation again, at once, and stay there."""
    from clara.client import Client
    from clara.commands.recompress import roll_back

    with Client(address(api)) as client:
        roll_back(client, collection, console, to=to)


@app.command()
def nights(
    night: Annotated[str, typer.Argument(metavar="[ID]", help="One night, in full.")] = "",
    api: Address = "",
    limit: Annotated[int, typer.Option(min=1, max=200, help="Nights shown.")] = 20,
) -> None:
    """Show when every collection was looked through, what was stale, done, and remains."""
    from clara.client import Client
    from clara.commands import nights as shown

    with Client(address(api)) as client:
        if night:
            shown.night(client, console, night)
        else:
            shown.nights(client, console, limit=limit)
