"""Commands that check training records, train, and show how it goes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from clara.cli.shared import console, errors, stop_event
from clara.commands.train_options import stage_command
from clara.errors import Cancelled
from clara.settings import settings
from clara.training.records import Stage

data_app = typer.Typer(no_args_is_help=True, help="Files of training records.")
train_app = typer.Typer(no_args_is_help=True, help="Train a checkpoint, stage by stage.")


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


def _train(stage: Stage, given: Mapping[str, Any]) -> None:
    from clara.commands.train import request_of, train

    config = settings()
    stop = stop_event()
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

    stop = stop_event()
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


@train_app.command("answerability")
def train_answerability(
    data: Annotated[
        list[Path], typer.Option(help="Records of stage 2: questions with candidates.", exists=True)
    ],
    dev: Annotated[
        Path, typer.Option(help="Records of stage 2 to measure the bound on.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the training; begun or gone on with.")],
    told: Annotated[
        list[Path] | None, typer.Option(help="Records of stage 1: more questions.", exists=True)
    ] = None,
    begin: Annotated[Path | None, typer.Option(help="Folder of an adapter to go on with.")] = None,
    share: Annotated[
        float,
        typer.Option(help="Of the way from that one to what was learned; 1 is all.", min=0, max=1),
    ] = 1.0,
    exclude_source: Annotated[
        list[str] | None, typer.Option(help="Value of `source` to leave out.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="Of steps; 0 measures the bound of what it begins with.", min=0)
    ] = 80.0,
    learning_rate: Annotated[float, typer.Option(help="Peak.", min=1e-7, max=1.0)] = 8e-4,
    wrongly: Annotated[
        float,
        typer.Option(help="Share of answerable questions that the bound refuses.", min=0, max=1),
    ] = 0.05,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Teach the sentence encoder to tell whether a passage answers a question."""
    from clara.commands.train_answerability import Request
    from clara.commands.train_answerability import train_answerability as run

    stop = stop_event()
    request = Request(
        data=data,
        told=told or [],
        dev=dev,
        out=out,
        begin=begin,
        share=share,
        exclude_sources=exclude_source or [],
        minutes=minutes,
        learning_rate=learning_rate,
        wrongly=wrongly,
        seed=seed,
        device=device,
    )
    try:
        run(request, settings(), console, stopped=stop.is_set)
    except Cancelled as error:
        errors.print(str(error), style="yellow", markup=False, highlight=False)
        raise typer.Exit(130) from None


@train_app.command("curves")
def train_curves(
    out: Annotated[Path, typer.Argument(help="Folder of a training.", exists=True)],
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the numbers.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw them.")] = None,
) -> None:
    """Loss, dev scores and speed of a training, also while it runs."""
    from clara.commands.train import show_curves

    show_curves(out, console, json_out=json_out, png=png)
