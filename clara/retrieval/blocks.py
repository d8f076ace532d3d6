"""Latent blocks to bytes and back, in either form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clara.errors import LatentDamaged
from clara.types import LatentForm

STEPS = 127
"""Of an int8 number, on either side of zero."""

BYTES_PER_SCALE = 4


class Packed(NamedTuple):
    """A block as it is stored."""

    form: LatentForm
    block: bytes
    rows: int
    width: int


def pack(block: Tensor, form: LatentForm) -> Packed:
    """A block (rows, width) in `form`; one that int8 cannot hold, with infinities, in bfloat16.

    Raises:
        ValueError: a block that is not two-dimensional.
    """
    if block.dim() != 2:
        raise ValueError(f"a latent block is (rows, width), not {tuple(block.shape)}")
    rows, width = block.shape
    numbers = block.detach().to("cpu")
    if form is LatentForm.INT8 and bool(numbers.isfinite().all()):
        return Packed(LatentForm.INT8, _quantised(numbers.float()), rows, width)
    halves = numbers.to(torch.bfloat16).contiguous().view(torch.uint8)
    return Packed(LatentForm.BF16, halves.numpy().tobytes(), rows, width)


def unpack(packed: Packed) -> Tensor:
    """The block (rows, width) in bfloat16.

    Raises:
        LatentDamaged: its length does not fit its shape.
    """
    form, block, rows, width = packed
    expected = block_bytes(form, rows, width)
    if len(block) != expected or rows < 1:
        raise LatentDamaged(f"{len(block)} bytes; {rows} x {width} in {form} take {expected}")
    if form is LatentForm.INT8:
        scales = np.frombuffer(block, "<f4", count=rows)
        steps = np.frombuffer(block, np.int8, offset=rows * BYTES_PER_SCALE).reshape(rows, width)
        whole = torch.from_numpy(steps.astype(np.float32) * scales[:, None])
        return whole.to(torch.bfloat16)
    # a copy: torch wants memory it may write to
    return torch.frombuffer(bytearray(block), dtype=torch.bfloat16).view(rows, width)


def block_bytes(form: LatentForm, rows: int, width: int) -> int:
    """Bytes that a block takes."""
    if form is LatentForm.INT8:
        return rows * (width + BYTES_PER_SCALE)
    return rows * width * 2


def _quantised(block: Tensor) -> bytes:
    """A float32 scale per row, then the rows. A row of zeros has the scale 0."""
    scales = block.abs().amax(dim=1) / STEPS
    steps = (block / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
    in_range = steps.clamp(-STEPS, STEPS).to(torch.int8)
    head = scales.numpy().astype("<f4").tobytes()
    return bytes(head + in_range.contiguous().numpy().tobytes())
