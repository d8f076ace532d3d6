"""Commands that score a checkpoint, and what a search finds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clara.cli.shared import console
from clara.commands.first_word import or_command
from clara.evaluation.options import Among, Dense, Options, Ranker, Reader, Reading, Setting
from clara.settings import settings

app = typer.Typer()
retrieval_app = typer.Typer(add_completion=False)


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
