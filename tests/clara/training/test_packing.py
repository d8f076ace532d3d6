from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
import torch
from torch import Tensor

from clara.training.compression import Reading
from clara.training.losses import answer_nll
from clara.training.packing import pack, visible
from clara.training.target import Target
from clara.training.trainee import Trainee
from tests.clara.training.conftest import DOCUMENTS, Begun, config, readings, shaken

MEMORY = (7,)
LATENTS = [torch.zeros(2, 4)]


def asked(trainee: Trainee, document: str, pairs: Sequence[tuple[str, str]]) -> list[Target]:
    """Questions about one document, as stage 1 asks them alone."""
    blocks, _ = trainee.compress("compressor", trainee.tokens.wrapped([document]))
    prompts, rows = trainee.tokens.prompts, [len(blocks[0])]
    found = []
    for question, answer in pairs:
        prompt, whole = trainee.tokens.encode(
            [prompts.from_latents(question, rows), prompts.from_latents(question, rows, answer)]
        )
        found.append(Target(whole, len(prompt), blocks))
    return found


def alone(targets: Sequence[Target]) -> list[Target]:
    """The same with a list of latents of their own each, so that nothing is packed."""
    return [replace(target, latents=list(target.latents)) for target in targets]


def loss_and_gradients(
    trainee: Trainee, learned: dict[str, torch.nn.Parameter], targets: Sequence[Target]
) -> tuple[float, dict[str, Tensor]]:
    for parameter in learned.values():
        parameter.grad = None
    loss = answer_nll(trainee.answers(targets), trainee.labels(targets))
    loss.backward(retain_graph=True)
    found = {n: p.grad.clone() for n, p in learned.items() if p.grad is not None}
    return float(loss.detach()), found


def test_packed_questions_have_the_loss_and_the_gradients_of_separate_ones(begun: Begun) -> None:
    trainee, objective = begun(config(1, "pooled"))
    for name, parameter in trainee.named_parameters():
        if "up." in name or "down." in name:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    learned = trainee.learn(objective.learning)
    targets = [
        *asked(trainee, DOCUMENTS[0], [("Who built it?", "Osgood"), ("When?", "1874"), ("?", "x")]),
        *asked(trainee, DOCUMENTS[1], [("What came?", "tea")]),
        *asked(trainee, DOCUMENTS[2], [("Who?", "the bees"), ("Where?", "on the comb of wax")]),
    ]
    packed, separate = (
        loss_and_gradients(trainee, learned, found) for found in (targets, alone(targets))
    )
    assert len(pack(targets, trainee.tokens.memory)) == 3
    assert packed[0] == pytest.approx(separate[0], rel=1e-5)
    assert packed[1].keys() == separate[1].keys()
    for name, gradient in packed[1].items():
        assert torch.allclose(gradient, separate[1][name], rtol=1e-3, atol=1e-5), name


def test_questions_share_a_documents_text_too(begun: Begun) -> None:
    trainee, objective = begun(config(1, "pooled", text_share=0.9, pairs_as="single"))
    shaken(trainee)
    learned = trainee.learn(objective.learning)
    example = objective.example(readings()[0], Random(0))  # noqa: S311
    assert isinstance(example, Reading)
    assert not example.documents
    read: list[Tensor] = []
    targets = [Target(ids, prompt, read) for ids, prompt in example.targets]
    packed, separate = (
        loss_and_gradients(trainee, learned, found) for found in (targets, alone(targets))
    )
    assert [len(one.parts) for one in pack(targets, trainee.tokens.memory)] == [2]
    assert packed[0] == pytest.approx(separate[0], rel=1e-5)
    for name, gradient in packed[1].items():
        assert torch.allclose(gradient, separate[1][name], rtol=1e-3, atol=1e-5), name


def test_a_part_sees_what_is_shared_and_itself() -> None:
    targets = [Target([1, 7, 7, 3, 4, 9], 5, LATENTS), Target([1, 7, 7, 3, 5, 8], 5, LATENTS)]
    (found,) = pack(targets, MEMORY)
    assert (found.shared, found.parts) == ([1, 7, 7, 3], ([4, 9], [5, 8]))
    assert found.positions == [0, 1, 2, 3, 4, 5, 4, 5]
    assert list(found.before_labels()) == [4, 6]
    mask = visible([found], 8, torch.device("cpu"))
    assert mask is not None
    assert mask[0, 0, 5].tolist() == [True] * 6 + [False] * 2
    assert mask[0, 0, 7].tolist() == [True] * 4 + [False] * 2 + [True] * 2


def test_prompts_that_differ_before_their_latents_stay_apart() -> None:
    targets = [Target([1, 7, 7, 3, 9], 4, LATENTS), Target([2, 7, 7, 3, 9], 4, LATENTS)]
    assert [one.ids for one in pack(targets, MEMORY)] == [targets[0].ids, targets[1].ids]


def test_latents_of_another_document_are_never_shared() -> None:
    targets = [Target([1, 7, 7, 3, 9], 4, LATENTS), Target([1, 7, 7, 3, 9], 4, list(LATENTS))]
    assert len(pack(targets, MEMORY)) == 2


def test_the_token_before_the_first_label_is_every_parts_own() -> None:
    targets = [Target([1, 7, 7, 3, 9], 4, LATENTS), Target([1, 7, 7, 3, 8], 4, LATENTS)]
    (found,) = pack(targets, MEMORY)
    assert found.shared == [1, 7, 7]
    assert list(found.before_labels()) == [3, 5]


def test_sequences_of_one_target_need_no_mask() -> None:
    found = pack([Target([1, 7, 3, 9], 3, LATENTS)], MEMORY)
    assert visible(found, 4, torch.device("cpu")) is None
    assert found[0].positions == [0, 1, 2, 3]
