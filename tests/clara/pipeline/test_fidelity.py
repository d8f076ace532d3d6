from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from clara.db.connect import OpenDb
from clara.db.tables import Latent, Passage
from clara.evaluation.paraphrase import INSTRUCTION
from clara.evaluation.rouge import facts_kept
from clara.pipeline.asking import Answering
from clara.pipeline.compress import Compressing, compress_collection
from clara.pipeline.fidelity import PIECES, ROOM, FidelityReport, audit, served_as_text
from clara.pipeline.index import Indexing
from clara.serving.engine import Engine
from clara.types import SourceDocument
from tests.clara.pipeline.conftest import DOC_MAX_LENGTH, Write, index

FACTS = [
    "The harbour wall was built in 1874 by the engineer Margaret Osgood.",
    "Tea reached the market in 1723 with a ship from Canton.",
    "Ice forms when water cools below minus 1.8 degrees Celsius.",
]
PLAIN = "honey bees tell each other where flowers grow."

Compressed = Callable[..., list[UUID]]


@pytest.fixture
def compressed(
    db: OpenDb, collection: UUID, write: Write, indexing: Indexing, answering: Answering
) -> Compressed:
    """Documents with their latents, one passage each; the passages' ids."""

    def run(*texts: str) -> list[UUID]:
        index(write(*[SourceDocument(text=text) for text in texts]), indexing)
        compressing = Compressing(
            open_db=db,
            latents=answering.latents,
            compressor=answering.models.compressor,
            engine=answering.engine,
            tokenizer=answering.tokenizer,
            fingerprint=answering.models.fingerprint,
            doc_max_length=DOC_MAX_LENGTH,
            on_processor=False,
        )
        options: dict[str, Any] = {"on_batch": lambda _: None, "stopped": lambda: False}
        compress_collection(collection, compressing, budget_s=60, **options)
        with db() as session:
            return list(session.scalars(select(Passage.id).order_by(Passage.id)))

    return run


@pytest.fixture
def audited(collection: UUID, answering: Answering) -> Callable[..., FidelityReport]:
    def run(**options: Any) -> FidelityReport:
        usual = {"passages": 10, "threshold": 0.5, "stopped": lambda: False}
        services = options.pop("answering", answering)
        return audit(collection, services, **usual | options)

    return run


Audited = Callable[..., FidelityReport]


def stored(db: OpenDb) -> dict[UUID, tuple[float | None, bool]]:
    with db() as session:
        rows = session.execute(select(Latent.passage_id, Latent.fidelity, Latent.serve_as_text))
        return {id_: (fidelity, as_text) for id_, fidelity, as_text in rows}


def told(answering: Answering, passage: Passage) -> str:
    """The whole restatement at once, another way than the audit's."""
    generator, tokens = answering.models.generator, answering.models.tokens
    latent = answering.latents.get(answering.models.fingerprint, [passage.id])[passage.id]
    ids = tokens.encode([tokens.prompts.paraphrase([len(latent)], INSTRUCTION)])[0]
    most = min(DOC_MAX_LENGTH, round(ROOM * passage.tokens) + PIECES)
    (said,) = generator.generate([generator.place(ids, [latent])], max_new_tokens=most)
    return generator.text_of(said)


def test_a_passage_is_marked_by_what_is_told_from_its_latent(
    db: OpenDb, compressed: Compressed, audited: Audited, answering: Answering
) -> None:
    compressed(*FACTS)
    with db() as session:
        passages = session.scalars(select(Passage)).all()
    expected = {
        passage.id: facts_kept(told(answering, passage), passage.text) for passage in passages
    }
    report = audited(threshold=0.5)
    marks = stored(db)
    assert {id_: fidelity for id_, (fidelity, _) in marks.items()} == expected
    assert all(as_text == ((fidelity or 0) < 0.5) for fidelity, as_text in marks.values())
    assert report.audited == len(FACTS)
    assert report.failed == report.as_text == sum(as_text for _, as_text in marks.values())
    assert report.failed  # what random weights tell keeps little


def test_each_passage_is_audited_once(db: OpenDb, compressed: Compressed, audited: Audited) -> None:
    compressed(*FACTS)
    assert audited(passages=2).audited == 2
    assert audited(passages=2).audited == 1
    assert audited(passages=2).audited == 0
    assert all(fidelity is not None for fidelity, _ in stored(db).values())


def test_another_threshold_marks_and_unmarks_without_telling_again(
    db: OpenDb, compressed: Compressed, audited: Audited, collection: UUID, answering: Answering
) -> None:
    compressed(*FACTS)
    assert audited(threshold=0.0).as_text == 0
    stricter = audited(threshold=1.0)
    assert stricter.audited == 0
    assert stricter.judged_again == stricter.as_text > 0
    assert served_as_text(db, collection, answering.models.fingerprint) == stricter.as_text
    milder = audited(threshold=0.0)
    assert (milder.judged_again, milder.as_text) == (stricter.as_text, 0)
    assert not any(as_text for _, as_text in stored(db).values())


def test_a_passage_without_numbers_and_names_is_not_told(
    db: OpenDb, compressed: Compressed, audited: Audited
) -> None:
    (passage,) = compressed(PLAIN)
    report = audited()
    assert (report.audited, report.without_facts, report.kept) == (0, 1, None)
    assert stored(db)[passage] == (1.0, False)
    assert audited().without_facts == 0


def test_latents_of_another_fingerprint_are_left_alone(
    db: OpenDb, compressed: Compressed, audited: Audited
) -> None:
    compressed(*FACTS)
    with db.begin() as session:
        session.execute(update(Latent).values(fingerprint="another"))
    assert audited(threshold=1.0).audited == 0
    assert set(stored(db).values()) == {(None, False)}


def test_an_audit_that_is_stopped_keeps_what_it_has_found(
    db: OpenDb, compressed: Compressed, audited: Audited
) -> None:
    compressed(*FACTS)
    report = audited(stopped=lambda: any(found is not None for found, _ in stored(db).values()))
    assert (report.audited, report.complete) == (1, False)
    assert sum(fidelity is not None for fidelity, _ in stored(db).values()) == 1


def test_a_latent_that_cannot_be_read_is_counted_and_gone(
    db: OpenDb, compressed: Compressed, audited: Audited
) -> None:
    first, *_ = compressed(*FACTS)
    with db.begin() as session:
        damage = update(Latent).where(Latent.passage_id == first).values(checksum=1)
        session.execute(damage)
    report = audited()
    assert (report.audited, report.damaged) == (len(FACTS) - 1, 1)
    assert first not in stored(db)


class Watched(Engine):
    """Counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bool] = []

    def submit(self, task: Callable[[], Any], *, urgent: bool) -> Any:
        self.asked.append(urgent)
        return super().submit(task, urgent=urgent)


def test_a_question_gets_its_turn_between_a_few_tokens(
    compressed: Compressed, audited: Audited, answering: Answering
) -> None:
    compressed(FACTS[0])
    engine = Watched()
    report = audited(answering=replace(answering, engine=engine))
    engine.close()
    assert report.audited == 1
    assert not any(engine.asked)
    assert len(engine.asked) > DOC_MAX_LENGTH // (2 * PIECES)
