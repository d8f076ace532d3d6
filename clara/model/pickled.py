"""Files of `torch.save`, opened for plain tensors and nothing else."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clara.errors import InvalidCheckpoint
from clara.model.files import damaged, require, shown

_FORBIDDEN = re.compile(r"GLOBAL (\S+)")
"""How the reader names what a file asks for beyond tensors."""


def read_pickled(path: Path) -> dict[str, Any]:
    """The dictionary in a file; nothing in it is ever run.

    Raises:
        InvalidCheckpoint: the file is missing, damaged, or asks for code.
    """
    require(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = _FORBIDDEN.search(str(error))
        if asked is None:
            raise damaged(path, "it is no file of tensors, or a damaged one") from error
        raise InvalidCheckpoint(
            f"{path} holds more than tensors and is not opened: it asks for {asked[1].rstrip('.')}",
            field=path.name,
            remedy="Use a checkpoint from a source you trust, with plain tensors only",
        ) from error
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise damaged(path, "it is no dictionary by name")
    return found


def tensor_of(value: object, key: str, path: Path) -> Tensor:
    """A value of such a dictionary as a plain tensor.

    Raises:
        InvalidCheckpoint: it is something else, or a tensor not of floating point numbers.
    """
    if not isinstance(value, Tensor):
        raise damaged(path, f"{key!r} is {shown(value)}, not a tensor")
    if value.layout is not torch.strided or not value.is_floating_point():
        raise damaged(path, f"{key!r} is {value.dtype}, {value.layout}; plain floats are expected")
    return value.detach()
