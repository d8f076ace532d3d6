"""Published numbers: a checkpoint in the original form gives them again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from clara import CLaRa
from clara.model.backbone import head_of
from clara.model.topk import select
from tests.clara.model.golden import CASES, FOLDER, TOLERANCE, Case, error, open_case


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return open_case(request.param)


def test_added_tokens_have_the_published_ids(case: Case) -> None:
    tokens, wanted = case.models.tokens, case.expected["tokens"]
    assert list(tokens.memory) == wanted["mem_token_ids"]
    assert tokens.n_mem == case.expected["n_mem_tokens"]
    assert (tokens.enc, tokens.sep) == (wanted["enc"], wanted["sep"])
    assert (tokens.bos, tokens.eos, tokens.pad) == (wanted["bos"], wanted["eos"], wanted["pad"])
    assert tokens.size == wanted["embed_rows"]


def test_documents_have_the_published_ids_and_latents(case: Case) -> None:
    encoder, limit = case.expected["encoder"], case.models.tokens.doc_max_length
    latents = case.compress(encoder["texts"])
    plain = [i for i, name in enumerate(encoder["names"]) if name != "special_tokens_in_text"]
    for i in plain:
        row = case.models.tokens.wrapped([encoder["texts"][i]])[0][: limit + 3]
        mask = case.tensors["encoder.attention_mask"][i].bool()
        ids = case.tensors["encoder.input_ids"][i][mask].tolist()
        assert [*row, *case.models.tokens.memory] == ids
    wanted = case.tensors["encoder.latents"][plain]
    assert error(torch.stack([latents[i] for i in plain]), wanted) < TOLERANCE


def test_written_out_control_tokens_stay_plain_text(case: Case) -> None:
    encoder = case.expected["encoder"]
    texts = [encoder["texts"][encoder["names"].index("special_tokens_in_text")]]
    texts += encoder["literal_mem_token_in_text"]["texts"]
    for row in case.models.tokens.wrapped(texts):
        assert not case.models.tokens.control & set(row[2:-1])


def test_questions_have_the_published_ids_and_query_latents(case: Case) -> None:
    if "query" not in case.expected:
        pytest.skip("a stage without questions")
    texts = case.expected["query"]["texts"]
    for i, row in enumerate(case.models.reasoner.kind.ids(texts)):
        mask = case.tensors["query.attention_mask"][i].bool()
        assert row == case.tensors["query.input_ids"][i][mask].tolist()
    got = torch.stack(case.models.reasoner.encode(texts)).flatten(1)
    assert error(got, case.tensors["query.reps"]) < TOLERANCE


def test_scores_and_selections_are_the_published_ones(case: Case) -> None:
    for i, trial in enumerate(case.expected.get("retrieval", [])):
        wanted = case.tensors[f"retrieval.{i}.scores"]
        queries = case.models.reasoner.encode(trial["questions"])
        rows = [
            case.models.score(query, case.compress(texts))
            for query, texts in zip(queries, trial["candidates"], strict=True)
        ]
        assert error(torch.stack(rows), wanted) < TOLERANCE
        for k, chosen in trial["topk"].items():
            assert select(torch.stack(rows), int(k), temperature=0.02)[1].tolist() == chosen


def test_prompts_have_the_published_text_and_ids(case: Case) -> None:
    tokens = case.models.tokens
    builders: dict[str, Callable[[dict[str, Any]], str]] = {
        "stage1_2": lambda p: tokens.prompts.from_latents(p["question"], k(p), p["answer"]),
        "stage2": lambda p: tokens.prompts.from_latents(p["question"], k(p), p["answer"]),
        "stage1_qa": lambda p: tokens.prompts.questions(k(p), pairs(p)),
        "stage1_paraphrase": lambda p: tokens.prompts.paraphrase(
            k(p), p["paraphrase_index"], p["answer"]
        ),
    }

    def k(prompt: dict[str, Any]) -> int:
        return int(prompt["generation_top_k"])

    def pairs(prompt: dict[str, Any]) -> list[tuple[str, str]] | None:
        answers = prompt["answer"]
        return answers and list(zip(prompt["question"], answers, strict=True))

    for prompt in case.expected["prompts"]:
        text = builders[prompt["fn"]](prompt)
        assert text == prompt["text"]
        assert tokens.encode([text])[0] == prompt["ids"]
        if prompt["prompt_len"] is not None:
            alone = builders[prompt["fn"]]({**prompt, "answer": None})
            assert len(tokens.encode([alone])[0]) == prompt["prompt_len"]


def test_answers_are_the_published_ones(case: Case) -> None:
    for i, trial in enumerate(case.expected["generation"]):
        prompts = prompts_of(case, trial)
        embeds = case.tensors.get(f"generation.{i}.inputs_embeds")
        if embeds is not None:
            mask = case.tensors[f"generation.{i}.attention_mask"].bool()
            for prompt, row, valid in zip(prompts, embeds, mask, strict=True):
                assert error(prompt, row[valid]) < TOLERANCE
        generator = case.models.generator
        states = [generator.model.base_model(inputs_embeds=p[None]) for p in prompts]
        last = torch.cat([state.last_hidden_state[:, -1] for state in states])
        wanted = case.tensors[f"generation.{i}.first_logits"]
        assert error(head_of(generator.model)(last), wanted) < TOLERANCE
        alone = [
            ids
            for prompt in prompts
            for ids in generator.generate([prompt], max_new_tokens=trial["max_new_tokens"])
        ]
        together = generator.generate(prompts, max_new_tokens=trial["max_new_tokens"])
        for ids in (alone, together):
            assert [filled(case, row, trial) for row in ids] == trial["token_ids"]
            assert [generator.text_of(row) for row in ids] == [t.strip() for t in trial["text"]]


def prompts_of(case: Case, trial: dict[str, Any]) -> list[Tensor]:
    generator, documents = case.models.generator, trial["documents"]
    latents = [case.compress(texts) for texts in documents]
    if trial["fn"] == "generate_from_questions":
        latents = [
            [row[i] for i in chosen] for row, chosen in zip(latents, trial["topk_idx"], strict=True)
        ]
    if trial["fn"] == "generate_from_paraphrase":
        texts = [
            case.models.tokens.prompts.paraphrase(len(row), trial["paraphrase_index"])
            for row in latents
        ]
        ids = case.models.tokens.encode(texts)
        return [generator.place(*pair) for pair in zip(ids, latents, strict=True)]
    return [
        generator.prompt_from_latents(*pair)
        for pair in zip(trial["questions"], latents, strict=True)
    ]


def test_the_published_calls_give_the_published_answers_and_choices(case: Case) -> None:
    model = CLaRa.from_pretrained(
        FOLDER / "checkpoints",
        subfolder=case.name,
        base=FOLDER / case.expected["base"],
        device="cpu",
        dtype="float32",
    )
    for trial in case.expected["generation"]:
        options = {"max_new_tokens": trial["max_new_tokens"]}
        if trial["fn"] == "generate_from_compressed_documents_and_questions":
            latents = [
                model.compress_documents(texts, long_documents="cut")
                for texts in trial["documents"]
            ]
            found = model.generate_from_latents(trial["questions"], latents, **options)
        else:
            call = getattr(model, trial["fn"])
            options |= {ours: trial[theirs] for theirs, ours in OPTIONS.items() if theirs in trial}
            found = call(
                questions=trial["questions"],
                documents=trial["documents"],
                long_documents="cut",
                **options,
            )
        if "topk_idx" in trial:
            found, chosen = found
            assert chosen == trial["topk_idx"]
        assert found == trial["text"]


OPTIONS = {"paraphrase_index": "instruction", "generation_top_k": "generation_top_k"}
"""What a recorded trial calls an argument, and what it is called here."""


def filled(case: Case, ids: list[int], trial: dict[str, Any]) -> list[int]:
    """Ids up to the longest answer of the published batch, filled with pad."""
    return ids + [case.models.tokens.pad] * (len(trial["token_ids"][0]) - len(ids))


TOPK = json.loads((FOLDER / "topk.json").read_text())["cases"]


@pytest.mark.parametrize("trial", TOPK, ids=lambda t: f"{t['shape']}-{t['k']}-{t['temperature']}")
def test_differentiable_top_k_gives_the_published_weights_and_gradients(
    trial: dict[str, Any],
) -> None:
    tensors = load_file(FOLDER / "topk.safetensors")
    tag = f"{trial['shape']}.{trial['k']}.{trial['temperature']}"
    scores = tensors[f"logits.{trial['shape']}"].requires_grad_()
    weights, chosen = select(scores, trial["k"], temperature=trial["temperature"])
    (weights * tensors[f"cotangent.{trial['shape']}.{trial['k']}"]).sum().backward()
    assert chosen.tolist() == tensors[f"indices.{tag}"].tolist()
    assert torch.allclose(weights, tensors[f"weights.{tag}"], atol=1e-6)
    assert scores.grad is not None
    wanted = tensors[f"grad.{tag}"]
    assert (scores.grad - wanted).abs().max() <= 1e-3 * wanted.abs().max() + 1e-12
