from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from clara.model.attention import NAME, attend
from clara.model.blocked_attention import BLOCK
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


def test_masked_steps_and_prompts_without_gradients_go_through_torch() -> None:
    query, key = torch.randn(1, 2, 1, 8), torch.randn(1, 2, 5, 8)
    mask = torch.tensor([[[[False, True, True, True, True]]]])
    wanted, _ = sdpa_attention_forward(layer(1), query, key, key, mask)
    assert torch.equal(attend(layer(1), query, key, key, mask)[0], wanted)
    wanted, _ = sdpa_attention_forward(layer(1), key, key, key, None)
    assert torch.equal(attend(layer(1), key, key, key, None)[0], wanted)


def test_models_on_a_cpu_use_it(models: Models) -> None:
    assert models.generator.model.config._attn_implementation == NAME


@pytest.mark.parametrize("tokens", [5, BLOCK, 2 * BLOCK + 3])
@pytest.mark.parametrize("kind", ["causal", "bool", "float"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_a_pass_with_gradients_equals_torchs_own(
    dtype: torch.dtype, close: float, kind: str, tokens: int
) -> None:
    query = torch.randn(2, 6, tokens, 16, dtype=dtype)
    key, value = torch.randn(2, 2, 2, tokens, 16, dtype=dtype)
    seen = torch.ones(2, 1, tokens, tokens, dtype=torch.bool).tril()
    seen[1, 0, 4, 1] = seen[0, 0, tokens - 1, : tokens - 2] = False
    added = torch.zeros(2, 1, tokens, tokens, dtype=dtype).masked_fill(~seen, float("-inf"))
    mask = {"causal": None, "bool": seen, "float": added}[kind]
    found = []
    for attention in (sdpa_attention_forward, attend):
        inputs = [x.clone().requires_grad_() for x in (query, key, value)]
        mixed, _ = attention(layer(3), *inputs, mask)
        (mixed.float().sin()).sum().backward()
        found.append([mixed, *(x.grad for x in inputs)])
    for wanted, got in zip(*found, strict=True):
        apart = (got.float() - wanted.float()).norm()
        assert apart <= close * wanted.float().norm()


def test_attention_with_dropout_is_left_to_torch() -> None:
    query = torch.randn(1, 2, 5, 8, requires_grad=True)
    torch.manual_seed(0)
    wanted, _ = sdpa_attention_forward(layer(1), query, query, query, None, dropout=0.5)
    torch.manual_seed(0)
    found, _ = attend(layer(1), query, query, query, None, dropout=0.5)
    assert torch.equal(found, wanted)
