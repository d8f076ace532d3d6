"""Reads checkpoint folders in the form of the published CLaRa models."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clara.errors import InvalidCheckpoint

ADAPTERS = "adapters.pth"
ROWS = "decoder_first_last_layers.pth"

_ROLES = {
    "encoder_adapter": "compressor",
    "query_reasoner_adapter": "reasoner",
    "decoder_adapter": "generator",
}
_ROW_KEYS = {"embed_tokens.weight": "embed", "lm_head.weight": "head"}
_LORA_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?P<path>.+)\.lora_(?P<side>[AB])(?:\.\w+)?\.weight$"
)


def read_config(folder: Path) -> dict[str, Any]:
    """Fields of config.json under our names; fields we do not know stay, for the caller to drop."""
    raw = read_json(folder / "config.json")
    raw["base"] = str(raw.get("decoder_model_name", ""))
    raw["floor_rows"] = True
    return raw


def read_adapters(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Adapters by role. Embedding and head copies among them are left out.

    Raises:
        InvalidCheckpoint: the file is missing, damaged, holds code, or an unknown key.
    """
    path = folder / ADAPTERS
    return {
        _ROLES.get(name, name): _lora_only(tensors, path)
        for name, tensors in _read_pickled(path).items()
    }


def read_rows(folder: Path) -> dict[str, Tensor]:
    """`embed` and, where the base is not tied, `head`: all rows, with the added tokens'."""
    path = folder / ROWS
    rows = {}
    for key, tensor in _read_pickled(path).items():
        name = next((ours for end, ours in _ROW_KEYS.items() if key.endswith(end)), None)
        if name is None:
            raise damaged(path, f"it holds the unknown key {key!r}")
        rows[name] = tensor
    if "embed" not in rows:
        raise damaged(path, "it holds no embedding")
    return rows


def licence_of(name: str) -> str:
    """Licence of a published checkpoint by its Hub name; "" where we cannot know."""
    return "apple-amlr (research only)" if name.startswith("apple/CLaRa-") else ""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object out of a checkpoint folder.

    Raises:
        InvalidCheckpoint: the file is missing, or something else.
    """
    require(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(found, dict):
        raise damaged(path, "it is no JSON object")
    return found


def require(path: Path) -> None:
    """Raises InvalidCheckpoint where a checkpoint's file is missing."""
    if not path.is_file():
        raise InvalidCheckpoint(
            f"{path.parent} has no {path.name}",
            field=path.name,
            remedy="Give the folder that holds the checkpoint's files, or fetch it again",
        )


def damaged(path: Path, why: object) -> InvalidCheckpoint:
    """The error for a file that is there but unusable."""
    return InvalidCheckpoint(
        f"{path} cannot be read: {why}",
        field=path.name,
        remedy="Fetch or save the checkpoint again",
    )


def _lora_only(tensors: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(tensors, dict):
        raise damaged(path, "an adapter in it is no dictionary")
    found = {}
    for key, tensor in tensors.items():
        match = _LORA_KEY.match(key)
        if match:
            found[f"{match['path']}.lora_{match['side']}.weight"] = tensor
        elif not key.endswith(tuple(_ROW_KEYS)):
            raise damaged(path, f"it holds the unknown key {key!r}")
    return found


def _read_pickled(path: Path) -> dict[str, Any]:
    """A dictionary of tensors; a file that asks for anything else is refused unread."""
    require(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidCheckpoint(
            f"{path} holds more than tensors and is not opened",
            field=path.name,
            remedy="Use a checkpoint from a source you trust, with plain tensors only",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise damaged(path, error) from error
    if not isinstance(found, dict):
        raise damaged(path, "it is no dictionary")
    return found
