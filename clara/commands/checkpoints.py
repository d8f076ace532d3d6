"""`clara checkpoints`: convert between the two forms, show what one holds, verify that it works."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clara.default_models import BASE, CHECKPOINT, default_checkpoint, is_there
from clara.errors import ClaraError, InvalidInput, ModelMissing
from clara.settings import Settings

if TYPE_CHECKING:
    from clara.model.checkpoint import Checkpoint
    from clara.model.summary import Part, Summary

DEFAULT = "default"
"""Instead of a path: the checkpoint of this installation."""


class Form(StrEnum):
    """How a checkpoint's folder is laid out."""

    OWN = "own"
    """Safetensors and a manifest."""
    ORIGINAL = "original"
    """As the published CLaRa models."""


class Precision(StrEnum):
    """What tensors are written in."""

    BFLOAT16 = "bfloat16"
    STORED = "stored"
    """Whatever they are in."""


@dataclass(frozen=True)
class Source:
    """A checkpoint as named on the command line."""

    path: str
    """Folder, Hub name with sub-folder, or `default`."""
    base: str = ""
    """Folder or Hub name of its base, where the noted one is not to be found."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""


@dataclass(frozen=True)
class Opened:
    """A checkpoint read, and its base if that is at hand."""

    checkpoint: Checkpoint
    folder: Path
    base: Path | None


def show(source: Source, config: Settings, console: Console, *, as_json: bool) -> None:
    """Print what a checkpoint holds. Raises ClaraError where it cannot be read."""
    from clara.model.fit import hash_of_base
    from clara.model.summary import summarise

    found = open_checkpoint(source, config)
    hashed = found.checkpoint.base_hash
    if found.base is not None:
        hashed = hash_of_base(found.checkpoint, found.base, cache=_hashes(config))
    summary = summarise(found.checkpoint, found.folder, base=found.base, base_hash=hashed)
    if as_json:
        console.out(json.dumps(summary.as_dict(), indent=2), highlight=False)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _lines(summary):
        table.add_row(label, Text(value))
    console.print(table)


def convert(
    source: Source,
    target: Path,
    form: Form,
    config: Settings,
    console: Console,
    *,
    precision: Precision = Precision.BFLOAT16,
    licence: str = "",
) -> Path:
    """Write a checkpoint in another form. Our own form keeps every tensor as it is stored.

    Args:
        source: the checkpoint.
        target: folder to make.
        form: to write.
        config: of this installation.
        console: for what is worth knowing.
        precision: of the original form.
        licence: of the weights, where their folder does not say.
    Raises:
        ClaraError: the source cannot be read, does not fit its base, or cannot be told in `form`;
            or `licence` contradicts the one it has.
    """
    from clara.model.checkpoint import save

    found = open_checkpoint(source, config)
    checkpoint = _licensed(found.checkpoint, licence)
    if found.base is not None:
        checkpoint = _known_base(checkpoint, found.base, config)
    if form is Form.ORIGINAL:
        written = _write_original(checkpoint, found.base, target, precision, console)
    else:
        written = save(checkpoint, target)
        if checkpoint.base_hash is None:
            _note(console, "the base is not at hand (--base): neither hash nor fingerprint noted")
    for note in checkpoint.notes:
        _note(console, note)
    if not checkpoint.licence:
        _note(console, "the licence is unknown; --licence notes one")
    console.print(Text(f"{form.value} form in {written}"))
    return written


def verify(source: Source, config: Settings, console: Console, *, device: str = "") -> None:
    """Check a checkpoint from its files to an answer, a line each. Raises the first ClaraError."""
    from clara.model.verify import verify as run

    found = open_checkpoint(source, config)
    base = found.base or _no_base(found.checkpoint)
    steps = run(
        found.checkpoint,
        found.folder,
        base,
        device=device or config.device,
        cache=_hashes(config),
    )
    for name, detail in steps:
        console.print(f"[green]ok  [/] {name:<11}", end=" ")
        console.print(detail, markup=False, highlight=False)
    for note in found.checkpoint.notes:
        _note(console, note)


def open_checkpoint(source: Source, config: Settings) -> Opened:
    """Read a checkpoint and look for its base.

    Raises:
        ModelMissing: nothing there; or no default checkpoint.
        InvalidCheckpoint: it cannot be right.
    """
    from clara.model.checkpoint import load
    from clara.model.hub import local_folder

    named = _default(config) if source.path == DEFAULT else source.path
    folder = local_folder(named, revision=source.revision)
    checkpoint = load(named, revision=source.revision)
    if source.base:
        return Opened(checkpoint, folder, local_folder(source.base))
    return Opened(checkpoint, folder, _base_at_hand(checkpoint, config))


def _default(config: Settings) -> str:
    found = config.checkpoint or default_checkpoint()
    if not found:
        raise ModelMissing(
            "this installation has no default checkpoint: CLARA_CHECKPOINT is not set, and "
            f"checkpoints/{CHECKPOINT} is not in the source tree",
            field="CLARA_CHECKPOINT",
            remedy="Name a checkpoint, or set CLARA_CHECKPOINT to one",
        )
    return str(found)


def _base_at_hand(checkpoint: Checkpoint, config: Settings) -> Path | None:
    """The base on this machine, without asking the Hub.

    The noted one is taken by its name; others only where their hash is the noted one.
    """
    from clara.model.fingerprints import base_hash
    from clara.model.hub import local_folder

    default = str(config.models / BASE.folder) if is_there(BASE, config.models) else ""
    for named in (checkpoint.config.base, config.base_model, default):
        try:
            folder = local_folder(named, fetch=False)
            hashed = base_hash(folder, cache=_hashes(config))
        except ClaraError:  # not there, or no base
            continue
        if hashed == checkpoint.base_hash:
            return folder
        if checkpoint.base_hash is None and named == checkpoint.config.base:
            return folder
    return None


def _no_base(checkpoint: Checkpoint) -> Path:
    raise ModelMissing(
        f"the base of {checkpoint.name} is not at hand: noted are {checkpoint.config.base!r} and "
        f"{'no hash' if checkpoint.base_hash is None else f'hash {checkpoint.base_hash}'}",
        field="--base",
        remedy="Name its folder, or its Hub name, with --base",
    )


def _known_base(checkpoint: Checkpoint, base: Path, config: Settings) -> Checkpoint:
    """The checkpoint with the hash of its base, once everything in it fits that base."""
    from clara.model.fit import check_fits, hash_of_base

    hashed = hash_of_base(checkpoint, base, cache=_hashes(config))
    check_fits(checkpoint, base)
    return replace(checkpoint, base_hash=hashed)


def _write_original(
    checkpoint: Checkpoint, base: Path | None, target: Path, precision: Precision, console: Console
) -> Path:
    import torch

    from clara.model import original

    folder = base or _no_base(checkpoint)
    dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else None
    written = original.write(checkpoint, target, base=folder, dtype=dtype)
    if dtype is not None and original.rounds(checkpoint, folder, dtype):
        _note(console, "values were rounded to bfloat16; --dtype stored keeps them")
    return written


def _licensed(checkpoint: Checkpoint, licence: str) -> Checkpoint:
    if licence and checkpoint.licence not in ("", licence):
        raise InvalidInput(
            f"{checkpoint.name} is under {checkpoint.licence!r}, not {licence!r}",
            field="--licence",
            remedy="Leave it out: the licence it has goes along",
        )
    return replace(checkpoint, licence=licence) if licence else checkpoint


def _lines(found: Summary) -> Iterator[tuple[str, str]]:
    state = "trained" if found.trained else "untrained"
    yield "name", f"{found.name} ({found.form} form, {state})"
    yield "kind", found.kind
    yield "stage", found.stage
    yield "rate", ", ".join(f"{r} (default)" if r == found.rate else str(r) for r in found.rates)
    yield (
        "lengths",
        (
            f"passages of up to {found.doc_max_length} tokens, latents of up to "
            f"{found.rows_per_latent} rows, {found.passages_per_answer} passages per answer"
        ),
    )
    yield from _serving_lines(found)
    yield "rank", str(found.lora_r)
    for label, parts in (
        ("adapter", found.adapters),
        ("pooling", found.pooling),
        ("rows", found.rows),
    ):
        yield from _part_lines(label, parts)
    yield "licence", found.licence or "unknown"
    yield "base", found.base or "not noted"
    yield "", f"at hand in {found.base_folder}" if found.base_folder else "not at hand"
    yield "base hash", found.base_hash or "not noted"
    for dtype, mark in found.fingerprints.items():
        yield "fingerprint", f"{mark} ({dtype})"
    for name, size in found.files.items():
        yield "file", f"{name}, {_size(size)}"
    for note in found.notes:
        yield "note", note


def _serving_lines(found: Summary) -> Iterator[tuple[str, str]]:
    serving = found.serving
    text = "text" if serving.reads_text else "text through the base alone"
    yield "reads", f"latents and {text}; by default {'text' if serving.prefers_text else 'latents'}"
    rows = "row by row" if serving.interaction == "late" else "by their mean rows"
    weight = "" if serving.latent_weight is None else f", weight {serving.latent_weight:g}"
    least = "" if serving.min_score is None else f", read from {serving.min_score:g} on"
    yield "ranking", f"{rows}{weight}{least}"
    leads = {"text": serving.text_refusal_margin} | dict(
        zip((f"rate {rate}" for rate in found.rates), serving.refusal_margins, strict=False)
    )
    told = [f"{nats:g} ({what})" for what, nats in leads.items() if nats is not None]
    if told:
        yield "refusals", f"lead by {', '.join(told)} nats"


def _part_lines(label: str, parts: Mapping[str, Part]) -> Iterator[tuple[str, str]]:
    if not parts:
        yield label, "none"
    for name, part in parts.items():
        rank = f", rank {', '.join(map(str, part.ranks))}" if part.ranks else ""
        dtypes = ", ".join(part.dtypes)
        yield label, f"{name}: {part.parameters:,} parameters, {_size(part.bytes)} {dtypes}{rank}"


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _note(console: Console, words: str) -> None:
    console.print(Text(f"note: {words}", style="yellow"))


def _hashes(config: Settings) -> Path:
    return config.home / "hashes"
