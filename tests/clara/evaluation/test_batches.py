from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from clara.evaluation.batches import batches, budget


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 200))
def test_every_position_is_in_one_batch_within_the_budget(lengths: list[int], places: int) -> None:
    made = list(batches(lengths, places))
    assert sorted(position for batch in made for position in batch) == list(range(len(lengths)))
    for batch in made:
        longest = max(lengths[position] for position in batch)
        assert len(batch) == 1 or longest * len(batch) <= places
    order = [lengths[position] for batch in made for position in batch]
    assert order == sorted(order, reverse=True)


def test_a_gpu_takes_more_unless_a_number_is_given() -> None:
    assert budget(torch.device("cuda"), None) > budget(torch.device("cpu"), None)
    assert budget(torch.device("cuda"), 7) == 7
