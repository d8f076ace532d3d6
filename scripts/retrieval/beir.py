"""A folder as BEIR lays it out: corpus.jsonl, queries.jsonl, qrels.tsv; gzipped or not."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from clara.errors import InvalidDataset
from clara.types import PassageText

NAMESPACE = UUID(int=7)


@dataclass(frozen=True)
class Asked:
    """A question and the passages that answer it."""

    text: str
    gold: frozenset[UUID]


def read(
    folder: Path, *, questions: int | None, passages: int | None
) -> tuple[list[PassageText], list[Asked]]:
    """The passages to search and the questions to ask, in the order of the files.

    Args:
        questions: the first ones that have a gold passage; None for all.
        passages: the first ones and every gold one; None for all.
    Raises:
        InvalidDataset: a file is missing, or no question has a gold passage.
    """
    gold = _gold(folder)
    asked = [
        Asked(row["text"], gold[row["_id"]])
        for row in _rows(folder, "queries.jsonl")
        if row["_id"] in gold
    ][:questions]
    if not asked:
        raise InvalidDataset("no question has a gold passage", field=str(folder))
    wanted = frozenset[UUID]().union(*(one.gold for one in asked))
    kept = [
        text
        for at, row in enumerate(_rows(folder, "corpus.jsonl"))
        if (text := _passage(row)).id in wanted or passages is None or at < passages
    ]
    return kept, asked


def _gold(folder: Path) -> dict[str, frozenset[UUID]]:
    found: dict[str, set[UUID]] = {}
    for line in list(_lines(folder, "qrels.tsv"))[1:]:
        question, passage, score = line.split("\t")
        if float(score) > 0:
            found.setdefault(question, set()).add(_id(passage))
    return {question: frozenset(ids) for question, ids in found.items()}


def _passage(row: dict[str, Any]) -> PassageText:
    id_ = _id(row["_id"])
    return PassageText(id_, id_, row.get("title", ""), row["text"])


def _id(name: str) -> UUID:
    return uuid5(NAMESPACE, name)


def _rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in _lines(folder, name))


def _lines(folder: Path, name: str) -> Iterator[str]:
    plain, packed = folder / name, folder / f"{name}.gz"
    if not plain.exists() and not packed.exists():
        raise InvalidDataset(f"neither {plain} nor {packed} is there", field=str(plain))
    with plain.open("rb") if plain.exists() else gzip.open(packed) as file:
        for line in file:
            yield line.decode().rstrip("\r\n")
