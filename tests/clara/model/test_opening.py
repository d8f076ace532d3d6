from __future__ import annotations

from dataclasses import replace
from functools import wraps

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, MistralConfig, MistralForCausalLM

from clara.model.decoding import Decoding
from clara.model.generator import Generator
from clara.model.models import Models
from clara.model.opening import MOST_REST, Opening, Openings
from clara.model.sampling import GREEDY

PASSAGES = ["The harbour wall was built in 1874.", "Tea reached the market."]


def opening_of(generator: Generator) -> Opening:
    assert generator.openings is not None
    found = generator.openings.of(generator.model)
    assert found is not None
    return found


def test_the_opening_ends_where_the_first_latent_begins(models: Models) -> None:
    latents = models.compressor.compress(PASSAGES)
    prompt = models.generator.prompt_from_latents("Who?", latents)
    opening = opening_of(models.generator)
    assert opening.shared([prompt]) == len(opening.embeds)
    assert (prompt[len(opening.embeds)] == latents[0][0]).all()


def test_passages_as_text_share_it_but_for_what_their_first_token_takes_in(models: Models) -> None:
    prompts = [models.generator.prompt_from_text("Who?", PASSAGES[:n]) for n in (1, 2)]
    opening = opening_of(models.generator)
    assert len(opening.embeds) - opening.shared(prompts) <= 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), shared=st.integers(0, 30))
def test_the_next_ids_are_those_without_it_whatever_the_prompts(
    models: Models, lengths: list[int], shared: int
) -> None:
    opening = opening_of(models.generator)
    source = torch.Generator().manual_seed(shared)
    prompts = [
        torch.cat([opening.embeds[:shared], torch.randn(length, 32, generator=source)])
        for length in lengths
    ]
    assert opening.shared(prompts) == min(shared, len(opening.embeds))
    plain = Decoding(models.generator.model, prompts, GREEDY)
    opened = Decoding(models.generator.model, prompts, GREEDY, opening)
    assert [plain.step() for _ in range(4)] == [opened.step() for _ in range(4)]


def test_a_prompt_that_is_nothing_but_the_opening_keeps_a_token_of_its_own(models: Models) -> None:
    opening = opening_of(models.generator)
    assert opening.shared([opening.embeds]) == len(opening.embeds) - 1
    (ids,) = models.generator.generate([opening.embeds], max_new_tokens=3)
    plain = replace(models.generator, openings=None)
    assert plain.generate([opening.embeds], max_new_tokens=3) == [ids]


def test_before_a_long_rest_it_is_left_out(models: Models) -> None:
    opening = opening_of(models.generator)
    most = torch.cat([opening.embeds, torch.ones(MOST_REST * len(opening.embeds), 32)])
    assert opening.worth([most, most[:-5]]) == len(opening.embeds)
    assert opening.worth([most[:-5], torch.cat([most, torch.ones(1, 32)])]) == 0


def test_only_what_differs_goes_through_the_model(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = models.generator.prompt_from_latents("Who?", models.compressor.compress(PASSAGES))
    opening = opening_of(models.generator)
    seen: list[int] = []
    real = models.generator.model.base_model.forward

    @wraps(real)
    def look(*args: object, **values: object) -> object:
        embeds = values["inputs_embeds"]
        assert isinstance(embeds, torch.Tensor)
        seen.append(embeds.shape[1])
        return real(*args, **values)

    monkeypatch.setattr(models.generator.model.base_model, "forward", look)
    models.generator.generate([prompt], max_new_tokens=1)
    assert seen == [len(prompt) - len(opening.embeds)]


def test_text_and_latents_have_an_opening_each_since_their_models_differ(models: Models) -> None:
    assert models.generator.openings is not None
    of_text = models.generator.openings.of(models.generator.text_model)
    assert of_text is not None
    assert not torch.equal(of_text.layers[-1][0], opening_of(models.generator).layers[-1][0])


def test_a_model_that_forgets_the_beginning_has_none() -> None:
    config = MistralConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=8,
    )
    model = MistralForCausalLM(config).eval()
    assert Openings(torch.randn(20, 32)).of(model) is None
    short = Openings(torch.randn(5, 32)).of(model)
    assert short is not None
    cache = DynamicCache(config=config)
    short.fill(cache, 3, 2)
    assert cache.get_seq_length() == 3
