"""Where questions come in: those that arrive while others are being written go in together.

A commit takes longer than anything else a question costs, and takes as long for one as for a
hundred. So the more come, the less each of them costs; one that comes alone waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import sqlalchemy.exc
from starlette.concurrency import run_in_threadpool

from clara.documents import unknown_collection
from workers.asking import NewQuestion

AT_ONCE = 100
"""Questions in one transaction at most."""

Write = Callable[[str, Sequence[NewQuestion]], bool]
"""Commits questions to a collection of a name, and sends them; False where there is none."""

_Waiting = tuple[NewQuestion, asyncio.Future[bool]]


class Intake:
    """One transaction per collection at a time, with all questions that arrived during the last.

    Per collection, since one that is being deleted must hold up no question to another.

    Args:
        write: called on a thread.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: dict[str, list[_Waiting]] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}

    async def accept(self, collection: str, question: NewQuestion) -> None:
        """Return once the question is committed, and its message sent where the broker takes it.

        Args:
            collection: its name.
            question: what is asked.
        Raises:
            UnknownCollection: there is none of that name.
            SQLAlchemyError: the database did not take it.
        """
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(collection, []).append((question, written))
        if collection not in self._writing:
            self._writing[collection] = asyncio.create_task(self._write_all(collection))
        if not await written:
            raise unknown_collection(collection)

    async def _write_all(self, collection: str) -> None:
        try:
            while batch := self._waiting.pop(collection, None):
                for start in range(0, len(batch), AT_ONCE):
                    await self._write_together(collection, batch[start : start + AT_ONCE])
        finally:
            del self._writing[collection]

    async def _write_together(self, collection: str, batch: Sequence[_Waiting]) -> None:
        try:
            is_there = await run_in_threadpool(self._write, collection, [one for one, _ in batch])
        except Exception as error:
            if len(batch) > 1 and isinstance(error, sqlalchemy.exc.DataError):
                for one in batch:  # whichever it is about, it is no fault of the others
                    await self._write_together(collection, [one])
            else:
                _settle(batch, error)
        else:
            _settle(batch, is_there)


def _settle(batch: Sequence[_Waiting], outcome: bool | Exception) -> None:
    for _, written in batch:
        if written.done():  # who waited for it is gone
            continue
        if isinstance(outcome, Exception):
            written.set_exception(outcome)
        else:
            written.set_result(outcome)
