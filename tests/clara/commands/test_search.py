"""`clara search`, `clara ask --explain` and `clara audit` on the real API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select
from typer.testing import CliRunner

from api.app import create_app
from clara import cli
from clara import client as clients
from clara.client import Client
from clara.db.connect import OpenDb
from clara.db.tables import Collection, Question, Run, RunStatus
from clara.settings import Settings
from clara.types import Fate, PassageText
from tests.factories import (
    make_answer,
    make_candidate,
    make_collection,
    make_document,
    make_passage,
)

Invoke = Callable[..., tuple[int, str]]


@pytest.fixture
def app(database_url: str, broker_url: str, tmp_path: Path) -> FastAPI:
    return create_app(
        Settings(_env_file=None, database_url=database_url, redis_url=broker_url, home=tmp_path)
    )


@pytest.fixture
def invoke(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """Runs a command against that app; gives its exit status and what it printed."""
    monkeypatch.setattr(cli.console, "width", 250, raising=False)
    monkeypatch.setenv("COLUMNS", "250")
    with TestClient(app) as http:

        class Here(Client):
            def __init__(self, address: str) -> None:
                super().__init__(address)
                self._http.close()
                self._http = http  # type: ignore[assignment]

            def __exit__(self, *_: object) -> None:
                pass

        monkeypatch.setattr(clients, "Client", Here)

        def run(*words: str) -> tuple[int, str]:
            with cli.console.capture() as printed:
                done = CliRunner().invoke(cli.app, list(words))
            if done.exception and not isinstance(done.exception, SystemExit):
                raise done.exception
            return done.exit_code, printed.get()

        yield run


@pytest.fixture
def papers(db: OpenDb) -> Collection:
    with db.begin() as session:
        return make_collection(session, "papers")


def work(db: OpenDb, collection: Collection, answer: bool) -> dict[str, Any]:
    """Do as a worker does with the first question there is. Returns what was asked."""
    while True:
        with db.begin() as session:
            question = session.scalar(select(Question))
            if question is None:
                time.sleep(0.01)
                continue
            document = make_document(session, collection, "Copper conducts. Glass does not.")
            read = make_passage(session, document, 0, 16)
            lost = make_passage(session, document, 17, 32)
            make_candidate(session, question, read, lexical=7.51, lexical_rank=1)
            beyond = {
                "fate": Fate.BEYOND_TOP_K,
                "score": 0.25,
                "dense": 0.5,
                "dense_rank": 3,
                "latent": 0.125,
            }
            make_candidate(session, question, lost, rank=2, **beyond)
            run = session.get_one(Run, question.run_id)
            run.status, run.timings = RunStatus.SUCCEEDED, {"total": 12.0}
            run.result = {"reranked_by": "fusion", "degraded": ["dense"]}
            if answer:
                make_answer(session, question)
            asked = {"fusion": question.fusion, "rerank": question.rerank, "k": question.top_k}
            return {"filters": question.filters, **asked}


def both(invoke: Invoke, db: OpenDb, papers: Collection, *words: str) -> tuple[str, dict[str, Any]]:
    """A command and the worker it waits for."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(work, db, papers, words[0] == "ask")
        status, printed = invoke(*words, "-c", "papers")
    assert status == 0
    return printed, asked.result()


def test_a_search_shows_what_would_be_read_and_asks_as_it_was_told(
    invoke: Invoke, db: OpenDb, papers: Collection
) -> None:
    conditions = ["--filter", "year>=2020", "--filter", "lang=en,de"]
    printed, asked = both(
        invoke,
        db,
        papers,
        "search",
        "what conducts",
        *conditions,
        "--fusion",
        "rrf",
        "--rerank",
        "both",
        "--top-k",
        "2",
    )
    assert "Copper conducts." in printed
    assert "Glass" not in printed
    assert "1 (7.51)" in printed
    assert "without: dense" in printed
    assert "ranked by fusion, 2 found" in printed
    assert asked == {
        "filters": [
            {"field": "year", "op": "range", "gte": 2020},
            {"field": "lang", "op": "in", "values": ["en", "de"]},
        ],
        "fusion": "rrf",
        "rerank": "both",
        "k": 2,
    }


@pytest.mark.parametrize("command", ["search", "ask"])
def test_explaining_shows_the_losers_too(
    invoke: Invoke, db: OpenDb, papers: Collection, command: str
) -> None:
    printed, _ = both(invoke, db, papers, command, "what conducts", "--explain")
    line = next(line for line in printed.splitlines() if "Glass does not." in line)
    assert "beyond top k" in line
    assert "0.250" in line
    assert "3 (0.50)" in line
    assert "0.12" in line.split("3 (0.50)")[1]


def test_an_audit_of_what_is_there_names_it_and_fails(
    invoke: Invoke, db: OpenDb, papers: Collection
) -> None:
    with db.begin() as session:
        document = make_document(session, papers)
    status, printed = invoke("audit", "--document", str(document.id))
    assert status == 1
    assert "something is left" in printed


def test_an_audit_of_what_is_gone_says_so(invoke: Invoke, papers: Collection) -> None:
    status, printed = invoke("audit", "--document", str(uuid4()))
    assert (status, "nothing is left" in printed) == (0, True)


def test_an_audit_of_a_collection_shows_what_no_document_accounts_for(
    invoke: Invoke, app: FastAPI, papers: Collection
) -> None:
    stray = UUID(int=7)
    assert invoke("audit", "-c", "papers")[0] == 0
    app.state.stores().lexical.put(papers.id, [PassageText(stray, uuid4(), "", "Copper")])
    status, printed = invoke("audit", "-c", "papers")
    assert (status, str(stray) in printed) == (1, True)


@pytest.mark.parametrize("words", [[], ["-c", "papers", "--document", "x"]])
def test_an_audit_is_of_one_thing(invoke: Invoke, words: list[str]) -> None:
    assert invoke("audit", *words)[0] == 2
