"""`clara train default`: the recipe of the shipped checkpoint, from files to a folder with card."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from clara.commands.train_display import Display
from clara.default_models import BASE, CHECKPOINT
from clara.settings import Settings

if TYPE_CHECKING:
    from clara.training.plan import Plan
    from clara.training.recipe import Recipe

READS_TEXT = True
"""Its generator has learned to answer in few words: from text, 15 of 26 questions of the sample
shop, where the base answers 6."""

PREFERS_TEXT = True
LATENT_WEIGHT = 0.125
"""As measured with the checkpoint that ships (BENCHMARKS.md, default checkpoint); one trained for
longer deserves a measurement of its own: `clara evaluate`, `scripts/bench_rerank.py`."""

LICENCE = "Apache-2.0 (weights); texts it was trained on: see its card"


def train_default(
    data: Path,
    out: Path,
    config: Settings,
    console: Console,
    *,
    minutes: float,
    device: str,
    seed: int,
    stopped: Callable[[], bool],
    processes: int | None = None,
) -> Path:
    """Run the recipe, or go on with it where it was cut off. Returns the checkpoint's folder.

    Args:
        data: folder with the three files.
        out: folder of the whole recipe.
        config: where the default base lies.
        console: told how it goes.
        minutes: of training, all parts together.
        device: to train on.
        seed: of everything drawn.
        stopped: asked between steps.
        processes: that train together; this one alone where None.
    Raises:
        InvalidTraining: a data file is missing, or `out` holds another recipe.
        ModelMissing: the default base is not on this machine.
        Whatever `clara.training.train.train` raises.
    """
    from clara.model.backbone import pick_device
    from clara.training.launch import launch
    from clara.training.recipe import Recipe
    from clara.training.train import train

    recipe = Recipe(
        data=data,
        out=out,
        base=config.base_model or str(config.models / BASE.folder),
        minutes=minutes,
        device=device,
        seed=seed,
        on_gpu=pick_device(device).type == "cuda",
    )
    plans = recipe.plans()
    for plan in plans:
        console.rule(f"{plan.out.name}: {plan.config.stage.title}")
        with Display(console) as display:
            if processes is None:
                trained = train(plan, on_event=display, stopped=stopped)
            else:
                trained = launch(plan, processes=processes, on_event=display, stopped=stopped)
    folder = _finished(trained.last, recipe, plans, config)
    console.print(f"checkpoint: {folder}", highlight=False, markup=False)
    return folder


def _finished(trained: Path, recipe: Recipe, plans: Sequence[Plan], config: Settings) -> Path:
    """The checkpoint of the last part with what was measured, its card and curves; its folder."""
    from clara.model import checkpoint as checkpoints
    from clara.training.card import card, write_card
    from clara.training.curves import plot

    made = checkpoints.load(trained)
    portable = replace(
        made.config,
        base=config.base_model or BASE.folder,
        min_score=_least_score(trained, recipe, plans[-1]),
        reads_text=READS_TEXT,
        prefers_text=PREFERS_TEXT,
        latent_weight=LATENT_WEIGHT,
        **_refusal_margins(trained, recipe, plans[-2]),
    )
    final = replace(made, config=portable, name=CHECKPOINT, licence=LICENCE)
    folder = recipe.out / CHECKPOINT
    shutil.rmtree(folder, ignore_errors=True)
    checkpoints.save(final, folder)
    write_card(folder, card(final, plans))
    for plan in plans:
        plot(plan.out, folder / f"{plan.out.name}.png")
    return folder


def _least_score(trained: Path, recipe: Recipe, plan: Plan) -> float:
    """Of the records of the last part that were held out."""
    from clara.model import checkpoint as checkpoints
    from clara.model.models import load_models
    from clara.training.calibration import least_score
    from clara.training.data import read

    models = load_models(checkpoints.load(trained, base=recipe.base), device=recipe.device)
    return least_score(models, [*read(plan.dev, plan.config.stage)])


def _refusal_margins(trained: Path, recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """Of the records that were held out of the part that taught refusing."""
    from clara.model import checkpoint as checkpoints
    from clara.model.models import load_models
    from clara.training.calibration import refusal_margin
    from clara.training.data import read

    made = checkpoints.load(trained, base=recipe.base)
    records = [*read(plan.dev, plan.config.stage)]
    models = {r: load_models(made, device=recipe.device, rate=r) for r in made.config.rates}
    by_rate = [refusal_margin(models[r], records, text=False) for r in models]
    text = refusal_margin(models[made.config.compr_rate], records, text=True)
    return {"text_refusal_margin": text, "refusal_margins": tuple(by_rate)}
