"""The folder of an adapter that reads pairs: its weights, and what it belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils.hub import cached_file

from clara.answerability.network import ROLE, Heads
from clara.errors import InvalidCheckpoint
from clara.model.averaging import mean
from clara.model.checkpoint import tensor_file
from clara.model.files import damaged, expected, new_folder, read_json, shown, typed
from clara.model.fingerprints import file_hash
from clara.nearness import NOTHING_IS_FAR

FORMAT = 1
MANIFEST, WEIGHTS = "manifest.json", "answerability.safetensors"
_HEADS = ("answers", "span")


@dataclass(frozen=True)
class Kept:
    """What a folder holds."""

    adapter: Mapping[str, Tensor]
    """As `clara.model.lora` reads it."""
    heads: Mapping[str, Tensor]
    """State of `Heads`."""
    encoder: str
    """Hash of the encoder's weights that it was trained over."""
    max_tokens: int
    """Of a question and a passage together, in training."""
    least: float = NOTHING_IS_FAR
    """Answerability that what is read must reach at its best, as it was measured."""
    notes: Sequence[str] = ()
    """How it was trained."""

    def on_the_way(self, begun: Kept, share: float) -> Kept:
        """What lies so far from what a training began with to this, which it came to.

        Going only part of the way keeps more of what was known before (arXiv:2109.01903). Factors
        of an adapter are averaged, which is near to the mean of their product.

        Args:
            begun: over the same encoder, of the same shapes.
            share: 1 is all the way.
        """
        return replace(
            self,
            adapter=mean(self.adapter, begun.adapter, share),
            heads=mean(self.heads, begun.heads, share),
            notes=(*self.notes, f"{share:g} of the way there"),
        )

    def heads_over(self, width: int) -> Heads:
        """The heads over states of that width.

        Raises:
            InvalidCheckpoint: they were made for another width, or are incomplete.
        """
        heads = Heads(width)
        try:
            heads.load_state_dict({name: value.float() for name, value in self.heads.items()})
        except RuntimeError as error:
            raise _misfit(f"its heads do not: {error}") from error
        return heads


def encoder_hash(source: str | Path) -> str:
    """Hash of an encoder's weights.

    Raises:
        InvalidCheckpoint: it has no safetensors file.
    """
    path = cached_file(
        str(source), "model.safetensors", _raise_exceptions_for_missing_entries=False
    )
    if path is None:
        raise InvalidCheckpoint(
            f"the sentence encoder {source} has no model.safetensors",
            field="CLARA_SENTENCE_ENCODER",
            remedy="Save its weights in that form, or leave CLARA_ANSWERABILITY empty",
        )
    return file_hash(Path(path))


def save(kept: Kept, folder: Path) -> None:
    """Write a new folder, whole or not at all, its weights in bfloat16.

    Raises:
        InvalidCheckpoint: the folder exists.
    """
    weights = {**kept.adapter, **kept.heads}
    with new_folder(folder) as part:
        save_file(
            {k: v.to("cpu", torch.bfloat16).contiguous() for k, v in weights.items()},
            part / WEIGHTS,
        )
        told = {
            "format": FORMAT,
            "encoder": kept.encoder,
            "max_tokens": kept.max_tokens,
            "least": kept.least,
            "notes": list(kept.notes),
            "files": {WEIGHTS: file_hash(part / WEIGHTS)},
        }
        (part / MANIFEST).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, encoder: str) -> Kept:
    """What a folder holds, for an encoder of that hash.

    Raises:
        InvalidCheckpoint: a file is missing, damaged or not the one that was written; or it was
            trained over another encoder.
    """
    path = folder / MANIFEST
    told = read_json(path)
    if told.get("format") != FORMAT:
        raise InvalidCheckpoint(
            f"{folder} has format {told.get('format')!r}; this release reads {FORMAT}",
            field="format",
            limit=FORMAT,
            remedy="Train it again with `clara train answerability`",
        )
    if typed(told, "encoder", str, path) != encoder:
        raise _misfit("it was trained over another one")
    found = tensor_file(folder / WEIGHTS, typed(told, "files", dict, path))
    heads = {name: value for name, value in found.items() if name.split(".")[0] in _HEADS}
    return Kept(
        adapter={name: value for name, value in found.items() if name not in heads},
        heads=heads,
        encoder=encoder,
        max_tokens=typed(told, "max_tokens", int, path),
        least=_number(told.get("least"), path),
        notes=tuple(map(str, typed(told, "notes", list, path, []))),
    )


def _number(value: object, path: Path) -> float:
    wrong = expected(value, "float | None")
    if wrong is not None:
        raise damaged(path, f"least must be {wrong}, it is {shown(value)}")
    return NOTHING_IS_FAR if value is None else float(str(value))


def _misfit(why: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(
        f"the {ROLE} adapter does not fit the sentence encoder: {why}",
        field="CLARA_ANSWERABILITY",
        remedy="Name the encoder that it was trained over, or leave CLARA_ANSWERABILITY empty",
    )
