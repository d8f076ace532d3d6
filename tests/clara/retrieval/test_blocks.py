from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cosine_similarity

from clara.errors import LatentDamaged
from clara.retrieval.blocks import BYTES_PER_SCALE, STEPS, Packed, block_bytes, pack, unpack
from clara.types import LatentForm

BF16_STEP = 2**-8
"""Largest relative error of rounding to bfloat16."""

shapes = st.tuples(st.integers(1, 6), st.integers(1, 40))


def block(rows: int, width: int, *, seed: int = 0, scale: float = 1.0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, width, generator=source)


def through(given: Tensor, form: LatentForm) -> Tensor:
    return unpack(pack(given, form))


@given(shape=shapes, seed=st.integers(0, 99), form=st.sampled_from(LatentForm))
def test_a_block_takes_the_bytes_it_says_and_keeps_its_shape(
    shape: tuple[int, int], seed: int, form: LatentForm
) -> None:
    packed = pack(block(*shape, seed=seed), form)
    assert packed.form is form
    assert len(packed.block) == block_bytes(form, *shape)
    back = unpack(packed)
    assert back.shape == shape
    assert back.dtype is torch.bfloat16


def test_int8_takes_half_the_bytes_and_a_scale_per_row() -> None:
    assert block_bytes(LatentForm.INT8, 16, 576) == 16 * 576 + 16 * BYTES_PER_SCALE
    assert block_bytes(LatentForm.BF16, 16, 576) == 2 * 16 * 576


@given(shape=shapes, seed=st.integers(0, 99), magnitude=st.integers(-20, 20))
def test_no_number_is_off_by_more_than_half_a_step_of_its_row(
    shape: tuple[int, int], seed: int, magnitude: int
) -> None:
    before = block(*shape, seed=seed, scale=2.0**magnitude).to(torch.bfloat16).float()
    after = through(before, LatentForm.INT8).float()
    step = before.abs().amax(dim=1, keepdim=True) / STEPS
    assert ((after - before).abs() <= step / 2 + after.abs() * BF16_STEP + 1e-12).all()


@given(seed=st.integers(0, 99))
def test_the_cosine_of_what_int8_keeps_is_almost_one(seed: int) -> None:
    """Both as it is compared: flattened, and the mean row."""
    before = block(16, 576, seed=seed)
    after = through(before, LatentForm.INT8).float()
    assert cosine_similarity(before.flatten(), after.flatten(), dim=0) > 0.9999
    assert cosine_similarity(before.mean(0), after.mean(0), dim=0) > 0.9999


def test_a_row_with_one_huge_number_costs_the_others_no_more_than_its_step() -> None:
    before = block(4, 64)
    before[1, 3] = 100.0
    after = through(before, LatentForm.INT8).float()
    others = [0, 2, 3]
    assert torch.allclose(after[others], before[others], atol=0.03)
    assert (after[1] - before[1]).abs().max() <= 100 / STEPS / 2 + 0.4
    assert after[1, 3] == pytest.approx(100, rel=0.01)


def test_zeros_stay_zeros() -> None:
    before = block(3, 8)
    before[1] = 0
    after = through(before, LatentForm.INT8)
    assert after[1].abs().max() == 0
    assert after.isfinite().all()


@pytest.mark.parametrize("odd", [float("inf"), float("nan")])
def test_what_int8_cannot_hold_is_kept_in_bfloat16(odd: float) -> None:
    before = block(2, 4)
    before[0, 0] = odd
    packed = pack(before, LatentForm.INT8)
    assert packed.form is LatentForm.BF16
    assert unpack(packed).view(torch.int16).equal(before.to(torch.bfloat16).view(torch.int16))


@pytest.mark.parametrize("form", LatentForm)
def test_bytes_that_do_not_fit_the_shape_are_damage(form: LatentForm) -> None:
    packed = pack(block(2, 4), form)
    for wrong in (
        packed._replace(rows=3),
        packed._replace(width=5),
        packed._replace(block=packed.block[:-1]),
        Packed(form, b"", 0, 4),
    ):
        with pytest.raises(LatentDamaged, match="take"):
            unpack(wrong)
