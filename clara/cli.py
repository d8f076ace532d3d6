"""The `clara` command."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from clara.commands.checkpoints import Form, Precision
from clara.commands.first_word import or_command
from clara.commands.train_options import stage_command
from clara.errors import Cancelled, ClaraError
from clara.evaluation.options import Among, Dense, Options, Ranker, Reader, Reading, Setting
from clara.settings import settings
from clara.training.records import Stage
from clara.types import Fusion, Mode, Rerank

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="CLaRa Workers: latent-compression RAG on a queue.",
)
serve_app = typer.Typer(no_args_is_help=True, help="One long-running process, in the foreground.")
models_app = typer.Typer(no_args_is_help=True, help="The default models.")
app.add_typer(serve_app, name="serve")
app.add_typer(models_app, name="models")
checkpoints_app = typer.Typer(no_args_is_help=True, help="Folders of trained weights.")
app.add_typer(checkpoints_app, name="checkpoints")
data_app = typer.Typer(no_args_is_help=True, help="Files of training records.")
app.add_typer(data_app, name="data")
train_app = typer.Typer(no_args_is_help=True, help="Train a checkpoint, stage by stage.")
app.add_typer(train_app, name="train")
retrieval_app = typer.Typer(add_completion=False)
runs_app = typer.Typer(no_args_is_help=True, help="What is worked on, was done, or failed.")
app.add_typer(runs_app, name="runs")

console = Console()
errors = Console(stderr=True)

Address = Annotated[
    str, typer.Option("--api", help="Address of the API.", envvar="CLARA_API", show_default=False)
]
CollectionName = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
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
CheckpointName = Annotated[
    str, typer.Argument(metavar="PATH", help="Folder, Hub name with sub-folder, or `default`.")
]
BaseName = Annotated[
    str, typer.Option("--base", help="Folder or Hub name of the base, where it is not found.")
]
RunKindName = Annotated[str | None, typer.Option("--kind", help="ingest, query, train, ...")]
RunCollection = Annotated[str | None, typer.Option("--collection", "-c", help="A name.")]
ErrorCode = Annotated[str | None, typer.Option("--code", help="Of the error, as it is shown.")]
RunId = Annotated[str, typer.Argument(metavar="ID")]
RunIds = Annotated[list[str], typer.Argument(metavar="ID...")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]


@app.command()
def up() -> None:
    """Start everything on this machine and stay; Ctrl-C stops all of it."""
    from clara import default_models
    from clara.client import Client
    from clara.commands.demo import wait_until_ready
    from clara.commands.supervisor import system

    config = settings()
    default_models.fetch_all(config.models, say=console.print)
    stop = _stop_event()
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

    _stop_event(raises=True)
    run(settings(), samples, console)


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
    with Client(_address(api)) as client:
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
    with Client(_address(api)) as client:
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
    with Client(_address(api)) as client:
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
    with Client(_address(api)) as client:
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

    with Client(_address(api)) as client:
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

    with Client(_address(api)) as client:
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

    with Client(_address(api)) as client:
        roll_back(client, collection, console, to=to)


@runs_app.command("list")
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
    with Client(_address(api)) as client:
        show.runs(client.runs(collection=collection, **given), console)


@runs_app.command("show")
def runs_show(run_id: RunId, api: Address = "") -> None:
    """Say everything about a run: how far it is, its parts, its error with the traceback."""
    from clara.client import Client
    from clara.commands import runs

    with Client(_address(api)) as client:
        runs.show(client, run_id, console)


@runs_app.command("cancel")
def runs_cancel(run_ids: RunIds, api: Address = "") -> None:
    """Cancel runs that have not ended, and their parts."""
    from clara.client import Client
    from clara.commands import runs

    with Client(_address(api)) as client:
        runs.cancel(client, run_ids, console)


@runs_app.command("retry")
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
    with Client(_address(api)) as client:
        if run_ids:
            refused = runs.retry(client, run_ids, console)
        else:
            refused = runs.retry_failed(client, which, since, console)
    if refused:
        raise typer.Exit(1)


@app.command()
def nights(
    night: Annotated[str, typer.Argument(metavar="[ID]", help="One night, in full.")] = "",
    api: Address = "",
    limit: Annotated[int, typer.Option(min=1, max=200, help="Nights shown.")] = 20,
) -> None:
    """Show when every collection was looked through, what was stale, done, and remains."""
    from clara.client import Client
    from clara.commands import nights as shown

    with Client(_address(api)) as client:
        if night:
            shown.night(client, console, night)
        else:
            shown.nights(client, console, limit=limit)


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


@checkpoints_app.command("convert")
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


@checkpoints_app.command("show")
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


@checkpoints_app.command("verify")
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


@checkpoints_app.command("list")
def checkpoints_list(api: Address = "") -> None:
    """List the registered checkpoints, newest first; `*` marks the one that serves."""
    from clara.client import Client
    from clara.commands import promote

    with Client(_address(api)) as client:
        promote.show_all(client, console)


@checkpoints_app.command("score")
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

    with Client(_address(api)) as client:
        promote.score(client, checkpoint, scores, console)


@checkpoints_app.command("promote")
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

    with Client(_address(api)) as client:
        promote.promote(client, checkpoint, console, base=base, scores=scores, force=force)


@data_app.command("check")
def data_check(
    files: Annotated[
        list[Path], typer.Argument(help=".jsonl and .jsonl.gz.", exists=True, dir_okay=False)
    ],
    stage: Annotated[
        Stage, typer.Option(help="1 compression, 2 instruction tuning, 3 end to end.")
    ],
    base: Annotated[
        Path | None,
        typer.Option(help="Base model: lengths in its tokens, not in words.", file_okay=False),
    ] = None,
    doc_max_length: Annotated[
        int, typer.Option(min=1, help="Tokens the compressor reads of a document.")
    ] = 256,
    generation_top_k: Annotated[
        int, typer.Option(min=1, help="Documents an answer is made from.")
    ] = 5,
    max_faults: Annotated[int, typer.Option(min=0, help="Faults shown of a file.")] = 50,
    out: Annotated[Path | None, typer.Option("--json", help="Write everything found.")] = None,
) -> None:
    """Say what is wrong with training records, by line and field, and how long texts are.

    Exit status 1 when a file has faults.
    """
    from clara.commands.data import check_files

    limits = {"doc_max_length": doc_max_length, "generation_top_k": generation_top_k}
    if not check_files(files, stage, console, base=base, **limits, max_faults=max_faults, out=out):
        raise typer.Exit(1)


@retrieval_app.command("retrieval")
def evaluate_retrieval(
    data: Annotated[
        Path,
        typer.Option(help="A set as BEIR lays it out, a folder of files with `docs`, or one file."),
    ],
    checkpoint: Annotated[str, typer.Option(help="Trained: ranks the union by latents.")] = "",
    base: Annotated[str, typer.Option(help="Base model, where it is not the noted one.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="First questions of a set.")] = None,
    dense: Annotated[Dense, typer.Option(help="What makes the vectors.")] = Dense.ENCODER,
    among: Annotated[
        Among, typer.Option(help="Search all passages of a file, or a question's own `docs`.")
    ] = Among.ALL,
    elasticsearch: Annotated[
        bool, typer.Option("--elasticsearch", help="BM25 on CLARA_ELASTICSEARCH_URL.")
    ] = False,
    vectors: Annotated[
        Path | None, typer.Option(help="Folder that keeps the vectors for the next time.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "",
    rate: Annotated[int | None, typer.Option(min=1, help="Tokens per latent row.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write the numbers.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them, .png.")] = None,
) -> None:
    """Search a set by words, by vectors and by both: Recall@k, MRR, nDCG; no server is needed."""
    from clara.commands.evaluate_retrieval import Request
    from clara.commands.evaluate_retrieval import evaluate as run

    request = Request(
        data,
        limit,
        dense,
        among,
        elasticsearch,
        vectors,
        out,
        plot,
        checkpoint=checkpoint,
        base=base,
        device=device,
        rate=rate,
    )
    run(request, settings(), console)


@app.command(cls=or_command(retrieval=retrieval_app))
def evaluate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help=".jsonl, .jsonl.gz.", exists=True, dir_okay=False),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="Folder or Hub name; empty: that of this installation.")
    ] = "",
    mode: Annotated[Reading, typer.Option(help="What the model reads.")] = Reading.LATENT,
    setting: Annotated[
        Setting, typer.Option(help="Oracle: the gold first; withheld: without it.")
    ] = Setting.NORMAL,
    ranker: Annotated[
        Ranker | None,
        typer.Option(help="What orders the candidates; latent for trained latents, else bm25."),
    ] = None,
    reader: Annotated[Reader, typer.Option(help="Who reads plain text.")] = Reader.BASE,
    top_k: Annotated[int, typer.Option(min=1, help="Passages read.")] = 5,
    limit: Annotated[int | None, typer.Option(min=1, help="First records of a file.")] = None,
    likelihood: Annotated[
        bool,
        typer.Option("--likelihood", help="Of the gold answers instead: nothing is generated."),
    ] = False,
    paraphrase: Annotated[
        bool, typer.Option("--paraphrase", help="Restate the passages of a stage 1 file instead.")
    ] = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of an answer: 64; of a restatement: a passage's.")
    ] = None,
    base: Annotated[str, typer.Option(help="Base model, where it is not the noted one.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "",
    rate: Annotated[int | None, typer.Option(min=1, help="Tokens per latent row.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write the numbers.")] = None,
    rows: Annotated[Path | None, typer.Option(help="Write every answer, JSON lines.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw cover-EM per set, .png.")] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Earlier --json results to show beside.", exists=True)
    ] = None,
) -> None:
    """Answer files of questions and score answers and ranking: EM, cover-EM, F1, Recall@k.

    `clara evaluate retrieval --data DIR` measures what a search finds.
    """
    from clara.commands.evaluate import Request, measure_of
    from clara.commands.evaluate import evaluate as run

    options = Options(mode, setting, ranker, reader, top_k, max_new_tokens or 64)
    request = Request(
        files=files or [],
        measure=measure_of(likelihood=likelihood, paraphrase=paraphrase),
        options=options,
        limit=limit,
        max_new_tokens=max_new_tokens,
        checkpoint=checkpoint,
        base=base,
        device=device,
        rate=rate,
        json=out,
        rows=rows,
        plot=plot,
        compare=compare or [],
    )
    run(request, settings(), console)


def _train(stage: Stage, given: Mapping[str, Any]) -> None:
    from clara.commands.train import request_of, train

    config = settings()
    stop = _stop_event()
    try:
        train(request_of(stage, given, config), config, console, stopped=stop.is_set)
    except Cancelled as error:
        errors.print(str(error), style="yellow", markup=False, highlight=False)
        raise typer.Exit(130) from None


for _stage in Stage:
    train_app.command(f"stage{_stage.value}")(stage_command(_stage, partial(_train, _stage)))


@train_app.command("default")
def train_default(
    data: Annotated[
        Path, typer.Option(help="Folder with stage1, stage2 and stage3 .jsonl(.gz).", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the whole recipe; begun or gone on with.")],
    minutes: Annotated[float, typer.Option(help="Of training, all parts together.")] = 60.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    processes: Annotated[
        int | None,
        typer.Option(help="That train together: one per GPU, or per core.", min=1, max=64),
    ] = None,
) -> None:
    """The recipe of the default checkpoint, all stages in a row, sized by a budget of minutes."""
    from clara.commands.train_default import train_default as run

    stop = _stop_event()
    run(
        data,
        out,
        settings(),
        console,
        minutes=minutes,
        device=device,
        seed=seed,
        stopped=stop.is_set,
        processes=processes,
    )


@train_app.command("curves")
def train_curves(
    out: Annotated[Path, typer.Argument(help="Folder of a training.", exists=True)],
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the numbers.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw them.")] = None,
) -> None:
    """Loss, dev scores and speed of a training, also while it runs."""
    from clara.commands.train import show_curves

    show_curves(out, console, json_out=json_out, png=png)


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


def _address(given: str) -> str:
    config = settings()
    return given or f"http://{config.api_host}:{config.api_port}"


def _stop_event(*, raises: bool = False) -> threading.Event:
    """Set by Ctrl-C and by a plain kill; with `raises`, either ends the program by exception."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        stop.set()
        if raises:
            raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop


def _wait(stop: threading.Event, seconds: float) -> None:
    if stop.wait(seconds):
        raise KeyboardInterrupt


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
