"""The curves of a training, out of its log: also while it runs, and after a kill."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clara.errors import InvalidInput
from clara.training.events import NAME, Event, events, standing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMOOTHED = 0.9
"""Share of the past in a smoothed loss; single batches jump."""

NOT_SCORES = ("scored", "at", "best")


def curves(out: Path) -> dict[str, Any]:
    """What a training's log shows.

    Returns:
        `of` (steps of the whole), `share` (done), `at` (seconds in steps), and lists with an entry
        per step: `steps`, `loss`, `rate`, `gradient`, `tokens_per_second`, and `parts` by name;
        `dev` has an entry per score: `steps` and each score by name; `best` is the dev score that
        is lowest, with its step, or None; `resumed` are the steps it went on from.
    Raises:
        InvalidInput: `out` is no folder of a training.
    """
    if not (out / NAME).exists() and not (out / "config.json").exists():
        raise InvalidInput(
            f"{out} holds no training", field=str(out), remedy="Give the --out of a training"
        )
    found = standing(events(out))
    steps = [event for event in found if "number" in event]
    scores = [event for event in found if "scored" in event]
    begun = [event for event in found if "begun" in event]
    last: Event = steps[-1] if steps else {}
    return {
        "of": begun[-1].get("of", 0) if begun else 0,
        "share": last.get("share", 0.0),
        "at": last.get("at", 0.0),
        "steps": [event["number"] for event in steps],
        "loss": [event["loss"] for event in steps],
        "rate": [event["rate"] for event in steps],
        "gradient": [event["gradient"] for event in steps],
        "tokens_per_second": [speed(event) for event in steps],
        "parts": _columns([event["parts"] for event in steps]),
        "dev": {"steps": [event["scored"] for event in scores], **_columns(_scores(scores))},
        "best": _best(scores),
        "resumed": [event["begun"] for event in begun if event["begun"]],
    }


def speed(step: Event) -> float:
    """Token places per second of one step."""
    return float(step["places"] / max(step["seconds"], 1e-9))


def left_s(step: Event) -> float | None:
    """Seconds in steps until the end, as far as can be told after a step."""
    share, at = step.get("share", 0.0), step.get("at", 0.0)
    return at * (1 - share) / share if share else None


def plot(out: Path, png: Path) -> Path:
    """Draw loss with dev scores, its parts, and speed with learning rate.

    Args:
        out: folder of a training, running or not.
        png: a picture of a kind its suffix names; its folder is made.
    Raises:
        InvalidInput: `out` is no folder of a training, or the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = curves(out)
    figure = Figure(figsize=(9, 9), layout="constrained")
    FigureCanvasAgg(figure)
    loss, parts, speeds = figure.subplots(3, 1, sharex=True)
    _draw_loss(loss, found)
    for name, values in found["parts"].items():
        parts.plot(found["steps"], smoothed(values), label=name)
    _named(parts, "parts of the loss")
    speeds.plot(found["steps"], found["tokens_per_second"], label="tokens per second")
    _named(speeds, "tokens per second")
    rates = speeds.twinx()
    rates.plot(found["steps"], found["rate"], color="tab:gray", linestyle=":")
    rates.set_ylabel("learning rate (dotted)")
    speeds.set_xlabel("step")
    done = found["steps"][-1] if found["steps"] else 0
    figure.suptitle(f"{out.resolve().name}: step {done} of {found['of']}")
    part = png.with_name(f".part.{png.name}")
    try:
        png.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(part, dpi=120)
        part.replace(png)
    except (OSError, ValueError) as error:  # ValueError: a kind of picture matplotlib cannot write
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(
            f"{png} cannot be written: {reason}", field="--png", remedy="Name another file."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return png


def smoothed(values: Sequence[float]) -> list[float]:
    """A running mean in which the past fades; its beginning is not drawn to zero."""
    found: list[float] = []
    total = weight = 0.0
    for value in values:
        total = SMOOTHED * total + (1 - SMOOTHED) * value
        weight = SMOOTHED * weight + (1 - SMOOTHED)
        found.append(total / weight)
    return found


def _draw_loss(axes: Axes, found: Mapping[str, Any]) -> None:
    axes.plot(found["steps"], found["loss"], alpha=0.3, linewidth=0.8, color="tab:blue")
    axes.plot(found["steps"], smoothed(found["loss"]), color="tab:blue", label="loss")
    dev = found["dev"]
    for name, colour in (("score", "tab:green"), ("wrong", "tab:red")):
        if name in dev:
            axes.plot(dev["steps"], dev[name], "o-", color=colour, label=f"dev {name}")
    for step in found["resumed"]:
        axes.axvline(step, color="tab:gray", linewidth=0.5)
    _named(axes, "nats per token")
    if "cover_em" in dev:
        answers = axes.twinx()
        percent = [math.nan if value is None else 100 * value for value in dev["cover_em"]]
        answers.plot(dev["steps"], percent, "s--", color="tab:purple")
        answers.set_ylabel("cover-EM, % (dashed)")
        answers.set_ylim(bottom=0)


def _named(axes: Axes, what: str) -> None:
    axes.set_ylabel(what)
    if axes.lines:
        axes.legend()


def _scores(events_: Sequence[Event]) -> list[dict[str, float]]:
    return [{k: v for k, v in event.items() if k not in NOT_SCORES} for event in events_]


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    """Every name's values, None where a row has none."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _best(scores: Sequence[Event]) -> dict[str, float] | None:
    found = [(event["score"], event["scored"]) for event in scores if event.get("best")]
    return {"score": min(found)[0], "step": min(found)[1]} if found else None
