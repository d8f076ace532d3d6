"""`clara demo`: the whole path once, on the sample shop, through the HTTP API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from clara import default_models
from clara.client import ApiProblem, Client, Json
from clara.commands import demo_questions, show
from clara.commands.demo_questions import Question, Tally
from clara.commands.ingest import ingest
from clara.commands.supervisor import Running, system
from clara.errors import LatentsNotReady, ServerFailed
from clara.settings import Settings

COLLECTION = "demo"
SHOWN = 8
"""Questions shown with citations and timings, in the default mode and in the other one; the rest
take a line each."""

TOP_K = 3
"""Passages read: a base of 135 M parameters loses the thread of more."""

ANSWER_TOKENS = 48
NOISE_TOKENS = 16
"""Tokens an answer may have; of untrained latents, a few show enough."""

NOT_READY = LatentsNotReady("").code

READY_S = 120.0
"""Seconds the API may take to answer for the first time."""


def demo(config: Settings, samples: Path, console: Console) -> None:
    """Start everything, ingest the catalogue, ask, write the report, stop everything.

    Raises:
        ClaraError: any step failed; everything that was started is stopped all the same.
    """
    began = time.perf_counter()
    default_models.fetch_all(config.models, say=console.print)
    console.print("starting Postgres, Valkey, API, model worker, CPU worker, beat and Flower")
    with system(config) as running, Client(running.api) as client:
        wait_until_ready(running, client)
        console.print(f"API docs  {running.api}/docs\nFlower    {running.flower}")
        up = time.perf_counter()
        _fill(client, samples / "catalogue.jsonl", config, console)
        filled = time.perf_counter()
        questions = demo_questions.read(samples / "questions.jsonl")
        answered, tally = _ask(client, questions, console)
        report = {
            "collection": COLLECTION,
            "checkpoints": _checkpoints(answered),
            "seconds": {
                "start": round(up - began, 1),
                "ingest": round(filled - up, 1),
                "questions": round(time.perf_counter() - filled, 1),
            },
            "tally": tally.as_dict(),
            "questions": answered,
        }
        running.check()
    path = config.home / "demo" / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(
        f"\n{len(answered)} answers in {path}; everything is stopped again. "
        f"`make up` starts the same and stays: API docs {running.api}/docs, "
        f"Flower {running.flower}."
    )


def wait_until_ready(
    running: Running, client: Client, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Return once the API and what it stands on answer.

    Raises:
        ServerFailed: a process ended, or the time is over.
    """
    ends = time.monotonic() + READY_S
    while not client.ready():
        running.check()
        if time.monotonic() > ends:
            raise ServerFailed(
                f"the API did not answer within {READY_S:.0f} s", remedy="Look at its log."
            )
        sleep(0.2)


def _fill(client: Client, catalogue: Path, config: Settings, console: Console) -> None:
    """Every document in, searchable and compressed; a second demo finds them in already."""
    console.print(Rule("ingesting the sample catalogue", align="left"))
    sent = ingest(client, [catalogue], COLLECTION, config, console, wait_for="indexed")
    console.print(f"{sent.created} new, {sent.updated} replaced, {sent.unchanged} unchanged")
    if sent.refused:
        raise sent.refused[0]
    failed = client.collection(COLLECTION)["documents"]["failed"]
    if failed:
        reason = client.runs(collection=COLLECTION, status="failed", limit=1)[0]["error"]["message"]
        raise ServerFailed(
            f"{failed} documents could not be indexed: {reason}",
            remedy=f"Look at the logs in {config.home / 'log'}.",
        )


def _ask(
    client: Client, questions: Sequence[Question], console: Console
) -> tuple[list[Json], Tally]:
    """Every question in the default mode, the first ones in the other mode too; in that order."""
    console.print(Rule("asking", align="left"))
    answered: list[Json] = []
    tally = Tally()
    for number, question in enumerate(questions):
        state = _asked(client, question, "auto", ANSWER_TOKENS)
        answered.append(_entry(state))
        right = tally.add(question, state["answer"]["text"])
        if number >= SHOWN:
            console.print(_line(question, state["answer"]["text"], right=right))
            continue
        show.answer(state, console)
        other = _in_the_other_mode(client, question, state)
        show.answer(other, console)
        answered.append(_entry(other))
    console.print(f"\nin the default mode: {tally}", style="bold")
    return answered, tally


def _asked(client: Client, question: Question, mode: str, tokens: int) -> Json:
    return client.ask(COLLECTION, question.text, mode=mode, top_k=TOP_K, max_answer_tokens=tokens)


def _in_the_other_mode(client: Client, question: Question, state: Json) -> Json:
    given = state["answer"]
    if given["mode"] == "latent":
        return _asked(client, question, "text", ANSWER_TOKENS)
    tokens = ANSWER_TOKENS if given["checkpoint"]["trained"] else NOISE_TOKENS
    try:
        return _asked(client, question, "latent", tokens)
    except ApiProblem as problem:
        if problem.problem.get("code") != NOT_READY:
            raise
    _settle(client)
    return _asked(client, question, "latent", tokens)


def _settle(client: Client) -> None:
    """Return once no run works for the collection.

    After an update that brought other weights, its latents are made anew when the worker starts.
    """
    for state in client.watch(COLLECTION):
        if not state["active_runs"]:
            return


def _line(question: Question, answer: str, *, right: bool) -> Text:
    mark = Text("right ", style="green") if right else Text("wrong ", style="red")
    return Text.assemble(mark, (question.text, "cyan"), "  ", " ".join(answer.split()))


def _entry(state: Json) -> Json:
    answer = state["answer"]
    return {
        "question": state["question"],
        "answer": answer["text"],
        "mode": answer["mode"],
        "citations": answer["citations"],
        "timings": answer["timings"],
        "reranked_by": answer["reranked_by"],
        "notices": answer["notices"],
        "checkpoint": answer["checkpoint"],
    }


def _checkpoints(answered: list[Json]) -> list[Json]:
    by_name = {entry["checkpoint"]["name"]: entry["checkpoint"] for entry in answered}
    return list(by_name.values())
