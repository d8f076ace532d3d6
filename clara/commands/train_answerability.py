"""`clara train answerability`: teaches the sentence encoder to tell what answers a question."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from clara.default_models import BASE, SENTENCE_ENCODER, folder_of
from clara.errors import InvalidInput
from clara.settings import Settings

if TYPE_CHECKING:
    from clara.answerability.files import Kept
    from clara.answerability.training import Material, Round, Training
    from clara.training.records import QuestionRecord

ADAPTER = "adapter"
"""Folder in a training's that CLARA_ANSWERABILITY names."""


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    data: Sequence[Path]
    """Records of stage 2: questions with candidates."""
    told: Sequence[Path]
    """Records of stage 1: more questions."""
    dev: Path
    """Records of stage 2 on which the bound is measured; their questions are not learned from."""
    out: Path
    begin: Path | None
    """Folder of an adapter to go on with."""
    share: float
    """Of the way from there to what was learned that is gone: 1 for all of it."""
    exclude_sources: Sequence[str]
    minutes: float
    learning_rate: float
    wrongly: float
    """Share of the answerable questions that the bound refuses."""
    seed: int
    device: str


def train_answerability(
    request: Request, config: Settings, console: Console, *, stopped: Callable[[], bool]
) -> Path:
    """Train, or go on with it where it was cut off; measure the bound. Returns the folder.

    Raises:
        ModelMissing: the encoder, or the default base whose words questions are changed with, is
            not on this machine.
        InvalidDataset, InvalidInput: a file of records is damaged or not there; or a share of a
            way that begins with nothing.
        InvalidTraining: `out` is of a training with other parameters.
        InvalidCheckpoint: `begin` does not fit the encoder.
        Cancelled: `stopped` said so; its state is kept.
    """
    from clara.answerability.files import encoder_hash, load
    from clara.answerability.training import Config, Training
    from clara.model.backbone import pick_device

    if request.share < 1 and request.begin is None:
        raise InvalidInput(
            f"share is {request.share:g}, and there is nothing that the way begins with",
            field="share",
            remedy="Name the adapter to go on with: --begin DIR",
        )
    encoder = _encoder(config)
    begin = load(request.begin, encoder_hash(encoder)) if request.begin else None
    held = _held(request)
    material = _material(request, config, held)
    asked = len({one.question for one in material.questions})
    console.print(f"{asked:,} questions, {len(held):,} held out", highlight=False)
    training = Training(
        material,
        encoder,
        request.out,
        Config(request.minutes, learning_rate=request.learning_rate, seed=request.seed),
        begin=begin,
        device=str(pick_device(request.device)),
    )
    kept = _trained(training, begin, request.share, console, stopped)
    return _measured(kept, training, held, request, console)


def _trained(
    training: Training,
    begin: Kept | None,
    share: float,
    console: Console,
    stopped: Callable[[], bool],
) -> Kept:
    """Run a training to its end; what is to be kept, before its bound is known."""

    def tell(done: Round) -> None:
        console.print(
            f"round {done.number + 1}  loss {done.loss:.3f}  span {done.span:.3f}  "
            f"{100 * min(training.share, 1.0):.0f} %",
            highlight=False,
        )

    kept = training.run(tell=tell, stopped=stopped)
    return kept if begin is None or share == 1 else kept.on_the_way(begin, share)


def _measured(
    kept: Kept,
    training: Training,
    held: Sequence[QuestionRecord],
    request: Request,
    console: Console,
) -> Path:
    """Save it with the bound that it has on what was held out."""
    from clara.answerability.encoder import ReadingEncoder
    from clara.answerability.files import save
    from clara.training.calibration import least_answerability

    final, unmeasured = request.out / ADAPTER, request.out / ".unmeasured"
    shutil.rmtree(unmeasured, ignore_errors=True)
    save(kept, unmeasured)
    try:
        reader = ReadingEncoder(training.encoder, unmeasured, device=training.device)
        least = least_answerability(reader, held, most=request.wrongly)
    finally:
        shutil.rmtree(unmeasured, ignore_errors=True)
    shutil.rmtree(final, ignore_errors=True)
    save(replace(kept, least=least), final)
    console.print(f"refuses below {least}: {final}", highlight=False, markup=False)
    return final


def _encoder(config: Settings) -> str | Path:
    if config.sentence_encoder:
        return config.sentence_encoder
    return folder_of(SENTENCE_ENCODER, config.models).absolute()


def _material(request: Request, config: Settings, held: Sequence[QuestionRecord]) -> Material:
    from clara.answerability.examples import answered, weighted
    from clara.answerability.training import Material
    from clara.model.backbone import embedding_of, load_backbone
    from clara.model.hub import local_folder
    from clara.training.changed import vocabulary
    from clara.training.data import read
    from clara.training.narrowed import additions
    from clara.training.records import Stage

    excluded = request.exclude_sources
    asked = read(request.data, Stage.INSTRUCTION, exclude_sources=excluded)
    told = read(request.told, Stage.COMPRESSION, exclude_sources=excluded) if request.told else []
    questions = answered(
        asked,
        [one for one in told if one.kind == "qa"],
        held_out={one.question for one in held},
        seed=request.seed,
    )
    base = config.base_model or folder_of(BASE, config.models).absolute()
    backbone = load_backbone(local_folder(base), n_mem=1, doc_max_length=config.doc_max_length)
    words = vocabulary(backbone.tokens, embedding_of(backbone.model).weight)
    return Material(weighted(questions), words, additions(one.question for one in questions))


def _held(request: Request) -> list[QuestionRecord]:
    from clara.training.data import read
    from clara.training.records import Stage

    return read(request.dev, Stage.INSTRUCTION)
