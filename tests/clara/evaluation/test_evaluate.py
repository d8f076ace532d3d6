from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from clara.errors import InvalidInput, TextTooLong
from clara.evaluation import evaluate as module
from clara.evaluation.bm25 import Bm25
from clara.evaluation.datasets import Record
from clara.evaluation.evaluate import evaluate
from clara.evaluation.latents import PassageLatents
from clara.evaluation.options import Options, Ranker, Reader, Reading, Setting
from clara.model.checkpoint import untrained
from clara.model.decoding import Lowered
from clara.model.generator import Hesitant
from clara.model.models import Models
from clara.wording import NOT_IN_DOCUMENTS

FEW = 6
"""Tokens of an answer here."""


def options(**given: Any) -> Options:
    return Options(**{"max_new_tokens": FEW, "top_k": 3, **given})


def latents_of(models: Models, texts: Sequence[str]) -> list[Tensor]:
    return [models.compressor.compress([text])[0] for text in texts]


def cosines(models: Models, record: Record) -> list[float]:
    """The slow way: every text by itself, the original's definition of the score."""
    query = models.reasoner.encode([record.question])[0].flatten()
    blocks = [latent.flatten() for latent in latents_of(models, record.docs)]
    return [float(cosine_similarity(query, block, dim=0)) for block in blocks]


def test_latents_rank_the_candidates_and_the_best_are_read_in_that_order(
    models: Models, records: list[Record]
) -> None:
    found = evaluate(models, records, options())
    assert found.ranker is Ranker.LATENT
    for row, record in zip(found.rows, records, strict=True):
        slow = cosines(models, record)
        wanted = sorted(range(len(slow)), key=lambda i: -slow[i])
        assert row.ranking.order == tuple(wanted)
        assert row.ranking.selected == tuple(wanted[:3])
        assert row.ranking.scores[Ranker.LATENT] == pytest.approx(slow, abs=1e-5)
        read = latents_of(models, [record.docs[i] for i in wanted[:3]])
        answer = models.generator.answer_from_latents(record.question, read, max_new_tokens=FEW)
        assert row.prediction == answer.text
        assert row.answer_tokens == len(answer.token_ids)


def test_latents_may_have_as_many_rows_as_their_passage_is_long(
    pooled: Models, records: list[Record]
) -> None:
    found = evaluate(pooled, records, options())
    rows = [len(latent) for latent in latents_of(pooled, records[0].docs)]
    assert len(set(rows)) > 1
    for row, record in zip(found.rows, records, strict=True):
        query = pooled.reasoner.encode([record.question])[0].mean(0)
        blocks = [latent.mean(0) for latent in latents_of(pooled, record.docs)]
        slow = [float(cosine_similarity(query, block, dim=0)) for block in blocks]
        assert row.ranking.scores[Ranker.LATENT] == pytest.approx(slow, abs=1e-5)
        read = latents_of(pooled, [record.docs[i] for i in row.ranking.selected])
        answer = pooled.generator.answer_from_latents(record.question, read, max_new_tokens=FEW)
        assert row.prediction == answer.text


def test_text_is_read_by_the_base_or_by_the_generator(
    models: Models, records: list[Record]
) -> None:
    base = evaluate(models, records, options(mode=Reading.TEXT))
    tuned = evaluate(models, records, options(mode=Reading.TEXT, reader=Reader.GENERATOR))
    assert base.ranker is Ranker.BM25
    assert [row.prediction for row in base.rows] != [row.prediction for row in tuned.rows]
    for row, other, record in zip(base.rows, tuned.rows, records, strict=True):
        read = [record.docs[i] for i in row.ranking.selected]
        answer = models.generator.answer_from_text(record.question, read, max_new_tokens=FEW)
        assert row.prediction == answer.text
        prompt = models.generator.prompt_from_text(record.question, read)
        (ids,) = models.generator.generate([prompt], max_new_tokens=FEW)
        assert other.prediction == models.generator.text_of(ids)


@pytest.mark.parametrize("mode", [Reading.LATENT, Reading.TEXT])
def test_a_refusal_must_lead_by_what_the_checkpoint_says(
    models: Models, records: list[Record], mode: Reading
) -> None:
    asked = options(mode=mode, reader=Reader.GENERATOR)
    free = evaluate(models, records, asked).rows
    question, read = records[0].question, [records[0].docs[i] for i in free[0].ranking.selected]
    prompt = (
        models.generator.prompt_from_text(question, read)
        if mode is Reading.TEXT
        else models.generator.prompt_from_latents(question, latents_of(models, read))
    )
    ((first,),) = models.generator.generate([prompt], max_new_tokens=1)
    hesitant = Hesitant(Lowered(first, 1e9), Lowered(first, 1e9))
    slow = replace(models, generator=replace(models.generator, hesitant=hesitant))
    assert evaluate(slow, records, asked).rows[0].prediction != free[0].prediction
    base = options(mode=Reading.TEXT)
    predictions = [
        [row.prediction for row in evaluate(m, records, base).rows] for m in (models, slow)
    ]
    assert predictions[0] == predictions[1]


def test_without_documents_nothing_is_compressed_and_only_the_question_is_read(
    models: Models, records: list[Record]
) -> None:
    broken: Any = None
    found = evaluate(
        replace(models, compressor=broken, reasoner=broken), records, options(mode=Reading.NONE)
    )
    for row, record in zip(found.rows, records, strict=True):
        answer = models.generator.answer_from_text(record.question, [], max_new_tokens=FEW)
        assert row.prediction == answer.text
        assert set(row.ranking.scores) == {Ranker.BM25}


@pytest.mark.parametrize("ranker", list(Ranker))
def test_the_oracle_puts_gold_passages_first_and_keeps_the_rankers_order(
    models: Models, records: list[Record], ranker: Ranker
) -> None:
    normal = evaluate(models, records, options(ranker=ranker))
    oracle = evaluate(models, records, options(ranker=ranker, setting=Setting.ORACLE, top_k=4))
    for plain, row, record in zip(normal.rows, oracle.rows, records, strict=True):
        gold = [i for i in plain.ranking.order if i in record.pos_index]
        others = [i for i in plain.ranking.order if i not in record.pos_index]
        assert row.ranking.order == (*gold, *others)
        assert row.ranking.selected == (*gold, *others)[:4]
    assert oracle.numbers()["recall@5"] == 1.0
    assert (
        oracle.numbers()["latent_recall@1"] == normal.numbers()["latent_recall@1"] < 1.0
    )  # what a ranker does by itself does not depend on the setting


def test_withheld_gold_passages_are_ranked_but_never_read(
    models: Models, records: list[Record]
) -> None:
    normal = evaluate(models, records, options(ranker=Ranker.BM25))
    found = evaluate(models, records, options(ranker=Ranker.BM25, setting=Setting.WITHHELD))
    for plain, row, record in zip(normal.rows, found.rows, records, strict=True):
        assert row.ranking.order == plain.ranking.order
        others = [i for i in plain.ranking.order if i not in record.pos_index]
        assert row.ranking.selected == tuple(others[:3])


def test_the_given_order_is_that_of_the_file(models: Models, records: list[Record]) -> None:
    found = evaluate(models, records, options(ranker=Ranker.GIVEN))
    assert all(row.ranking.order == tuple(range(len(row.record.docs))) for row in found.rows)
    assert found.rows[0].ranking.selected == (0, 1, 2)


@pytest.mark.parametrize("mode", list(Reading))
def test_a_record_without_documents_is_answered_from_its_question(
    models: Models, records: list[Record], mode: Reading
) -> None:
    empty = Record("e", "Who?", ("Osgood",), (), ())
    found = evaluate(models, [*records[:2], empty], options(mode=mode))
    row = found.rows[2]
    assert row.ranking.order == row.ranking.selected == ()
    prompt = models.generator.prompt_from_text("Who?", [])
    generator = models.generator
    model = generator.model if mode is Reading.LATENT else generator.text_model
    (ids,) = generator.generate([prompt], max_new_tokens=FEW, model=model)
    assert row.prediction == generator.text_of(ids)
    assert row.numbers()["recall@5"] == 0.0


def test_an_untrained_checkpoint_is_ranked_by_words(
    base: Any, opened: Callable[..., Models], records: list[Record]
) -> None:
    plain = opened(untrained(base, compr_rate=4, doc_max_length=32))
    found = evaluate(plain, records[:1], options())
    assert found.ranker is Ranker.BM25
    assert set(found.rows[0].ranking.scores) == {Ranker.BM25, Ranker.LATENT}


class Counting:
    """A compressor that notes what it was given."""

    def __init__(self, models: Models) -> None:
        self._inner = models.compressor
        self.kind = models.compressor.kind
        self.seen: Counter[str] = Counter()

    def compress(self, texts: Sequence[str]) -> list[Tensor]:
        self.seen.update(texts)
        return self._inner.compress(texts)


def test_every_passage_is_compressed_once_however_records_are_grouped(
    models: Models, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(models, records, options())
    counting: Any = Counting(models)
    monkeypatch.setattr(module, "GROUP", 1)
    found = evaluate(replace(models, compressor=counting), records, options(batch_tokens=1))
    assert counting.seen == Counter({doc for record in records for doc in record.docs})
    assert [row.prediction for row in found.rows] == [row.prediction for row in whole.rows]
    assert [row.ranking.order for row in found.rows] == [row.ranking.order for row in whole.rows]


def test_long_passages_and_questions_are_cut_and_counted(models: Models) -> None:
    long = "Honey bees tell each other where flowers grow by dancing. " * 9
    record = Record("a", "Who built it? " * 30, ("Osgood",), ("Tea.", long), (0,))
    again = replace(record, id="b")
    found = evaluate(models, [record, again], options())
    assert (found.cut, found.cut_questions) == (1, 1)
    read = found.rows[0].record.docs[1]
    assert long.startswith(read)
    assert 28 <= models.tokens.count([read])[0] <= 32
    assert found.rows[0].record.docs[0] == "Tea."
    assert found.numbers()["cut"] == 1
    text = evaluate(models, [record], options(mode=Reading.TEXT))
    assert text.rows[0].record.docs[1] == read
    assert text.cut_questions == 0


def test_progress_reaches_all_passages_and_answers(models: Models, records: list[Record]) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(models, records, options(), progress=lambda *said: told.append(said))
    assert told[-1] == ("answers", 4, 4)
    assert ("passages", 7, 7) in told
    for what in ("passages", "answers"):
        done = [count for name, count, _ in told if name == what]
        assert done == sorted(set(done))


def test_numbers_are_means_of_the_rows_and_each_ranker_has_its_own(
    models: Models, records: list[Record]
) -> None:
    found = evaluate(models, records, options(ranker=Ranker.BM25))
    said = ["It was Osgood.", "1723", "", "from Canton"]
    rows = [replace(row, prediction=text) for row, text in zip(found.rows, said, strict=True)]
    numbers = replace(found, rows=tuple(rows)).numbers()
    assert numbers["n"] == 4
    assert (numbers["em"], numbers["em_any"]) == (0.25, 0.25)
    assert (numbers["cover_em"], numbers["cover_em_any"]) == (0.5, 0.75)
    assert numbers["f1"] == pytest.approx((0.4 + 1 + 0 + 2 / 3) / 4)
    assert numbers["f1_any"] == pytest.approx((0.5 + 1 + 0 + 2 / 3) / 4)
    assert numbers["avg_answer_words"] == 1.5
    assert numbers["refused"] == 0
    refusing = [replace(rows[0], prediction=f" {NOT_IN_DOCUMENTS}"), *rows[1:]]
    assert replace(found, rows=tuple(refusing)).numbers()["refused"] == 0.25
    assert numbers["recall@1"] == numbers["bm25_recall@1"]
    slow = [cosines(models, record) for record in records]
    first = [max(range(len(values)), key=lambda i: values[i]) for values in slow]
    hits = [
        (best in record.pos_index) / len(record.pos_index)
        for best, record in zip(first, records, strict=True)
    ]
    assert numbers["latent_recall@1"] == sum(hits) / 4
    low, high = numbers["intervals"]["cover_em"]
    assert low <= 0.5 <= high
    assert numbers["options"]["ranker"] == "bm25"


def test_rare_words_can_be_counted_over_more_than_the_records(
    models: Models, records: list[Record]
) -> None:
    everything = Bm25.of([doc for record in records for doc in record.docs])
    choice = options(mode=Reading.NONE)
    (alone,) = evaluate(models, records[1:2], choice, statistics=everything).rows
    among = evaluate(models, records, choice).rows[1]
    assert alone.ranking.scores == among.ranking.scores
    (other,) = evaluate(models, records[1:2], choice).rows
    assert other.ranking.scores != among.ranking.scores


def test_a_row_for_a_file_has_everything_but_the_passages(
    models: Models, records: list[Record]
) -> None:
    (row,) = evaluate(models, records[:1], options()).rows
    written = row.as_dict()
    assert written["id"] == "a"
    assert written["selected"] == list(row.ranking.selected)
    assert set(written["scores"]) == {"bm25", "latent"}
    assert written["cover_em"] in (0.0, 1.0)
    assert "docs" not in written


@pytest.mark.parametrize("name", ["top_k", "max_new_tokens", "batch_tokens"])
def test_sizes_below_one_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} must be 1 or more, got 0") as caught:
        options(**{name: 0})
    assert caught.value.field == name


def test_nothing_is_left_of_a_passage_after_its_last_record(models: Models) -> None:
    uses = [("Tea.", "Ice."), ("Ice.", "Ice.")]
    store = PassageLatents(models.compressor, uses)
    store.need(uses[0])
    _, ice = store.of(uses[0])
    store.release(uses[0])
    assert torch.equal(store.of(["Ice."])[0], ice)
    with pytest.raises(KeyError):
        store.of(["Tea."])
    store.release(uses[1])
    with pytest.raises(KeyError):
        store.of(["Ice."])


def test_a_prompt_over_the_context_names_its_record(models: Models, records: list[Record]) -> None:
    small = replace(models, generator=replace(models.generator, context=40))
    with pytest.raises(TextTooLong, match=r"record a has .* tokens; the base reads 40") as caught:
        evaluate(small, records, options(mode=Reading.TEXT))
    assert (caught.value.field, caught.value.limit) == ("a", 40)
