from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from clara.model.attention import NAME, attend
from clara.model.models import Models


def layer(groups: int) -> nn.Module:
    module = nn.Module()
    module.num_key_value_groups = groups
    module.is_causal = True
    return module


@pytest.mark.parametrize("positions", [1, 7, 300])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_a_decoding_step_equals_torchs_own_attention(
    dtype: torch.dtype, close: float, positions: int
) -> None:
    query = torch.randn(2, 6, 1, 16, dtype=dtype)
    key, value = torch.randn(2, 2, 2, positions, 16, dtype=dtype)
    wanted, _ = sdpa_attention_forward(layer(3), query, key, value, None)
    found, _ = attend(layer(3), query, key, value, None)
    assert found.shape == wanted.shape == (2, 1, 6, 16)
    assert torch.allclose(found.float(), wanted.float(), atol=close)


def test_a_given_scale_is_used() -> None:
    query, key = torch.randn(1, 2, 1, 8), torch.randn(1, 2, 5, 8)
    wanted, _ = sdpa_attention_forward(layer(1), query, key, key, None, scaling=0.5)
    assert torch.allclose(attend(layer(1), query, key, key, None, scaling=0.5)[0], wanted)


def test_masked_steps_and_whole_prompts_go_through_torch() -> None:
    query, key = torch.randn(1, 2, 1, 8), torch.randn(1, 2, 5, 8)
    mask = torch.tensor([[[[False, True, True, True, True]]]])
    wanted, _ = sdpa_attention_forward(layer(1), query, key, key, mask)
    assert torch.equal(attend(layer(1), query, key, key, mask)[0], wanted)
    wanted, _ = sdpa_attention_forward(layer(1), key, key, key, None)
    assert torch.equal(attend(layer(1), key, key, key, None)[0], wanted)


def test_models_on_a_cpu_use_it(models: Models) -> None:
    assert models.generator.model.config._attn_implementation == NAME
