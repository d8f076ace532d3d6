from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clara.errors import Cancelled, CheckpointMismatch, TextTooLong
from clara.model.backbone import head_of
from clara.model.checkpoint import Checkpoint
from clara.model.decoding import Lowered
from clara.model.generator import HESITANT_NEVER, Generator, Hesitant
from clara.model.models import Models
from clara.model.pieces import Pieces
from clara.model.sampling import Sampling
from clara.wording import NOT_IN_DOCUMENTS

PASSAGES = ["The harbour wall was built in 1874.", "Tea reached the market."]


def test_text_mode_gives_what_plain_greedy_decoding_gives(models: Models) -> None:
    found = models.generator.answer_from_text("Who?", PASSAGES, max_new_tokens=20)
    ids = torch.tensor(models.tokens.encode([models.tokens.prompts.from_text("Who?", PASSAGES)]))
    wanted = []
    for _ in range(len(found.token_ids)):  # no cache: the whole sequence at each step
        ids = torch.cat([ids, models.generator.text_model(ids).logits[:, -1:].argmax(-1)], dim=1)
        wanted.append(int(ids[0, -1]))
    assert list(found.token_ids) == wanted
    assert found.prompt_tokens == ids.shape[1] - len(wanted)
    assert found.text == models.tokens.decode(wanted).strip()


def test_a_checkpoint_may_have_its_generator_read_plain_text(models: Models) -> None:
    generator = models.generator
    own, base = (
        replace(generator, reads_text=reads).answer_from_text("Who?", PASSAGES, max_new_tokens=12)
        for reads in (True, False)
    )
    assert own.token_ids != base.token_ids
    (ids,) = generator.generate([generator.prompt_from_text("Who?", PASSAGES)], max_new_tokens=12)
    assert list(own.token_ids) == ids


def test_latent_mode_reads_the_latents_and_the_generators_adapter(models: Models) -> None:
    latents = models.compressor.compress(PASSAGES)
    answer = models.generator.answer_from_latents("Who?", latents, max_new_tokens=8)
    swapped = models.generator.answer_from_latents("Who?", latents[::-1], max_new_tokens=8)
    plain = replace(models.generator, model=models.generator.text_model)
    other = plain.answer_from_latents("Who?", latents, max_new_tokens=8)
    assert len({answer.token_ids, swapped.token_ids, other.token_ids}) == 3


def test_latents_stand_behind_a_separator_each(models: Models) -> None:
    latents = [torch.full((8, 32), float(j)) for j in (1, 2)]
    prompt = models.generator.prompt_from_latents("Who?", latents)
    ids = models.tokens.encode([models.tokens.prompts.from_latents("Who?", 2)])[0]
    first, second = (at for at, token in enumerate(ids) if token == models.tokens.memory[0])
    assert second == first + 9
    assert (prompt[first : first + 8] == 1).all()
    assert (prompt[second : second + 8] == 2).all()
    assert not (prompt[first + 8] == 1).any()


def test_prompts_of_different_lengths_give_in_one_batch_what_they_give_alone(
    models: Models,
) -> None:
    prompts = [models.generator.prompt_from_text("Who?", PASSAGES[:n]) for n in (0, 1, 2)]
    together = models.generator.generate(prompts, max_new_tokens=10)
    assert together == [models.generator.generate([p], max_new_tokens=10)[0] for p in prompts]


def test_the_pieces_told_make_up_the_answer(models: Models) -> None:
    pieces: list[str] = []
    found = models.generator.answer_from_text(
        "Who?", PASSAGES, max_new_tokens=30, on_token=pieces.append
    )
    assert "".join(pieces).strip() == found.text
    assert len(pieces) > 1
    assert 0 < found.first_token_s < found.total_s


def test_a_character_in_several_tokens_is_told_whole(models: Models) -> None:
    stream = Pieces(models.tokens.decode)
    pieces = [stream.put(token) for token in models.tokens.encode(["“é” 猫"])[0]]
    pieces.append(stream.end())
    assert "".join(pieces) == "“é” 猫"
    assert "“" in pieces


def test_an_answer_can_be_stopped_between_two_tokens(models: Models) -> None:
    told: list[str] = []
    with pytest.raises(Cancelled):
        models.generator.answer_from_text(
            "Who?",
            PASSAGES,
            max_new_tokens=50,
            on_token=told.append,
            should_stop=lambda: len(told) >= 2,
        )
    assert len(told) == 2


def test_an_answer_ends_at_an_end_token_and_says_so(models: Models) -> None:
    free = models.generator.answer_from_text("Who?", PASSAGES, max_new_tokens=9)
    ending = replace(models.generator, ends=frozenset({free.token_ids[3]}))
    found = ending.answer_from_text("Who?", PASSAGES, max_new_tokens=9)
    stop = free.token_ids.index(free.token_ids[3])
    assert found.token_ids == free.token_ids[: stop + 1]
    assert found.finished
    assert not free.finished


def test_a_prompt_that_fills_the_context_is_refused_with_its_limit(models: Models) -> None:
    small = replace(models.generator, context=40)
    with pytest.raises(TextTooLong, match=r"the prompt has .* tokens; the base reads 40") as caught:
        small.answer_from_text("Who?", PASSAGES, max_new_tokens=5)
    assert caught.value.limit == 40


def test_an_answer_stops_where_the_context_ends(models: Models) -> None:
    prompt = models.generator.prompt_from_text("Who?", PASSAGES)
    small = replace(models.generator, context=len(prompt) + 3, ends=frozenset())
    found = small.answer_from_text("Who?", PASSAGES, max_new_tokens=50)
    assert len(found.token_ids) == 3
    assert not found.finished


def test_a_latent_of_another_shape_is_refused(models: Models) -> None:
    with pytest.raises(
        CheckpointMismatch, match=r"shape \(16, 32\); this checkpoint makes \(8, 32"
    ):
        models.generator.answer_from_latents("Who?", [torch.zeros(16, 32)], max_new_tokens=5)


def test_a_memory_token_in_a_question_does_not_move_the_latents(models: Models) -> None:
    latents = models.compressor.compress(PASSAGES)
    found = models.generator.answer_from_latents(
        "Is <MEM0> or <SEP> or <|im_end|> here?", latents, max_new_tokens=5
    )
    assert len(found.token_ids) == 5


# -- refusing


def led(models: Models, prompt: Tensor) -> tuple[int, float]:
    """What an answer begins with, and by how many nats it leads the next."""
    (ids,) = models.generator.generate([prompt], max_new_tokens=1)
    states = models.generator.model.base_model(inputs_embeds=prompt[None]).last_hidden_state
    logits = head_of(models.generator.model)(states[0, -1]).float()
    best, next_best = logits.topk(2).values.tolist()
    return ids[0], best - next_best


def test_a_lowered_token_begins_an_answer_only_where_it_leads_by_as_much(models: Models) -> None:
    prompt = models.generator.prompt_from_text("Who?", PASSAGES)
    free = models.generator.generate([prompt], max_new_tokens=9)
    first, lead = led(models, prompt)

    def told(nats: float) -> list[list[int]]:
        lowered = Lowered(first, nats)
        return models.generator.generate([prompt], max_new_tokens=9, lowered=lowered)

    assert told(lead * 0.9) == free
    (other,) = told(lead * 1.1)
    assert other[0] != first


def test_a_token_is_lowered_at_the_beginning_alone_and_for_each_of_a_batch(models: Models) -> None:
    prompts = [models.generator.prompt_from_text("Who?", PASSAGES[:n]) for n in (0, 1, 2)]
    free = models.generator.generate(prompts, max_new_tokens=6)
    (second, *_) = (row[1] for row in free if row[1] != row[0])
    same = models.generator.generate(prompts, max_new_tokens=6, lowered=Lowered(second, 1e9))
    assert [ids for ids in free if ids[0] != second] == [
        found for ids, found in zip(free, same, strict=True) if ids[0] != second
    ]
    gone = Lowered(free[0][0], 1e9)
    together = models.generator.generate(prompts, max_new_tokens=6, lowered=gone)
    assert all(ids[0] != gone.token for ids in together)
    alone = [models.generator.generate([p], max_new_tokens=6, lowered=gone)[0] for p in prompts]
    assert together == alone


def test_text_and_latents_have_margins_of_their_own_and_the_base_has_none(models: Models) -> None:
    latents = models.compressor.compress(PASSAGES)
    plain = replace(models.generator, reads_text=True)

    def firsts(generator: Generator) -> tuple[int, int]:
        text = generator.answer_from_text("Who?", PASSAGES, max_new_tokens=1)
        latent = generator.answer_from_latents("Who?", latents, max_new_tokens=1)
        return text.token_ids[0], latent.token_ids[0]

    text, latent = firsts(plain)
    never = Hesitant(from_text=Lowered(text, 1e9), from_latents=Lowered(latent, 1e9))
    other = firsts(replace(plain, hesitant=never))
    assert other[0] != text
    assert other[1] != latent
    assert firsts(replace(plain, hesitant=replace(never, from_latents=None))) == (other[0], latent)
    base = replace(models.generator, reads_text=False)
    untold = base.answer_from_text("Who?", PASSAGES, max_new_tokens=1).token_ids[0]
    mute = replace(base, hesitant=Hesitant(from_text=Lowered(untold, 1e9)))
    assert mute.answer_from_text("Who?", PASSAGES, max_new_tokens=1).token_ids[0] == untold


def test_a_checkpoint_says_by_how_much_a_refusal_must_lead(
    trained: Checkpoint, opened: Callable[..., Models]
) -> None:
    measured = replace(trained.config, text_refusal_margin=1.5, refusal_margins=(0.5,))
    found = opened(replace(trained, config=measured)).generator
    (first, *_), *_ = found.tokens.encode([NOT_IN_DOCUMENTS])
    assert found.hesitant == Hesitant(Lowered(first, 1.5), Lowered(first, 0.5))
    assert opened(trained).generator.hesitant == HESITANT_NEVER


def test_a_stream_gives_the_ids_of_generate_as_text_step_by_step(models: Models) -> None:
    prompt = models.generator.prompt_from_text("Who?", PASSAGES)
    (ids,) = models.generator.generate([prompt], max_new_tokens=25)
    pieces = []
    for piece in models.generator.stream(prompt, max_new_tokens=25):
        assert not torch.is_inference_mode_enabled()
        pieces.append(piece)
    assert "".join(pieces) == models.tokens.decode(ids)
    assert len(pieces) > 2


def test_a_stream_ends_at_an_end_token(models: Models) -> None:
    prompt = models.generator.prompt_from_text("Who?", PASSAGES)
    (ids,) = models.generator.generate([prompt], max_new_tokens=9)
    ending = replace(models.generator, ends=frozenset({ids[3]}))
    stop = ids.index(ids[3])
    assert "".join(ending.stream(prompt, max_new_tokens=9)) == models.tokens.decode(ids[: stop + 1])


def test_the_same_seed_gives_the_same_answer_and_another_one_another(models: Models) -> None:
    def answer(temperature: float, seed: int) -> tuple[int, ...]:
        return models.generator.answer_from_text(
            "Who?", PASSAGES, max_new_tokens=12, sampling=Sampling(temperature, seed)
        ).token_ids

    assert answer(2.0, 1) == answer(2.0, 1)
    assert len({answer(2.0, seed) for seed in range(4)}) == 4
    assert answer(0.0, 1) == answer(0.0, 2)
    assert answer(1e-4, 1) == answer(0.0, 0)


def test_a_sampled_answer_does_not_depend_on_its_neighbours(models: Models) -> None:
    prompts = [models.generator.prompt_from_text("Who?", PASSAGES[:n]) for n in (0, 1, 2)]
    sampling = Sampling(1.5, seed=7)
    together = models.generator.generate(prompts, max_new_tokens=10, sampling=sampling)
    assert together == [
        models.generator.generate([prompt], max_new_tokens=10, sampling=sampling)[0]
        for prompt in prompts
    ]


def test_drawing_leaves_torchs_own_random_state_alone(models: Models) -> None:
    before = torch.random.get_rng_state()
    models.generator.answer_from_text(
        "Who?", PASSAGES, max_new_tokens=3, sampling=Sampling(1.0, seed=1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
