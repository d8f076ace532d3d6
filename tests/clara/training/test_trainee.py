from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from clara.errors import InvalidTraining
from clara.model.backbone import head_of
from clara.model.models import load_models
from clara.training.config import from_dict
from clara.training.end_to_end import EndToEnd
from clara.training.probe import Probe
from clara.training.records import QuestionRecord, Record
from clara.training.stages import Objective
from clara.training.target import Target
from clara.training.trainee import Trainee
from tests.clara.training.conftest import (
    DOCUMENTS,
    Begun,
    as_checkpoint,
    config,
    questions,
    readings,
    shaken,
)

KINDS = pytest.mark.parametrize("kind", ["memory", "pooled", "contextual"])


def begin_kind(
    begun: Begun, kind: str, stage: int = 1, **changes: Any
) -> tuple[Trainee, Objective]:
    latents = {"contextual": True} if kind == "contextual" else {}
    name = "memory" if kind == "memory" else "pooled"
    return begun(config(stage, name, latents=latents, **changes))


def losses_of(
    trainee: Trainee, objective: Objective, records: Sequence[Record]
) -> dict[str, Tensor]:
    examples = [objective.example(record, Random(record.id)) for record in records]  # noqa: S311
    return dict(objective(trainee, [example for example in examples if example is not None]))


@KINDS
def test_what_is_trained_answers_as_what_is_served(begun: Begun, kind: str) -> None:
    trainee, _ = begin_kind(begun, kind)
    shaken(trainee)
    models = load_models(as_checkpoint(trainee), device="cpu", dtype=torch.float32)
    served = models.compressor.compress(DOCUMENTS[:2])
    ids = [
        [*row, *(trainee.tokens.memory if kind == "memory" else ())]
        for row in trainee.tokens.wrapped(DOCUMENTS[:2])
    ]
    with torch.no_grad():
        trained, _ = trainee.compress("compressor", ids)
        for a, b in zip(trained, served, strict=True):
            assert torch.allclose(a, b, atol=1e-4)
        prompt = models.tokens.prompts.from_latents("Who?", [len(block) for block in served])
        tokens = models.tokens.encode([prompt])[0]
        target = Target([*tokens, 5], len(tokens), trained)
        got = trainee.answers([target])[0]
        embeds = models.generator.prompt_from_latents("Who?", served)
        hidden = models.generator.model.base_model(inputs_embeds=embeds[None]).last_hidden_state
        wanted = head_of(models.generator.model)(hidden[0, -1])
    assert torch.allclose(got, wanted, atol=1e-3)


@KINDS
def test_one_batch_has_the_gradients_of_its_parts(begun: Begun, kind: str) -> None:
    trainee, objective = begin_kind(begun, kind)
    shaken(trainee)
    learned = trainee.learn(objective.learning)

    def gradients(parts: Sequence[Sequence[Record]]) -> dict[str, Tensor]:
        for parameter in learned.values():
            parameter.grad = None
        for part in parts:
            sum(losses_of(trainee, objective, part).values(), torch.zeros(())).backward()
        return {name: p.grad.clone() for name, p in learned.items() if p.grad is not None}

    records = readings()
    whole, apart = gradients([records]), gradients([[record] for record in records])
    assert whole.keys() == apart.keys() == learned.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, apart[name], atol=1e-4 * float(gradient.abs().max())), name


@KINDS
def test_recomputing_blocks_changes_no_gradient(begun: Begun, kind: str) -> None:
    found = []
    for recompute in (False, True):
        trainee, objective = begin_kind(begun, kind, optimiser={"recompute": recompute})
        shaken(trainee)
        learned = trainee.learn(objective.learning)
        losses_of(trainee, objective, readings())["answer"].backward()
        found.append({name: p.grad for name, p in learned.items()})
    for name, gradient in found[0].items():
        again = found[1][name]
        assert (gradient is None) == (again is None)
        if gradient is not None and again is not None:
            assert torch.allclose(gradient, again, atol=1e-4 * float(gradient.abs().max())), name


def moved(trainee: Trainee, objective: Objective, records: Sequence[Record]) -> set[str]:
    """Groups of parameters that one step changes."""
    learned = trainee.learn(objective.learning)
    before = {name: p.detach().clone() for name, p in trainee.named_parameters()}
    optimiser = torch.optim.SGD(learned.values(), lr=0.1)
    sums = losses_of(trainee, objective, records)
    torch.stack([sums[name] * w for name, w in objective.weights.items() if w]).sum().backward()
    optimiser.step()
    names = [n for n, p in trainee.named_parameters() if not torch.equal(p, before[n])]
    groups = ("compressor", "reasoner", "generator", "memory_rows")
    return {next((g for g in groups if n.endswith(g) or f".{g}." in n), n) for n in names}


def test_stage_1_moves_compressor_generator_and_in_a_new_training_the_memory_rows(
    begun: Begun,
) -> None:
    trainee, objective = begun(config(1))
    shaken(trainee)
    assert moved(trainee, objective, readings()) == {"compressor", "generator", "memory_rows"}
    again, objective = begun(config(1), as_checkpoint(trainee))
    assert moved(again, objective, readings()) == {"compressor", "generator"}


def test_stage_2_moves_compressor_and_generator(begun: Begun) -> None:
    first, _ = begun(config(1))
    shaken(first)
    trainee, objective = begun(config(2, new_generator=False), as_checkpoint(first))
    assert moved(trainee, objective, questions()) == {"compressor", "generator"}


def test_stage_2_on_text_alone_moves_the_generator_alone(begun: Begun) -> None:
    first, _ = begun(config(1))
    shaken(first)
    text = config(2, new_generator=False, text_share=1)
    trainee, objective = begun(text, as_checkpoint(first))
    assert moved(trainee, objective, questions()) == {"generator"}


@pytest.mark.parametrize(
    ("stage", "changes", "stays"),
    [
        (1, {}, False),
        (2, {"new_generator": False}, False),
        (3, {}, False),
        (3, {"answer_weight": 0.0, "retrieval_weight": 1.0}, True),
    ],
)
def test_what_was_measured_of_a_generator_lasts_until_it_is_trained(
    begun: Begun, stage: int, changes: dict[str, Any], stays: bool
) -> None:
    first, _ = begun(config(1, "pooled"))
    start = as_checkpoint(first, "stage2")
    margins = {"text_refusal_margin": 1.5, "refusal_margins": (0.5, 2.0)}
    measured = replace(start, config=replace(start.config, **margins))
    trainee, _ = begun(config(stage, "pooled", **changes), measured)
    kept = (trainee.config.text_refusal_margin, trainee.config.refusal_margins)
    assert kept == ((1.5, (0.5, 2.0)) if stays else (None, ()))


@pytest.mark.parametrize("kind", ["memory", "pooled"])
def test_stage_3_moves_reasoner_and_generator_and_leaves_latents_alone(
    begun: Begun, kind: str
) -> None:
    first, _ = begun(config(1, kind))
    shaken(first)
    start = as_checkpoint(first, stage="stage1_2")
    trainee, objective = begun(config(3, kind, retrieval_weight=1.0), start)
    ids = [
        [*row, *(trainee.tokens.memory if kind == "memory" else ())]
        for row in trainee.tokens.wrapped(DOCUMENTS[:1])
    ]
    before = trainee.compress("compressor", ids)[0][0].detach().clone()
    assert moved(trainee, objective, questions(5)) == {"reasoner", "generator"}
    assert torch.equal(trainee.compress("compressor", ids)[0][0], before)


def test_stage_3_may_go_over_to_late_interaction_and_serves_what_it_trained(
    begun: Begun, base: Path
) -> None:
    first, _ = begun(config(1, "pooled"))
    shaken(first)
    start = as_checkpoint(first, stage="stage1_2")
    ranking = {"answer_weight": 0.0, "retrieval_weight": 1.0}
    trainee, objective = begun(config(3, "pooled", interaction="late", **ranking), start)
    assert isinstance(objective, EndToEnd)
    assert moved(trainee, objective, questions(5)) == {"reasoner"}
    made = as_checkpoint(trainee, stage="stage2")
    assert made.config.interaction == "late"
    models = load_models(made, base=base, device="cpu", dtype=torch.float32, rate=4)
    record = next(one for one in questions(5) if isinstance(one, QuestionRecord))
    example = replace(objective.example(record, Random(0)), rate=4)  # type: ignore[type-var]  # noqa: S311
    with torch.no_grad():
        _, scores = objective._scored(trainee, example)
    blocks = models.compressor.compress(list(record.documents), cut=True)
    served = models.score(models.reasoner.encode([record.question])[0], blocks)
    assert torch.allclose(scores, served, atol=1e-5)


@KINDS
def test_without_weight_on_the_answer_the_reasoner_alone_learns(begun: Begun, kind: str) -> None:
    first, _ = begin_kind(begun, kind)
    shaken(first)
    ranking = config(3, "memory" if kind == "memory" else "pooled").as_dict()
    ranking |= {"answer_weight": 0.0, "retrieval_weight": 1.0}
    trainee, objective = begun(from_dict(ranking), as_checkpoint(first, stage="stage1_2"))
    shaken(trainee)
    assert moved(trainee, objective, questions(5)) == {"reasoner"}
    assert losses_of(trainee, objective, questions(5))["answer"] == 0
    found = Probe(trainee, objective, questions(5), seed=0).scores()
    assert found["score"] == found["retrieval"] > 0
    assert "wrong" not in found


def test_a_last_stage_that_learns_nothing_is_refused() -> None:
    with pytest.raises(InvalidTraining, match="both 0: nothing is learned"):
        from_dict({"stage": 3, "answer_weight": 0})


def test_a_new_generator_answers_as_the_base_does(begun: Begun) -> None:
    first, _ = begun(config(1))
    shaken(first)
    trainee, _ = begun(config(2), as_checkpoint(first))
    latents = [torch.zeros(8, 32)]
    ids = trainee.tokens.encode([trainee.tokens.prompts.from_latents("Who?", 1)])[0]
    target = Target([*ids, 5], len(ids), latents)
    with torch.no_grad():
        assert torch.equal(trainee.answers([target]), trainee.answers([target], role=None))


def test_gradients_reach_the_query_through_candidates_that_were_not_chosen(begun: Begun) -> None:
    first, _ = begun(config(1))
    shaken(first)
    trainee, objective = begun(config(3), as_checkpoint(first, stage="stage1_2"))
    learned = trainee.learn(("reasoner",))
    losses_of(trainee, objective, questions(6))["answer"].backward()
    norms = [float(p.grad.norm()) for p in learned.values() if p.grad is not None]
    assert len(norms) == len(learned)
    assert max(norms) > 0
