"""Questions that come at once are written together, and answer for themselves alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy.exc
from fastapi.testclient import TestClient
from sqlalchemy import select

from api.intake import AT_ONCE, Intake
from clara.db.connect import OpenDb
from clara.db.tables import Collection, Question
from clara.errors import UnknownCollection
from clara.types import Fusion, Mode, Rerank
from tests.factories import make_collection
from workers.asking import NewQuestion


def a_question(text: str = "What conducts?") -> NewQuestion:
    how = {"fusion": Fusion.UNION, "rerank": Rerank.LATENT}
    return NewQuestion(text=text, mode=Mode.AUTO, top_k=5, max_answer_tokens=8, **how)  # type: ignore[arg-type]


class Written:
    """Takes questions down; the first batch waits until it is let go."""

    def __init__(self, fault: Callable[[str], Exception | None] = lambda _: None) -> None:
        self.batches: list[list[str]] = []
        self.fault = fault
        self.let_go = threading.Event()

    def __call__(self, collection: str, questions: Sequence[NewQuestion]) -> bool:
        texts = [one.text for one in questions]
        self.batches.append(texts)
        if len(self.batches) == 1:
            assert self.let_go.wait(30)
        for text in texts:
            if error := self.fault(text):
                raise error
        return collection == "papers"


def together(written: Written, *texts: str) -> list[Any]:
    """What becomes of questions that arrive while a first one is being written."""

    async def run() -> list[Any]:
        intake = Intake(written)
        first = asyncio.create_task(intake.accept("papers", a_question("first")))
        while not written.batches:
            await asyncio.sleep(0.001)
        others: list[Coroutine[Any, Any, None]] = [
            intake.accept("papers", a_question(text)) for text in texts
        ]
        waiting = [asyncio.create_task(one) for one in others]
        await asyncio.sleep(0)
        written.let_go.set()
        return await asyncio.gather(first, *waiting, return_exceptions=True)

    return asyncio.run(run())


def test_questions_that_arrive_during_a_commit_share_the_next_one() -> None:
    written = Written()
    assert together(written, "a", "b", "c") == [None] * 4
    assert written.batches == [["first"], ["a", "b", "c"]]


def test_a_crowd_is_written_in_bounded_transactions() -> None:
    written = Written()
    together(written, *(str(number) for number in range(AT_ONCE + 1)))
    assert [len(batch) for batch in written.batches] == [1, AT_ONCE, 1]


def test_a_question_the_database_refuses_takes_no_other_with_it() -> None:
    def fault(text: str) -> Exception | None:
        refused = sqlalchemy.exc.DataError("INSERT", {}, ValueError("b"))
        return refused if text == "b" else None

    _, a, b, c = together(Written(fault), "a", "b", "c")
    assert (a, c) == (None, None)
    assert isinstance(b, sqlalchemy.exc.DataError)


def test_everyone_is_told_that_the_database_is_away_after_one_try() -> None:
    def fault(text: str) -> Exception | None:
        away = sqlalchemy.exc.OperationalError("INSERT", {}, OSError("away"))
        return away if text != "first" else None

    written = Written(fault)
    first, *others = together(written, "a", "b")
    assert first is None
    assert all(isinstance(one, sqlalchemy.exc.OperationalError) for one in others)
    assert len(written.batches) == 2


def test_who_stops_waiting_stops_nobody_else() -> None:
    written = Written()

    async def run() -> None:
        intake = Intake(written)
        gone = asyncio.create_task(intake.accept("papers", a_question("gone")))
        while not written.batches:
            await asyncio.sleep(0.001)
        stays = asyncio.create_task(intake.accept("papers", a_question("stays")))
        gone.cancel()
        await asyncio.sleep(0)
        written.let_go.set()
        await stays

    asyncio.run(run())
    assert written.batches == [["gone"], ["stays"]]


def test_a_collection_that_is_not_there_is_refused_to_all_who_asked_it() -> None:
    written = Written()
    written.let_go.set()

    async def run() -> list[Any]:
        intake = Intake(written)
        asked = [intake.accept("nowhere", a_question()) for _ in range(3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(one) for one in asyncio.run(run())] == [UnknownCollection] * 3


def test_a_collection_that_is_held_holds_up_no_question_to_another(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        make_collection(session, "letters")
    asked = {"question": "What conducts?"}
    with ThreadPoolExecutor(1) as pool:
        with db.begin() as session:
            session.execute(select(Collection).where(Collection.id == papers.id).with_for_update())
            held = pool.submit(client.post, "/v1/questions", json=asked | {"collection": "papers"})
            other = client.post("/v1/questions", json=asked | {"collection": "letters"})
            assert other.status_code == 202
            assert not held.done()
        assert held.result(timeout=30).status_code == 202


def test_questions_asked_at_once_are_all_there(
    client: TestClient, db: OpenDb, papers: Collection
) -> None:
    def ask(number: int) -> str:
        asked = {"collection": "papers", "question": f"What is {number}?"}
        reply = client.post("/v1/questions", json=asked)
        assert reply.status_code == 202
        return str(reply.json()["id"])

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(ask, range(40)))
    with db() as session:
        texts = {str(one.id): one.text for one in session.scalars(select(Question))}
    assert texts == {id_: f"What is {number}?" for number, id_ in enumerate(ids)}
