from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clara.errors import InvalidInput
from clara.model.sampling import GREEDY, Sampling, choose

NUMBERS = st.floats(-50, 50, width=32)
LOGITS = st.integers(1, 9).flatmap(
    lambda size: st.lists(
        st.lists(NUMBERS, min_size=size, max_size=size), min_size=1, max_size=4
    ).map(torch.tensor)
)


def sources(rows: int, seed: int) -> list[torch.Generator]:
    return Sampling(1.0, seed).sources(rows)


@given(logits=LOGITS, seed=st.integers(0, 99))
def test_temperature_zero_is_the_largest_logit(logits: Tensor, seed: int) -> None:
    assert torch.equal(choose(logits, 0.0, sources(len(logits), seed)), logits.argmax(dim=-1))
    assert torch.equal(choose(logits, 0.0, []), logits.argmax(dim=-1))


@given(logits=LOGITS, temperature=st.floats(0.01, 10), seed=st.integers(0, 2**62))
def test_the_same_seed_gives_the_same_ids_and_they_exist(
    logits: Tensor, temperature: float, seed: int
) -> None:
    first, second = (choose(logits, temperature, sources(len(logits), seed)) for _ in range(2))
    assert torch.equal(first, second)
    assert ((first >= 0) & (first < logits.shape[1])).all()
    assert first.dtype == torch.int64


@given(logits=LOGITS, temperature=st.floats(0.1, 5), seed=st.integers(0, 99))
def test_a_row_is_drawn_the_same_alone(logits: Tensor, temperature: float, seed: int) -> None:
    together = choose(logits, temperature, sources(len(logits), seed))
    alone = [choose(row[None], temperature, sources(1, seed)) for row in logits]
    assert torch.equal(together, torch.cat(alone))


@given(logits=LOGITS, seed=st.integers(0, 99), smallest=st.floats(1e-300, 1e-6))
def test_a_temperature_near_zero_draws_one_of_the_largest(
    logits: Tensor, seed: int, smallest: float
) -> None:
    chosen = choose(logits, smallest, sources(len(logits), seed))
    reached = logits.gather(1, chosen[:, None]).squeeze(1)
    assert (reached >= logits.amax(dim=1) - 1e-3).all()


@given(logits=LOGITS, seed=st.integers(0, 99))
def test_what_is_impossible_is_never_drawn(logits: Tensor, seed: int) -> None:
    barred = torch.cat([torch.full_like(logits, -torch.inf), logits, logits - torch.inf], dim=1)
    chosen = choose(barred, 1.0, sources(len(logits), seed))
    size = logits.shape[1]
    assert ((chosen >= size) & (chosen < 2 * size)).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_frequencies_are_those_of_the_softmax(temperature: float) -> None:
    logits = torch.tensor([1.0, -2.0, 0.5, 3.0, -torch.inf, 0.0])
    draws = 20_000
    source = torch.Generator().manual_seed(5)
    chosen = choose(logits.expand(draws, -1), temperature, [source] * draws)
    found = torch.bincount(chosen, minlength=len(logits)) / draws
    wanted = (logits / temperature).softmax(dim=0)
    spread = (wanted * (1 - wanted) / draws).sqrt()
    assert ((found - wanted).abs() <= 5 * spread).all()


def test_the_last_draw_below_one_still_finds_an_id() -> None:
    logits = torch.zeros(1, 3)
    logits[0, 2] = -torch.inf
    with pytest.MonkeyPatch.context() as patch:
        highest = torch.full((1, 1), math.nextafter(1.0, 0.0), dtype=torch.float64)
        patch.setattr(torch, "rand", lambda *_, **__: highest)
        assert choose(logits, 1.0, sources(1, 0)).tolist() == [1]
        patch.setattr(torch, "rand", lambda *_, **__: torch.ones(1, 1, dtype=torch.float64))
        assert choose(logits, 1.0, sources(1, 0)).tolist() == [1]


def test_greedy_needs_no_source() -> None:
    assert GREEDY.sources(3) == []
    assert len(Sampling(0.7, 1).sources(3)) == 3


@pytest.mark.parametrize("temperature", [-0.1, math.nan, math.inf])
def test_a_temperature_that_is_no_number_from_zero_on_is_refused(temperature: float) -> None:
    with pytest.raises(InvalidInput, match="temperature is") as caught:
        Sampling(temperature)
    assert caught.value.field == "temperature"


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(InvalidInput, match="seed is"):
        Sampling(0.5, seed)
