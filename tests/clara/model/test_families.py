"""Every family of bases loads, compresses, answers, merges adapters, and travels in both forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from clara.model import original
from clara.model.checkpoint import Checkpoint, CheckpointConfig, load
from clara.model.fit import check_fits
from clara.model.lora import block_linears, merged
from clara.model.models import Models
from tests.clara.model.conftest import RANK, adapter
from tests.clara.model.test_lora import run_unmerged
from tests.tiny import CHAT_TEMPLATE, HIDDEN, tiny_base

Opened = Callable[..., Models]

WITHOUT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
)
FAMILIES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "smollm": (LlamaConfig, {"tie_word_embeddings": True}),
    "mistral": (MistralConfig, {"sliding_window": None}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"head_dim": 8}),
}


def family_base(folder: Path, name: str, template: str) -> Path:
    """A tiny base of that family. Those of Qwen have no bos, as in reality."""
    tiny_base(folder)
    (folder / "chat_template.jinja").write_text(template)
    path = folder / "tokenizer_config.json"
    tokenizer = json.loads(path.read_text())
    if name.startswith("qwen"):
        del tokenizer["bos_token"]
        tokenizer["additional_special_tokens"] = ["<|im_start|>", "<|im_end|>"]
        path.write_text(json.dumps(tokenizer))
    family, own = FAMILIES[name]
    sizes = json.loads((folder / "config.json").read_text())
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    kept += ("num_attention_heads", "num_key_value_heads", "max_position_embeddings")
    config = family(**{key: sizes[key] for key in kept}, initializer_range=0.2, **own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for key, value in model.named_parameters():
            if key.endswith("bias"):  # zero in a new model, which would hide a bias left out
                torch.nn.init.normal_(value, std=0.2)
        model.save_pretrained(folder)
    return folder


def trained_on(base: Path) -> Checkpoint:
    config = CheckpointConfig(
        str(base), compr_rate=4, doc_max_length=32, lora_r=RANK, training_stage="stage2"
    )
    roles = ("compressor", "reasoner", "generator")
    rows = torch.randn((config.added, HIDDEN), generator=torch.Generator().manual_seed(9))
    adapters = {role: adapter(base, seed) for seed, role in enumerate(roles)}
    return Checkpoint(config, adapters, {"embed": rows}, trained=True, name="tiny")


@pytest.fixture(params=list(FAMILIES), scope="module")
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def family_models(
    family: str, opened: Opened, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkpoint, Models]:
    base = family_base(tmp_path_factory.mktemp(family) / "base", family, CHAT_TEMPLATE)
    checkpoint = trained_on(base)
    return checkpoint, opened(checkpoint)


def test_a_base_compresses_and_answers(family_models: tuple[Checkpoint, Models]) -> None:
    _, models = family_models
    latents = models.compressor.compress(["tea", "bees dance"])
    assert [tuple(latent.shape) for latent in latents] == [(8, HIDDEN)] * 2
    assert not torch.allclose(latents[0], latents[1], atol=1e-3)
    [query] = models.reasoner.encode(["Who?"])
    scores = models.score(query, latents)
    assert scores.shape == (2,)
    assert scores.isfinite().all()
    read = models.generator.answer_from_latents("Who?", latents, max_new_tokens=6)
    text = models.generator.answer_from_text("Who?", ["tea"], max_new_tokens=6)
    assert read.token_ids
    assert text.token_ids


def test_an_adapter_covers_the_seven_layers_of_every_block_and_merges(
    family_models: tuple[Checkpoint, Models],
) -> None:
    checkpoint, models = family_models
    base = models.generator.text_model
    assert len(block_linears(base)) == 7 * 2
    ids = torch.tensor([[5, 9, 100, 7, 42]])
    kept = dict(checkpoint.adapters["generator"])
    with torch.inference_mode():
        wanted = run_unmerged(base, kept, ids)
        twin = merged(base, kept, role="generator").base_model(input_ids=ids).last_hidden_state
        plain = base.base_model(input_ids=ids).last_hidden_state
    assert torch.allclose(twin, wanted, atol=1e-4)
    assert not torch.allclose(twin, plain, atol=1e-2)


def test_a_checkpoint_of_a_base_goes_out_in_the_original_form_and_comes_back(
    family_models: tuple[Checkpoint, Models], opened: Opened, tmp_path: Path
) -> None:
    checkpoint, models = family_models
    base = Path(checkpoint.config.base)
    found = load(original.write(checkpoint, tmp_path / "theirs", base=base, dtype=None))
    check_fits(found, base)
    tied = models.generator.text_model.config.tie_word_embeddings
    assert set(found.rows) == ({"embed"} if tied else {"embed", "head"})
    again = opened(found)
    pairs = zip(
        models.compressor.compress(["tea"]), again.compressor.compress(["tea"]), strict=True
    )
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_text_begins_with_enc_and_bos_also_where_the_base_has_no_bos(
    family_models: tuple[Checkpoint, Models],
) -> None:
    tokens = family_models[1].tokens
    [row] = tokens.wrapped(["tea"])
    assert tokens.tokenizer.convert_ids_to_tokens(row[:2]) == ["<ENC>", "<|im_start|>"]


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, WITHOUT_SYSTEM + CHAT_TEMPLATE])
def test_a_template_with_or_without_system_messages_answers(
    family: str, template: str, opened: Opened, tmp_path: Path
) -> None:
    base = family_base(tmp_path / "base", family, template)
    models = opened(Checkpoint(trained_on(base).config))
    prompt = models.tokens.prompts.from_latents("Who?", 1)
    assert ("<|im_start|>system" in prompt) is (template == CHAT_TEMPLATE)
    assert "You are a helpful assistant." in prompt
    [latent] = models.compressor.compress(["tea"])
    assert models.generator.answer_from_latents("Who?", [latent], max_new_tokens=4).token_ids
