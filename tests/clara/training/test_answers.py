from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from clara.model.models import Models, load_models
from clara.training.answers import Answers
from clara.training.records import CompressionRecord, QuestionRecord, Record
from clara.training.trainee import Trainee
from tests.clara.training.conftest import (
    Begun,
    as_checkpoint,
    config,
    questions,
    readings,
    shaken,
)

LENGTH = {"eval_gen_tokens": 5}
KINDS = pytest.mark.parametrize("kind", ["memory", "pooled"])


def served(models: Models, question: str, documents: Sequence[str], *, choose: int = 0) -> str:
    """What the checkpoint answers when it is opened to serve."""
    blocks = models.compressor.compress(documents, cut=True)
    if choose:
        (query,) = models.reasoner.encode([question])
        best = models.score(query, blocks).argsort(descending=True)[:choose]
        blocks = [blocks[i] for i in best.tolist()]
    found = models.generator.answer_from_latents(question, blocks, max_new_tokens=5)
    return found.text


def begin(begun: Begun, stage: int, kind: str, **changes: Any) -> tuple[Trainee, Models, Any]:
    """A stage whose weights all show, and the same weights opened to serve."""
    first, _ = begun(config(1, kind))
    shaken(first)
    if stage == 1:
        trainee, chosen = first, config(1, kind, length=LENGTH)
    else:
        chosen = config(stage, kind, length=LENGTH, **changes)
        last = "stage1" if stage == 2 else "stage1_2"
        trainee, _ = begun(chosen, as_checkpoint(first, last), questions(4))
        shaken(trainee)
    models = load_models(as_checkpoint(trainee), device="cpu", dtype=torch.float32)
    return trainee, models, chosen


def scores_of(
    begun: Begun, stage: int, kind: str, records: Sequence[Record], *, right: bool, **changes: Any
) -> dict[str, float]:
    """Scores where the gold answer is what is served, or something else."""
    trainee, models, chosen = begin(begun, stage, kind, **changes)
    golds: list[Record] = []
    for record in records:
        assert isinstance(record, QuestionRecord)
        answer = served(models, record.question, record.documents, choose=2 if stage == 3 else 0)
        golds.append(replace(record, answer=answer if right else "something else"))
    return Answers(trainee, chosen, golds).scores()


@KINDS
@pytest.mark.parametrize("stage", [2, 3])
def test_a_stage_answers_as_its_checkpoint_will(begun: Begun, stage: int, kind: str) -> None:
    records = questions(2 if stage == 2 else 4)
    right = scores_of(begun, stage, kind, records, right=True)
    assert right["em"] == right["cover_em"] == 1.0
    assert scores_of(begun, stage, kind, records, right=False)["cover_em"] == 0.0
    assert ("recall@2" in right) == (stage == 3)


def test_stage_1_is_asked_the_first_question_of_each_document(begun: Begun) -> None:
    trainee, models, chosen = begin(begun, 1, "memory")
    records: list[Record] = []
    for record in readings():
        assert isinstance(record, CompressionRecord)
        if record.pairs:
            said = served(models, record.pairs[0][0], [record.document])
            records.append(replace(record, pairs=((record.pairs[0][0], said), ("Why?", "x"))))
        else:
            records.append(record)
    assert Answers(trainee, chosen, records).scores()["em"] == 1.0
    assert Answers(trainee, chosen, records[-1:]).scores() == {}


def test_a_generator_of_text_is_given_text(begun: Begun) -> None:
    trainee, models, chosen = begin(begun, 2, "memory", text_share=1, new_generator=False)
    generator = models.generator
    golds: list[Record] = []
    for record in questions():
        assert isinstance(record, QuestionRecord)
        prompt = generator.prompt_from_text(record.question, record.documents)
        (ids,) = generator.generate([prompt], max_new_tokens=5)
        golds.append(replace(record, answer=generator.text_of(ids)))
    assert Answers(trainee, chosen, golds).scores()["em"] == 1.0


def test_the_choice_is_measured_where_positives_are_known(begun: Begun) -> None:
    trainee, models, chosen = begin(begun, 3, "memory")
    golds: list[Record] = []
    for record in questions(4):
        assert isinstance(record, QuestionRecord)
        blocks = models.compressor.compress(record.documents, cut=True)
        (query,) = models.reasoner.encode([record.question])
        order = models.score(query, blocks).argsort(descending=True).tolist()
        golds.append(replace(record, positives=(order[1], order[3])))
    unknown = replace(questions(4)[0], positives=())  # type: ignore[type-var]
    assert Answers(trainee, chosen, [*golds, unknown]).scores()["recall@2"] == 0.5


def test_only_as_many_records_as_asked_for_are_answered(begun: Begun) -> None:
    trainee, models, _ = begin(begun, 2, "memory")
    record, *others = questions()
    assert isinstance(record, QuestionRecord)
    said = served(models, record.question, record.documents)
    one = config(2, length={**LENGTH, "eval_gen_records": 1})
    assert Answers(trainee, one, [replace(record, answer=said), *others]).scores()["em"] == 1.0


def test_a_question_too_long_for_the_base_is_a_wrong_answer(begun: Begun) -> None:
    trainee, _, chosen = begin(begun, 2, "memory")
    long = replace(questions()[0], question="Who? " * 700, answer="the")  # type: ignore[call-arg]
    assert Answers(trainee, chosen, [long]).scores() == {"cover_em": 0.0, "em": 0.0, "f1": 0.0}


def test_answering_leaves_the_model_training(begun: Begun) -> None:
    trainee, _, chosen = begin(begun, 2, "memory")
    trainee.train()
    Answers(trainee, chosen, questions()).scores()
    assert trainee.training
    assert trainee.switch.role is None
