"""What users do meanwhile: write, replace and delete documents, and ask questions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar
from uuid import UUID

from clara.client import ApiProblem, ApiUnreachable, Client, Json
from clara.types import SourceDocument

from .world import World

T = TypeVar("T")

COLLECTION = "chaos"
BATCH = 5
PATIENCE_S = 120.0
"""Seconds after which a call that is refused again and again is a loss."""

# fmt: off
WORDS = [
    "harbour", "wall", "kettle", "copper", "tea", "glass", "river", "engine", "lamp", "bridge",
    "paper", "clock", "garden", "salt", "wheel", "north", "tower", "market", "ship", "letter",
    "stone", "winter", "bread", "signal", "field", "mirror", "rope", "candle", "iron", "sand",
]
# fmt: on


@dataclass
class Told:
    """What was accepted: what must be there at the end."""

    texts: dict[str, str | None] = field(default_factory=dict)
    """By external id; None for what was deleted."""
    ids: dict[str, str] = field(default_factory=dict)
    """Of the documents, by external id."""
    questions: list[UUID] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    """Calls that were refused for too long."""


@dataclass
class Load:
    """A seeded stream of calls; each is repeated until the API takes it."""

    world: World
    random: Random
    documents: int
    questions: int
    told: Told = field(default_factory=Told)
    _written: int = 0

    def begin(self) -> None:
        """An empty collection."""
        with self.world.client() as client:
            self._until_taken(lambda: client.create_collection(COLLECTION, exist_ok=True))

    def run(self, stop: Callable[[float], bool]) -> None:
        """Write everything, changing some of it on the way, and ask; pauses by `stop(seconds)`.

        Ends when all is accepted. Where `stop` says so, what is left is sent without pauses.
        """
        asked = 0
        with self.world.client() as client:
            while self._written < self.documents or asked < self.questions:
                if self._written < self.documents:
                    self._write(client)
                if self.random.random() < 0.15:
                    self._replace(client)
                if self.random.random() < 0.08:
                    self._delete(client)
                share = self._written / self.documents
                while asked < self.questions and asked <= share * self.questions:
                    self._ask(client)
                    asked += 1
                stop(self.random.uniform(0.0, 0.6))

    def ask(self) -> str | None:
        """Ask a question beside the others; returns its id."""
        with self.world.client() as client:
            asked = self._until_taken(lambda: self._asked(client))
        return asked["id"] if asked else None

    def await_end(self, question: str | None) -> None:
        """Wait until a question was answered, or failed."""
        with self.world.client() as client:
            if question is not None:
                self._until_taken(lambda: self._ended(client, question))

    def _write(self, client: Client) -> None:
        count = min(BATCH, self.documents - self._written)
        names = [f"document-{self._written + i}" for i in range(count)]
        self._send(client, {name: self._text() for name in names})
        self._written += count

    def _replace(self, client: Client) -> None:
        alive = [name for name, text in self.told.texts.items() if text is not None]
        if alive:
            self._send(client, {self.random.choice(alive): self._text()})

    def _send(self, client: Client, texts: dict[str, str]) -> None:
        sources = [SourceDocument(text, external_id=name) for name, text in texts.items()]
        reply = self._until_taken(lambda: client.write_documents(COLLECTION, sources))
        if reply is not None:
            self.told.texts |= texts
            self.told.ids |= {one["external_id"]: one["id"] for one in reply["documents"]}

    def _delete(self, client: Client) -> None:
        alive = [name for name, text in self.told.texts.items() if text is not None]
        if not alive:
            return
        name = self.random.choice(alive)
        self._until_taken(lambda: _delete(client, self.told.ids[name]))
        self.told.texts[name] = None

    def _ask(self, client: Client) -> None:
        asked = self._until_taken(lambda: self._asked(client))
        if asked is not None:
            self.told.questions.append(UUID(asked["id"]))

    def _asked(self, client: Client) -> Json:
        question = " ".join(self.random.sample(WORDS, 3)) + "?"
        body = {"collection": COLLECTION, "question": question}
        return client._call("POST", "/v1/questions", json=body)

    def _ended(self, client: Client, question: str) -> Json:
        while True:
            found = client._call("GET", f"/v1/questions/{question}", params={"wait": 5})
            if found["status"] in ("succeeded", "failed", "cancelled"):
                return found

    def _text(self) -> str:
        sentences = [
            " ".join(self.random.choices(WORDS, k=self.random.randint(4, 9))).capitalize() + "."
            for _ in range(self.random.randint(1, 8))
        ]
        return " ".join(sentences)

    def _until_taken(self, call: Callable[[], T]) -> T | None:
        """Again and again while the API or what it stands on is away."""
        ends = time.monotonic() + PATIENCE_S
        while True:
            try:
                return call()
            except (ApiUnreachable, ApiProblem) as error:
                passing = isinstance(error, ApiUnreachable) or error.status >= 500
                if not passing or time.monotonic() > ends:
                    self.told.given_up.append(str(error))
                    return None
            time.sleep(0.2)


def _delete(client: Client, document: str) -> None:
    try:
        client._call("DELETE", f"/v1/documents/{document}")
    except ApiProblem as problem:  # a call whose answer was lost has deleted it
        if problem.status != 404:
            raise
