"""A question's answer and the rows it leaves, on real stores and with tiny models."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from clara.db import tables
from clara.db.connect import OpenDb
from clara.db.tables import Answer, Citation, Latent, Passage, Question, Run, RunKind
from clara.documents import delete_documents
from clara.errors import LatentsNotReady
from clara.filters import Equals
from clara.pipeline.answer import Answered, answer_question
from clara.pipeline.asking import Answering, Asked
from clara.pipeline.index import Indexing
from clara.pipeline.keep import write_answer, write_candidates
from clara.types import Fate, Mode, SourceDocument
from clara.wording import NOTHING_FOUND
from tests.clara.pipeline.conftest import Ask, Write, index
from tests.clara.pipeline.test_retrieve import compress, limited
from tests.factories import make_checkpoint

DOCUMENTS = [
    SourceDocument("Tea came from Canton.", external_id="tea", metadata={"drink": True}),
    SourceDocument("Bees dance on the comb.", external_id="bees", metadata={"drink": False}),
    SourceDocument("The harbour wall was built.", external_id="wall"),
]


@pytest.fixture
def ids(write: Write, indexing: Indexing, answering: Answering, collection: UUID) -> list[UUID]:
    """Documents in both indexes, with their latents."""
    made = write(*DOCUMENTS)
    index(made, indexing)
    compress(collection, answering, indexing)
    return made


def answer(asked: Asked, answering: Answering) -> Answered:
    return answer_question(asked, answering, stopped=lambda: False)


def test_a_bound_above_every_score_answers_without_the_model(
    ids: list[UUID], answering: Answering, ask: Ask
) -> None:
    silent: Any = SimpleNamespace(
        checkpoint=answering.models.checkpoint,
        fingerprint=answering.models.fingerprint,
        reasoner=answering.models.reasoner,
        score=answering.models.score,
    )  # without a generator
    strict = limited(replace(answering, models=silent), min_score=1.0)
    answered = answer(ask("Who came?"), strict)
    assert (answered.text, list(answered.passages)) == (NOTHING_FOUND, [])
    fates = {one.fate for one in answered.retrieved.considered}
    assert fates == {Fate.BELOW_MIN_SCORE}
    assert answered.retrieved.reranked_by == "latent"


def test_only_what_fulfils_the_filters_is_read(
    ids: list[UUID], answering: Answering, ask: Ask
) -> None:
    answered = answer(ask("harbour wall", filters=(Equals("drink", True),)), answering)
    assert [one.text for one in answered.passages] == ["Tea came from Canton."]
    assert answered.mode is Mode.LATENT


def test_latent_mode_waits_for_a_latent(
    ids: list[UUID], write: Write, indexing: Indexing, answering: Answering, ask: Ask
) -> None:
    index(write(SourceDocument("Coffee came later.")), indexing)
    with pytest.raises(LatentsNotReady, match="1 of the 4"):
        answer(ask("Who came?", mode=Mode.LATENT), answering)
    assert answer(ask("Who came?"), answering).mode is Mode.TEXT


def test_a_checkpoint_that_was_measured_to_read_text_better_does_so_unless_asked_for_latents(
    ids: list[UUID], answering: Answering, ask: Ask
) -> None:
    found = answering.models.checkpoint
    told = replace(found, config=replace(found.config, prefers_text=True))
    texts = replace(answering, models=replace(answering.models, checkpoint=told))
    assert answer(ask("Who came?"), texts).mode is Mode.TEXT
    assert answer(ask("Who came?", mode=Mode.LATENT), texts).mode is Mode.LATENT


def test_a_damaged_latent_is_read_in_words_until_it_is_made_again(
    ids: list[UUID],
    db: OpenDb,
    collection: UUID,
    indexing: Indexing,
    answering: Answering,
    ask: Ask,
) -> None:
    assert answer(ask("Who came?"), answering).mode is Mode.LATENT
    with db.begin() as session:
        hurt = session.scalars(select(Passage.id).where(Passage.document_id == ids[0])).one()
        session.execute(update(Latent).where(Latent.passage_id == hurt).values(checksum=1))
    in_words = answer(ask("Who came?"), answering)
    assert in_words.mode is Mode.TEXT
    assert {one.text for one in in_words.passages} == {one.text for one in DOCUMENTS}
    compress(collection, answering, indexing)  # what a damaged latent has queued
    assert answer(ask("Who came?"), answering).mode is Mode.LATENT


def test_what_an_audit_found_unfaithful_is_read_in_words_unless_latents_are_asked_for(
    db: OpenDb, ids: list[UUID], answering: Answering, ask: Ask
) -> None:
    assert answer(ask("Who came?"), answering).mode is Mode.LATENT
    with db.begin() as session:
        bees = select(Passage.id).where(Passage.document_id == ids[1]).scalar_subquery()
        marked = update(Latent).where(Latent.passage_id == bees).values(serve_as_text=True)
        session.execute(marked)
    found = answer(ask("Who came?"), answering)
    assert found.mode is Mode.TEXT
    assert found.retrieved.reranked_by == "latent"
    assert answer(ask("Who came?", mode=Mode.LATENT), answering).mode is Mode.LATENT
    tea = (Equals("drink", True),)
    assert answer(ask("Who came?", filters=tea), answering).mode is Mode.LATENT


def test_latents_of_another_precision_are_read_by_their_fingerprint(
    db: OpenDb, ids: list[UUID], answering: Answering, ask: Ask
) -> None:
    with db.begin() as session:
        session.execute(update(Latent).values(fingerprint="float32"))
    assert answer(ask("Who came?"), answering).mode is Mode.TEXT
    before = replace(answering, latents_of="float32")
    assert answer(ask("Who came?"), before).mode is Mode.LATENT


@pytest.fixture
def stored(db: OpenDb, ask: Ask) -> Any:
    """Stores a question and gives it detached, with the id of a checkpoint."""

    def run(text: str, **options: Any) -> tuple[Asked, UUID]:
        asked = ask(text, **options)
        with db.begin() as session:
            work = Run(kind=RunKind.QUERY)
            session.add(work)
            session.flush()
            session.add(
                Question(
                    id=asked.id,
                    collection_id=asked.collection_id,
                    run_id=work.id,
                    text=text,
                    mode=asked.mode,
                    top_k=asked.top_k,
                    max_answer_tokens=1,
                )
            )
            return asked, make_checkpoint(session).id

    return run


def test_an_explained_answer_keeps_its_candidates_in_their_order(
    db: OpenDb, ids: list[UUID], answering: Answering, stored: Any
) -> None:
    asked, checkpoint = stored("harbour wall", explain=True, top_k=1)
    answered = answer(asked, answering)
    with db.begin() as session:
        write_answer(session, asked, answered, checkpoint)
    with db() as session:
        rows = session.scalars(select(tables.Candidate).order_by(tables.Candidate.rank)).all()
        (citation,) = session.scalars(select(Citation))
    considered = answered.retrieved.considered
    assert [row.passage_id for row in rows] == [one.read.candidate.passage_id for one in considered]
    assert [row.fate for row in rows] == [Fate.READ, Fate.BEYOND_TOP_K, Fate.BEYOND_TOP_K]
    assert [row.score for row in rows] == pytest.approx([one.read.score for one in considered])
    by_words = next(row for row in rows if row.lexical_rank == 1)
    assert by_words.document_id == ids[2]
    for name in ("passage_id", "start", "end", "score", "lexical", "lexical_rank", "dense_rank"):
        assert getattr(citation, name) == getattr(rows[0], name)


def test_an_answer_keeps_no_candidates_unasked(
    db: OpenDb, ids: list[UUID], answering: Answering, stored: Any
) -> None:
    asked, checkpoint = stored("harbour wall")
    with db.begin() as session:
        write_answer(session, asked, answer(asked, answering), checkpoint)
    with db() as session:
        assert session.scalars(select(tables.Candidate)).all() == []
        assert len(session.scalars(select(Citation)).all()) == 3


def test_nothing_of_a_document_deleted_meanwhile_is_kept(
    db: OpenDb, ids: list[UUID], answering: Answering, stored: Any
) -> None:
    asked, checkpoint = stored("harbour wall", explain=True)
    answered = answer(asked, answering)
    with db.begin() as session:
        delete_documents(session, [ids[0]])
    with db.begin() as session:
        write_answer(session, asked, answered, checkpoint)
    with db() as session:
        assert session.get_one(Answer, asked.id)
        for table in (Citation, tables.Candidate):
            assert set(session.scalars(select(table.document_id))) == set(ids[1:])


def test_a_passage_replaced_meanwhile_is_cited_by_its_words(
    db: OpenDb,
    ids: list[UUID],
    write: Write,
    indexing: Indexing,
    answering: Answering,
    stored: Any,
) -> None:
    asked, checkpoint = stored("tea Canton", mode=Mode.TEXT)
    answered = answer(asked, answering)
    index(write(SourceDocument("Tea comes by air.", external_id="tea")), indexing)
    with db.begin() as session:
        write_answer(session, asked, answered, checkpoint)
    with db() as session:
        cited = session.scalars(select(Citation).where(Citation.document_id == ids[0])).one()
        assert (cited.text, cited.passage_id) == ("Tea came from Canton.", None)


def test_candidates_of_a_search_go_with_their_document(
    db: OpenDb, ids: list[UUID], answering: Answering, stored: Any
) -> None:
    asked, _ = stored("harbour wall", search_only=True)
    found = answer(asked, answering).retrieved
    with db.begin() as session:
        write_candidates(session, asked, found.considered)
    with db.begin() as session:
        delete_documents(session, [ids[2]])
    with db() as session:
        left = set(session.scalars(select(tables.Candidate.document_id)))
        assert left == set(ids[:2]) == set(session.scalars(select(Passage.document_id)))
