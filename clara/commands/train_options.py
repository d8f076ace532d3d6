"""The options of `clara train stage1|stage2|stage3`: one table, and the commands made of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import typer

from clara.training.config import CONFIGS
from clara.training.records import Stage

ALL = tuple(Stage)
ONE, TWO, THREE = Stage.COMPRESSION, Stage.INSTRUCTION, Stage.END_TO_END


@dataclass(frozen=True)
class Choice:
    """A field of a stage's configuration, as an option."""

    path: str
    """Of the field, with dots."""
    kind: Any
    help: str
    panel: str
    flags: tuple[str, ...] = ()
    """By the field's name where empty."""
    stages: tuple[Stage, ...] = ALL

    @property
    def name(self) -> str:
        """Of the command's parameter."""
        return self.path.rpartition(".")[2]


LATENTS, STEPS, LENGTH, LEARNING = "Latents of a new checkpoint", "Steps", "Length", "Learning"

CHOICES = (
    Choice("latents.kind", Literal["memory", "pooled"], "Memory tokens as published, or weighted "
           "means.", LATENTS),
    Choice("latents.compr_rate", int, "Tokens per row of a latent.", LATENTS,
           ("--compr-rate", "--compress-rate")),
    Choice("latents.rates", str, "Several rates, such as 4,16; pooled latents alone.", LATENTS),
    Choice("latents.doc_max_length", int, "Longest document, in tokens.", LATENTS),
    Choice("latents.contextual", bool, "Contextual states in pooled latents.", LATENTS),
    Choice("optimiser.learning_rate", float, "At its highest.", STEPS),
    Choice("optimiser.schedule", Literal["cosine", "constant"], "Of the learning rate.", STEPS),
    Choice("optimiser.warmup", float, "Share of the training in which the rate rises.", STEPS),
    Choice("optimiser.batch_size", int, "Records per step, over all processes.", STEPS),
    Choice("optimiser.micro_tokens", int, "Most token places of one pass: decides memory.", STEPS),
    Choice("optimiser.recompute", bool, "Gradient checkpointing: less memory, more time.", STEPS),
    Choice("length.epochs", float, "Times every record is read.", LENGTH),
    Choice("length.max_steps", int, "Most steps.", LENGTH),
    Choice("length.minutes", float, "Most minutes in steps, over all resumptions.", LENGTH),
    Choice("length.score_every", int, "Steps between two dev scores; 0 for never.", LENGTH),
    Choice("length.save_every", int, "Steps between two states: what a kill loses.", LENGTH),
    Choice("length.patience", int, "Scores without a better one before it ends.", LENGTH),
    Choice("length.do_eval_gen", bool, "Generate answers at every score: cover-EM.", LENGTH),
    Choice("length.eval_gen_records", int, "Dev records answered for it.", LENGTH),
    Choice("lora_r", int, "Rank of the adapters.", LEARNING),
    Choice("dropout", float, "Of what an adapter reads.", LEARNING),
    Choice("max_len", int, "Longest prompt with its answer, in tokens.", LEARNING),
    Choice("seed", int, "Of everything that is drawn.", LEARNING),
    Choice("dtype", Literal["auto", "bfloat16", "float32"], "Of the frozen base.", LEARNING),
    Choice("mse_loss", bool, "Draw the states at memory tokens to those of the text.", LEARNING,
           stages=(ONE, TWO)),
    Choice("qa_loss", bool, "Use records of questions, or restatements alone.", LEARNING,
           stages=(ONE,)),
    Choice("pairs_as", Literal["list", "single"], "A document's questions in one answer, or each "
           "alone.", LEARNING, stages=(ONE,)),
    Choice("restate_share", float, "Documents also told again word for word.", LEARNING,
           stages=(ONE,)),
    Choice("generation_top_k", int, "Documents an answer is made from.", LEARNING,
           stages=(TWO, THREE)),
    Choice("new_generator", bool, "Begin with a new generator, or go on with stage 1's.", LEARNING,
           stages=(TWO,)),
    Choice("temperature", float, "Of the selection, in score units.", LEARNING, stages=(THREE,)),
    Choice("retrieval_weight", float, "Of a loss on pos_index beside the answer's.", LEARNING,
           stages=(THREE,)),
)  # fmt: skip


def choices_of(stage: Stage) -> list[Choice]:
    """The fields of one stage."""
    return [choice for choice in CHOICES if stage in choice.stages]


def stage_command(stage: Stage, run: Callable[[Mapping[str, Any]], None]) -> Callable[..., None]:
    """The command of one stage; `run` is given every option by its parameter's name."""

    def command(**given: Any) -> None:
        run(given)

    fields = [_parameter(choice, stage) for choice in choices_of(stage)]
    parameters = [*_files(stage), *fields, *_running()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__doc__ = f"Train {stage.title}; the same command again goes on where it was cut off."
    return command


def _parameter(choice: Choice, stage: Stage) -> inspect.Parameter:
    dashed = choice.name.replace("_", "-")
    plain = f"--{dashed}/--no-{dashed}" if choice.kind is bool else f"--{dashed}"
    return _option(
        choice.name,
        choice.kind | None,
        choice.flags or (plain,),
        choice.help,
        panel=choice.panel,
        shown=_default(stage, choice.path),
    )


def _default(stage: Stage, path: str) -> str | bool:
    if path.startswith("latents.") and stage is not ONE:
        return "the checkpoint's"
    found: Any = CONFIGS[stage]()
    for name in path.split("."):
        found = getattr(found, name)
    if isinstance(found, bool):
        return "on" if found else "off"
    return False if found in (None, ()) else str(found)


def _files(stage: Stage) -> Iterator[inspect.Parameter]:
    many = list[Path]
    yield _option("data", many, ("--data",), "Training records; may be given again.", ...)
    yield _option("out", Path, ("--out",), "Folder of this training, new or to go on in.", ...)
    yield _option("dev", many, ("--dev",), "Records to score on; may be given again.", [])
    what = "Base model: folder or Hub name; the checkpoint's where empty."
    yield _option("base", str, ("--base",), what, "")
    flags = ("--checkpoint", "--pretrain-checkpoint")
    what = "Checkpoint to go on from" + ("." if stage is ONE else ", needed.")
    yield _option("checkpoint", str, flags, what, "")
    what = "Value of `source` to leave out; may be given again."
    yield _option("exclude_source", list[str], ("--exclude-source",), what, [])
    yield _option("limit", int | None, ("--limit",), "First records of each file.")
    yield _option("dev_limit", int, ("--dev-limit",), "The same of each dev file.", 200)
    yield _option("name", str, ("--name",), "Of the checkpoint; the folder's where empty.", "")
    what = "A whole configuration, JSON; other options go before it."
    yield _option("config", Path | None, ("--config",), what)
    what = "Any field by its path, such as optimiser.clip=0.5; may be given again."
    yield _option("set_", list[str], ("--set",), what, [])


def _running() -> Iterator[inspect.Parameter]:
    panel = "Processes"
    what = "auto, cpu, cuda, cuda:1."
    yield _option("device", str, ("--device",), what, "auto", panel=panel)
    what = "Processes on this machine, one per GPU; 1 where not given."
    yield _option("processes", int | None, ("--processes",), what, panel=panel)
    what = "File of `accelerate config`, such as for several hosts."
    yield _option("accelerate_config", Path | None, ("--accelerate-config",), what, panel=panel)
    what = "Train in this very process, without accelerate's launcher."
    yield _option("in_process", bool, ("--in-process",), what, False, panel=panel)


def _option(
    name: str,
    kind: Any,
    flags: Sequence[str],
    told: str,
    default: Any = None,
    *,
    panel: str | None = None,
    shown: str | bool = True,
) -> inspect.Parameter:
    files = kind is Path | None or kind == list[Path]
    made = typer.Option(
        default,
        *flags,
        help=told,
        show_default=shown,
        rich_help_panel=panel,
        exists=files,
        dir_okay=not files,
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=made, annotation=kind)
