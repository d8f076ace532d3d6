from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from clara.db.connect import OpenDb
from clara.db.tables import DocumentStatus, Passage
from clara.model.models import Models
from clara.pipeline.asking import Answering
from clara.pipeline.compress import Compressing, compress_collection
from clara.pipeline.gate_questions import MOST_WORDS, Case, draw, question_about
from clara.pipeline.index import Indexing
from clara.pipeline.recall_gate import Pair, Told, ask, judge
from clara.serving.patient import patient
from clara.types import SourceDocument
from tests.clara.pipeline.conftest import Write, index
from tests.factories import (
    make_collection,
    make_document,
    make_latent,
    make_passage,
    make_question,
)

NEW = "b" * 64
TEXT = (
    "It is far from here. The harbour wall of Whitby was built in 1874 by Margaret Osgood. "
    "It is far from here too."
)


def never() -> bool:
    return False


def test_a_question_is_about_the_sentence_that_says_most_but_for_one_word() -> None:
    asked = {question_about(TEXT, UUID(int=n)) for n in range(12)}
    words = {"harbour", "wall", "Whitby", "built", "1874", "Margaret", "Osgood"}
    assert len(asked) == len(words)
    for question in asked:
        assert question
        named = question.removeprefix("What is said of ").removesuffix("?").split()
        assert len(words - set(named)) == 1


@given(st.text(max_size=400), st.uuids())
def test_a_question_is_the_same_every_time_and_short(text: str, seed: UUID) -> None:
    question = question_about(text, seed)
    assert question == question_about(text, seed)
    assert question is None or len(question.split()) <= MOST_WORDS + 4


@pytest.mark.parametrize("text", ["", "...", "It is what it is."])
def test_of_a_passage_without_content_nothing_is_asked(text: str) -> None:
    assert question_about(text, uuid4()) is None


@pytest.mark.parametrize(("there", "wanted"), [(7, 3), (7, 7), (3, 9), (8, 1), (5, 0)])
def test_passages_are_drawn_evenly_by_id(db: OpenDb, there: int, wanted: int) -> None:
    with db.begin() as session:
        shop = make_collection(session)
        made = [make_passage(session, make_document(session, shop)) for _ in range(there)]
        for passage in made:
            make_latent(session, passage, NEW)
        make_passage(session, make_document(session, shop))  # without a latent of it
        waiting = make_document(session, shop, status=DocumentStatus.PENDING)
        make_latent(session, make_passage(session, waiting), NEW)
        ids = sorted(passage.id for passage in made)
        cases = draw(session, shop.id, NEW, passages=wanted, answers=2)
        again = draw(session, shop.id, NEW, passages=wanted, answers=2)
    assert cases == again
    assert len(cases) == min(there, wanted)
    at = [ids.index(case.passage) for case in cases if case.passage]
    gaps = {b - a for a, b in pairwise(at)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert [case.answered for case in cases] == [n < 2 for n in range(len(cases))]


def test_the_last_questions_of_users_are_asked_too(db: OpenDb) -> None:
    with db.begin() as session:
        shop, other = make_collection(session), make_collection(session)
        make_latent(session, make_passage(session, make_document(session, shop)), NEW)
        for text in ("First?", "Second?", "Third?", "Second?"):
            make_question(session, shop, text=text)
        make_question(session, shop, text="Searched?", search_only=True)
        make_question(session, shop, text="Filtered?", filters=[{"field": "a", "equals": 1}])
        make_question(session, other, text="Elsewhere?")
        cases = draw(session, shop.id, NEW, passages=5, answers=4)
    assert [case.question for case in cases if case.passage is None] == ["Second?", "Third?"]
    assert all(case.answered for case in cases)


def test_worse_by_more_than_the_margin_is_refused_with_both_numbers() -> None:
    active = [Told(found=True, latent="red barn", text="red barn")] * 4
    new = [Told(found=n < 3, latent="red barn" if n < 2 else "blue") for n in range(4)]

    def verdict(recall: float, agreement: float) -> tuple[bool, str]:
        found = judge(active, new, recall_margin=recall, agreement_margin=agreement)
        return found.passed, "" if found.passed else str(found.refusal(7))

    assert verdict(0.25, 0.5) == (True, "")
    passed, told = verdict(0.24, 0.5)
    assert not passed
    assert "generation 7" in told
    assert "Recall@5 of 4 passages fell from 1.000 to 0.750 (margin 0.24)" in told
    assert "agreement" not in told
    passed, told = verdict(0.25, 0.4)
    assert not passed
    assert "of 4 questions fell from 1.000 to 0.500 (margin 0.4)" in told
    assert "--no-gate" in told


def test_what_one_side_could_not_take_counts_for_neither() -> None:
    active = [Told(), Told(found=True), Told(found=True, latent=None, text="a"), Told(found=False)]
    new = [Told(found=False), Told(found=True), Told(found=True, latent="b"), Told()]
    found = judge(active, new, recall_margin=0, agreement_margin=0)
    assert found.recall == Pair(1.0, 1.0, 2, 0)
    assert found.agreement == Pair(None, None, 0, 0)
    assert found.passed
    assert "not measured" in found.as_dict()["reasons"][1]


def test_nothing_to_ask_passes() -> None:
    assert judge([], [], recall_margin=0, agreement_margin=0).passed


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1), st.floats(0, 1, width=16))
def test_a_generation_as_good_always_passes(pairs: list[tuple[bool, bool]], margin: float) -> None:
    active = [Told(found=a and b) for a, b in pairs]
    new = [Told(found=a) for a, _ in pairs]
    assert judge(active, new, recall_margin=margin, agreement_margin=0).passed


@pytest.fixture
def filled(indexing: Indexing, answering: Answering, collection: UUID, write: Write) -> Answering:
    """Three documents with the latents of `answering`."""
    towns = ("Whitby", "Bergen", "Cadiz")
    index(write(*(SourceDocument(f"A wall of {town} built 1874.") for town in towns)), indexing)
    compressing = Compressing(
        open_db=answering.open_db,
        latents=answering.latents,
        compressor=answering.models.compressor,
        engine=answering.engine,
        tokenizer=answering.tokenizer,
        fingerprint=answering.models.fingerprint,
        doc_max_length=answering.models.checkpoint.config.doc_max_length,
        on_processor=True,
    )
    compress_collection(
        collection, compressing, budget_s=60, on_batch=lambda _: None, stopped=never
    )
    return answering


def test_a_side_is_asked_the_way_a_user_is_answered(
    filled: Answering, collection: UUID, db: OpenDb, untrained_models: Models
) -> None:
    with db() as session:
        passage = session.scalars(select(Passage.id)).first()
    case = Case(passage, "Wall of Whitby?", answered=True)
    told = ask(case, collection, filled, from_text=True, stopped=never)
    assert told.found is True  # three passages, five are read
    assert told.latent is not None
    assert told.text is not None
    silent = ask(replace(case, answered=False), collection, filled, from_text=True, stopped=never)
    assert (silent.found, silent.latent, silent.text) == (True, None, None)
    gone = ask(replace(case, passage=uuid4()), collection, filled, from_text=False, stopped=never)
    assert (gone.found, gone.text) == (False, None)
    untrained = replace(filled, models=untrained_models)
    from_words = ask(case, collection, untrained, from_text=False, stopped=never)
    assert from_words.latent is None
    long = replace(case, question="wall " * 400)
    assert ask(long, collection, filled, from_text=True, stopped=never) == Told()


def test_questions_of_the_gate_come_after_those_of_users(
    filled: Answering, collection: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    urgent: list[bool] = []
    submit: Callable[..., object] = type(filled.engine).submit

    def noted(self: object, task: object, **options: bool) -> object:
        urgent.append(options["urgent"])
        return submit(self, task, **options)

    monkeypatch.setattr(type(filled.engine), "submit", noted)
    case = Case(None, "Wall of Whitby?", answered=True)
    ask(case, collection, patient(filled), from_text=True, stopped=never)
    assert urgent
    assert not any(urgent)
