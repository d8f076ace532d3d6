"""The demo against an API that was just updated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from clara.client import ApiProblem, Client
from clara.commands import demo
from clara.commands.demo_questions import Question
from clara.errors import LatentsNotReady, ModelMissing

QUESTION = Question("Who?", ("Ada",))
STATE = {"answer": {"mode": "text", "checkpoint": {"trained": True}}}
MISSING = LatentsNotReady("2 of the 3 chosen passages have no latent yet")


class Updated(Client):
    """Answers from latents once two looks at the collection have seen a run at work."""

    def __init__(self, refusal: dict[str, Any]) -> None:
        self.refusal, self.looks = refusal, [1, 1, 0]

    def ask(self, collection: str, question: str, **options: Any) -> dict[str, Any]:
        if self.looks:
            raise ApiProblem(self.refusal)
        return {"collection": collection, "question": question, "mode": options["mode"]}

    def watch(self, collection: str, *, every_s: float = 0.5) -> Iterator[dict[str, Any]]:
        assert (collection, every_s) == (demo.COLLECTION, 0.5)
        while True:
            yield {"active_runs": self.looks.pop(0)}


def test_latents_that_are_being_made_anew_are_waited_for() -> None:
    client = Updated(MISSING.as_dict())
    found = demo._in_the_other_mode(client, QUESTION, STATE)
    assert found == {"collection": "demo", "question": "Who?", "mode": "latent"}
    assert client.looks == []


def test_any_other_failure_is_told_at_once() -> None:
    client = Updated(ModelMissing("no base").as_dict())
    with pytest.raises(ApiProblem):
        demo._in_the_other_mode(client, QUESTION, STATE)
    assert len(client.looks) == 3
