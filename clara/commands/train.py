"""`clara train`: one stage from files to a checkpoint, watched from here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from clara.commands.train_display import Display
from clara.commands.train_options import choices_of
from clara.default_models import BASE, is_there
from clara.errors import InvalidTraining
from clara.settings import Settings
from clara.training.config import from_dict
from clara.training.curves import curves, left_s, plot
from clara.training.outcome import OUTPUT
from clara.training.plan import Plan, check, check_latents
from clara.training.progress import Trained
from clara.training.records import Stage


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    plan: Plan
    processes: int | None = None
    accelerate_config: Path | None = None
    in_process: bool = False


def request_of(stage: Stage, given: Mapping[str, Any], config: Settings) -> Request:
    """Options of a stage's command as a request.

    Raises:
        InvalidTraining: a field that is unknown, out of range, or not the checkpoint's.
    """
    chosen = _chosen(stage, given)
    raw = _from_file(stage, given["config"])
    for path, value in chosen.items():
        _put(raw, path, value)
    for entry in given["set_"]:
        _put(raw, *_assigned(entry))
    base = given["base"] or ("" if given["checkpoint"] else _default_base(config))
    plan = Plan(
        config=from_dict(raw),
        data=tuple(given["data"]),
        out=given["out"],
        base=base,
        checkpoint=given["checkpoint"],
        dev=tuple(given["dev"]),
        exclude_sources=tuple(given["exclude_source"]),
        limit=given["limit"],
        dev_limit=given["dev_limit"],
        name=given["name"],
        device=given["device"],
    )
    check(plan)
    _check_kept(plan.checkpoint, chosen)
    return Request(plan, given["processes"], given["accelerate_config"], given["in_process"])


def train(
    request: Request, config: Settings, console: Console, *, stopped: Callable[[], bool]
) -> Trained:
    """Train, show how far it is, and say what can be done next.

    Raises:
        Whatever `clara.training.launch.launch` raises.
    """
    plan = request.plan
    where = "" if request.in_process else f"; what its processes say: {plan.out / OUTPUT}"
    told = f"{plan.config.stage.title} into {plan.out}{where}"
    console.print(told, highlight=False, markup=False)
    with Display(console) as display:
        if request.in_process:
            from clara.training.train import train as run

            found = run(plan, on_event=display, stopped=stopped)
        else:
            from clara.training.launch import launch

            found = launch(
                plan,
                processes=request.processes,
                accelerate_config=request.accelerate_config,
                on_event=display,
                stopped=stopped,
                threads=config.torch_threads or None,
            )
    _show_end(plan, found, console)
    return found


def show_curves(out: Path, console: Console, *, json_out: Path | None, png: Path | None) -> None:
    """Write or draw a training's curves; without either, say how it stands.

    Raises:
        InvalidInput: `out` is no folder of a training, or a file cannot be written.
    """
    found = curves(out)
    if json_out:
        from clara.evaluation.report import write_text

        write_text(json_out, json.dumps(found) + "\n", "--json")
    if png:
        plot(out, png)
    for path in (json_out, png):
        if path:
            console.print(f"written: {path}", highlight=False, markup=False)
    if not json_out and not png:
        console.print(_standing(found), highlight=False)


def _standing(found: Mapping[str, Any]) -> str:
    if not found["steps"]:
        return "no step was done yet"
    left = left_s(found) or 0.0
    parts = [
        f"step {found['steps'][-1]} of {found['of']}",
        f"loss {found['loss'][-1]:.3f}",
        f"{found['tokens_per_second'][-1]:,.0f} tokens/s",
        f"about {left / 60:.0f} min left" if left else "done",
    ]
    if found["best"]:
        parts.append(f"best dev score {found['best']['score']:.3f} at {found['best']['step']}")
    return ", ".join(parts)


def _chosen(stage: Stage, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that options name, by path; those not given are left out."""
    found = {choice.path: given[choice.name] for choice in choices_of(stage)}
    values = {path: value for path, value in found.items() if value is not None}
    if "latents.rates" in values:
        values["latents.rates"] = _numbers(values["latents.rates"])
    return values


def _numbers(told: str) -> list[int]:
    try:
        return [int(part) for part in told.split(",")]
    except ValueError as error:
        raise InvalidTraining(
            f"--rates is {told!r}; whole numbers are expected, such as 4,16", field="--rates"
        ) from error


def _from_file(stage: Stage, path: Path | None) -> dict[str, Any]:
    """A configuration out of a file, or an empty one, with the stage's number."""
    if path is None:
        return {"stage": stage.value}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidTraining(f"{path} cannot be read: {error}", field="--config") from error
    if not isinstance(found, dict):
        raise InvalidTraining(f"{path} holds no JSON object", field="--config")
    if found.get("stage", stage.value) != stage.value:
        raise InvalidTraining(
            f"{path} configures stage {found['stage']}, not {stage.value}", field="--config"
        )
    return {"stage": stage.value, **found}


def _assigned(entry: str) -> tuple[str, Any]:
    """`path=value`, the value as JSON or, where it is none, as text."""
    path, equals, told = entry.partition("=")
    if not equals or not path:
        raise InvalidTraining(
            f"--set {entry!r} is no assignment", field="--set", remedy="Write path=value"
        )
    try:
        return path, json.loads(told)
    except ValueError:
        return path, told


def _put(raw: dict[str, Any], path: str, value: Any) -> None:
    *above, name = path.split(".")
    place = raw
    for step in above:
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            raise InvalidTraining(f"{path} lies below {step}, which has no fields", field=path)
    place[name] = value


def _default_base(config: Settings) -> str:
    if config.base_model:
        return config.base_model
    return str(config.models / BASE.folder) if is_there(BASE, config.models) else ""


def _check_kept(checkpoint: str, chosen: Mapping[str, Any]) -> None:
    """Refuse options that a checkpoint on this machine has decided already."""
    asked = {
        path.removeprefix("latents."): value
        for path, value in chosen.items()
        if path.startswith("latents.")
    }
    for name in ("manifest.json", "config.json") if checkpoint and asked else ():
        path = Path(checkpoint) / name
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            kept = {"kind": "memory", **found.get("config", found)}
            check_latents(asked, kept, checkpoint)
            return


def _show_end(plan: Plan, found: Trained, console: Console) -> None:
    done = found.progress
    lines = [f"done after {done.step} steps, {done.seconds / 60:.1f} min, {done.tokens:,} tokens"]
    if done.skipped:
        lines.append(f"records that left nothing to learn from: {done.skipped:,}")
    lines.append(f"last checkpoint: {found.last}")
    if done.best is not None:
        lines.append(f"best checkpoint: {found.best} (step {done.best_step}, {done.best:.3f})")
    lines.append(f"next: {shlex.join(following(plan, found))}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def following(plan: Plan, found: Trained) -> Sequence[str]:
    """The command that comes after a stage: the next one, or the evaluation."""
    base = ["--base", plan.base] if plan.base else []
    kept = ["--checkpoint", str(found.best), *base]
    if plan.config.stage is Stage.END_TO_END:
        return ["clara", "evaluate", "FILE.jsonl", *kept]
    stage = f"stage{plan.config.stage + 1}"
    out = ["--out", str(plan.out.with_name(stage))]
    return ["clara", "train", stage, "--data", "FILE.jsonl", *kept, *out]
