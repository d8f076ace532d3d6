from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clara.errors import InvalidCheckpoint
from clara.model.averaging import averaged
from clara.model.checkpoint import Checkpoint
from tests.clara.model.conftest import adapter


@pytest.fixture(scope="module")
def other(trained: Checkpoint, base: Path) -> Checkpoint:
    return replace(trained, adapters={**trained.adapters, "generator": adapter(base, 11)})


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_every_number_lies_so_far_between_the_two(
    trained: Checkpoint, other: Checkpoint, share: float
) -> None:
    found = averaged(trained, other, share=share).adapters["generator"]
    for name, tensor in found.items():
        mine, theirs = trained.adapters["generator"][name], other.adapters["generator"][name]
        assert torch.allclose(tensor, share * mine + (1 - share) * theirs, atol=1e-6)


def test_other_roles_stay_and_what_was_measured_is_dropped(
    trained: Checkpoint, other: Checkpoint
) -> None:
    config = replace(trained.config, text_refusal_margin=1.5, min_score=0.2)
    found = averaged(replace(trained, config=config), other)
    assert found.adapters["reasoner"] is trained.adapters["reasoner"]
    assert (found.config.text_refusal_margin, found.config.min_score) == (None, 0.2)


def test_adapters_that_do_not_fit_are_refused_by_role(trained: Checkpoint, base: Path) -> None:
    bare = replace(trained, adapters={})
    with pytest.raises(InvalidCheckpoint, match="no generator adapters of the same shapes"):
        averaged(trained, bare)
    cut = {name: tensor[..., :1] for name, tensor in adapter(base, 3).items()}
    with pytest.raises(InvalidCheckpoint, match="same shapes"):
        averaged(trained, replace(trained, adapters={"generator": cut}))
    with pytest.raises(ValueError, match="between 0 and 1"):
        averaged(trained, trained, share=1.5)
