from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from clara.errors import InvalidDataset, TextTooLong
from clara.evaluation import likelihood as module
from clara.evaluation.datasets import Record
from clara.evaluation.likelihood import answer_ids, gap_closed, likelihoods, others
from clara.evaluation.options import Reader
from clara.model.generator import Generator
from clara.model.models import Models


def direct(models: Models, record: Record, reading: str, wrong: Record) -> tuple[float, int]:
    """The slow way: question and answer written out together, logits at every position."""
    tokens, prompts = models.tokens, models.tokens.prompts
    generator: Generator = models.generator
    answer = record.gold_answer
    if reading in ("none", "text"):
        passages = record.gold_docs if reading == "text" else ()
        asked = prompts.from_text(record.question, passages)
        whole = prompts.from_text(record.question, passages, answer)
        model, ids = generator.text_model, tokens.encode([whole])[0]
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    else:
        gold = record.gold_docs if reading == "right" else wrong.gold_docs
        latents = models.compressor.compress(gold)
        rows = [len(latent) for latent in latents]
        asked = prompts.from_latents(record.question, rows)
        ids = tokens.encode([prompts.from_latents(record.question, rows, answer)])[0]
        embeds = generator.place(ids, latents)
        logits = generator.model(inputs_embeds=embeds[None]).logits[0]
    start = len(tokens.encode([asked])[0])
    end = ids.index(tokens.eos, start)
    wanted = torch.tensor(ids[start:end])
    loss = cross_entropy(logits[start - 1 : end - 1], wanted, reduction="sum")
    return float(loss), len(wanted)


def slow(models: Models, records: list[Record]) -> dict[str, float]:
    means = {}
    for reading in ("none", "text", "right", "wrong"):
        found = [
            direct(models, record, reading, records[(at + 1) % len(records)])
            for at, record in enumerate(records)
        ]
        means[reading] = sum(loss for loss, _ in found) / sum(count for _, count in found)
    return means


@pytest.mark.parametrize("kind", ["models", "pooled"])
def test_all_four_readings_are_what_direct_computation_gives(
    request: pytest.FixtureRequest, kind: str, records: list[Record]
) -> None:
    opened: Models = request.getfixturevalue(kind)
    wanted = slow(opened, records)
    assert likelihoods(opened, records) == pytest.approx(wanted, rel=1e-5)
    assert len({round(value, 4) for value in wanted.values()}) == 4


def test_batches_and_groups_do_not_change_the_result(
    models: Models, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = likelihoods(models, records)
    monkeypatch.setattr(module, "GROUP", 3)
    told: list[tuple[str, int, int]] = []
    found = likelihoods(models, records, batch_tokens=1, progress=lambda *said: told.append(said))
    assert found == pytest.approx(wanted, rel=1e-5)
    assert told[-1] == ("answers", 16, 16)


def test_text_can_be_read_by_the_generator(models: Models, records: list[Record]) -> None:
    base = likelihoods(models, records)
    tuned = likelihoods(models, records, text_reader=Reader.GENERATOR)
    same = replace(models, generator=replace(models.generator, text_model=models.generator.model))
    assert tuned == pytest.approx(slow(same, records), rel=1e-5)
    assert tuned["text"] != pytest.approx(base["text"], rel=1e-3)
    assert tuned["right"] == pytest.approx(base["right"], rel=1e-6)


def test_an_answer_ends_before_the_templates_end_of_turn(models: Models) -> None:
    ids = answer_ids(models.tokens, "Who?", "Margaret Osgood")
    assert models.tokens.decode(ids) == "Margaret Osgood"
    assert not models.tokens.control & set(ids)


def test_records_without_gold_are_left_out(models: Models, records: list[Record]) -> None:
    nothing = replace(records[0], id="x", pos_index=())
    assert likelihoods(models, [nothing, *records]) == pytest.approx(
        likelihoods(models, records), rel=1e-6
    )


def test_the_other_record_shares_no_gold_passage() -> None:
    assert others([["a"], ["a"], ["b"], ["a", "c"]]) == [2, 2, 3, 2]
    with pytest.raises(InvalidDataset, match="two records with different gold passages"):
        others([["a"], ["a", "b"]])


def test_a_prompt_over_the_context_names_its_record(models: Models, records: list[Record]) -> None:
    small = replace(models, generator=replace(models.generator, context=60))
    with pytest.raises(TextTooLong, match=r"have .* tokens; the base reads 60") as caught:
        likelihoods(small, records)
    assert caught.value.field == "a"


def test_the_gap_closed_is_a_share_of_what_the_text_helps() -> None:
    found = {"none": 6.0, "text": 4.0, "right": 4.5, "wrong": 6.5}
    assert gap_closed(found) == 0.75
    assert gap_closed({**found, "text": 6.0}) is None
