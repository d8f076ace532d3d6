"""What the stores hold of a document or of a collection, whether or not it should be there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from clara.db import tables
from clara.db.connect import OpenDb
from clara.db.tables import ACTIVE, Document, Passage, Run, RunKind
from clara.errors import UnknownCollection
from clara.retrieval.ports import LexicalIndex
from clara.settings import Settings
from clara.wording import DENSE_SNAPSHOTS

EXAMPLES = 5
"""Ids shown of what is left in one place."""


@dataclass(frozen=True)
class Place:
    """What one table or index holds."""

    name: str
    entries: int
    examples: list[str]


@dataclass(frozen=True)
class Audit:
    """Every place that was looked at."""

    places: list[Place]
    pending: list[UUID]
    """Runs that have not done their work yet, which may explain what is left."""

    @property
    def clean(self) -> bool:
        """Whether nothing is left anywhere."""
        return not any(place.entries for place in self.places)


@dataclass(frozen=True)
class Stores:
    """Where to look."""

    open_db: OpenDb
    lexical: LexicalIndex
    vectors: Callable[[UUID], set[UUID]]
    """Passages of a collection that have a vector of any encoder."""
    snapshots: Callable[[UUID], set[UUID]]
    """Passages whose vectors are in files of this machine, which serve a faster start only."""


def stores(open_db: OpenDb, config: Settings) -> Stores:
    """Those of the settings; needs no model."""
    from clara.retrieval.lexical import lexical_index

    return Stores(
        open_db,
        lexical_index(config),
        _vectors(open_db, config),
        lambda collection: _in_snapshots(config.snapshots, collection),
    )


def audit_document(document: UUID, where: Stores) -> Audit:
    """What is left of a document: of one that is there everything, of a deleted one nothing.

    Raises:
        IndexUnavailable: an index does not answer: nothing can be said.
    """
    with where.open_db() as db:
        collections, passages, pending = _known(db, document)
    words = {id_ for one in collections for id_ in where.lexical.held(one, document)}
    known = passages | words
    vectors = {id_ for one in collections for id_ in where.vectors(one) & known}
    files = {id_ for one in collections for id_ in where.snapshots(one) & known}
    with where.open_db() as db:
        places = _rows_of(db, document, known)
    return Audit(places + _indexes(words, vectors, files), pending)


def audit_collection(name: str, where: Stores) -> Audit:
    """What is left of a collection's deleted documents; of a deleted collection, what is left.

    Raises:
        UnknownCollection: no collection is or was named so.
        IndexUnavailable: an index does not answer: nothing can be said.
    """
    with where.open_db() as db:
        ids = _ids_of(db, name)
        pending = _pending(db, ids)
    words = {id_ for one in ids for id_ in where.lexical.held(one)}
    vectors = {id_ for one in ids for id_ in where.vectors(one)}
    files = {id_ for one in ids for id_ in where.snapshots(one)}
    with where.open_db() as db:  # after the indexes: what was committed in between is in the record
        wanted = set(db.scalars(select(Passage.id).where(Passage.collection_id.in_(ids))))
    return Audit(_indexes(words - wanted, vectors - wanted, files - wanted), pending)


def _vectors(open_db: OpenDb, config: Settings) -> Callable[[UUID], set[UUID]]:
    if config.dense_index == "elasticsearch":
        from clara.retrieval.cluster import open_cluster
        from clara.retrieval.elasticsearch_dense import ElasticsearchDense

        return ElasticsearchDense(open_cluster(config), encoder="", dimension=1).held
    from clara.retrieval.dense_log import DenseLog

    return DenseLog(open_db, encoder="", dimension=1).held


def _in_snapshots(folder: Path, collection: UUID) -> set[UUID]:
    """All that a file names, taken out since or not."""
    from safetensors import SafetensorError, safe_open

    from clara.retrieval.snapshots import SUFFIX

    found: set[UUID] = set()
    for path in folder.glob(f"{collection.hex}/*/*{SUFFIX}"):
        try:
            with safe_open(path, framework="np") as file:
                found.update(UUID(bytes=id_.tobytes()) for id_ in file.get_tensor("ids"))
        except (SafetensorError, FileNotFoundError):  # no snapshot, or no longer
            continue
    return found


def _known(db: Session, document: UUID) -> tuple[set[UUID], set[UUID], list[UUID]]:
    """Collections it may be in, passages it had, and runs about it that are not done."""
    passages = set(db.scalars(select(Passage.id).where(Passage.document_id == document)))
    held_by = select(Document.collection_id).where(Document.id == document)
    collections = set(db.scalars(held_by))
    purges = db.scalars(_purges(Run.inputs["documents"].has_key(str(document)))).all()
    for run in purges:
        collections.add(UUID(run.inputs["collection_id"]))
        passages.update(map(UUID, run.inputs["passages"]))
    if not collections:
        collections = set(db.scalars(select(tables.Collection.id)))
    waits = Run.inputs["documents"].has_key(str(document)) & Run.status.in_(ACTIVE)
    return collections, passages, list(db.scalars(select(Run.id).where(waits)))


def _rows_of(db: Session, document: UUID, passages: Collection[UUID]) -> list[Place]:
    """Of every table that refers to the document or to a passage of it."""
    columns: dict[str, ColumnElement[bool]] = {
        "document": Document.id == document,
        "passage": Passage.document_id == document,
        "latent": tables.Latent.passage_id.in_(passages),
        "citation": tables.Citation.document_id == document,
        "candidate": tables.Candidate.document_id == document,
    }
    counted = {name: _count(db, of) for name, of in columns.items()}
    return [Place(name, count, []) for name, count in counted.items()]


def _count(db: Session, of: ColumnElement[bool]) -> int:
    return db.scalar(select(func.count()).where(of)) or 0


def _ids_of(db: Session, name: str) -> set[UUID]:
    """Of the collection of a name, and of those of that name that were deleted."""
    ids = set(db.scalars(select(tables.Collection.id).where(tables.Collection.name == name)))
    for run in db.scalars(_purges(Run.inputs["name"].astext == name)):
        ids.add(UUID(run.inputs["collection_id"]))
    if not ids:
        raise UnknownCollection(
            f"no collection is or was named {name[:100]!r}",
            field="collection",
            remedy="Look at GET /v1/collections.",
        )
    return ids


def _pending(db: Session, collections: Iterable[UUID]) -> list[UUID]:
    ids = [str(one) for one in collections]
    about = Run.inputs["collection_id"].astext.in_(ids) | Run.collection_id.in_(collections)
    kinds = Run.kind.in_([RunKind.INGEST, RunKind.PURGE])
    return list(db.scalars(select(Run.id).where(about, kinds, Run.status.in_(ACTIVE))))


def _purges(about: ColumnElement[bool]) -> Any:
    return select(Run).where(Run.kind == RunKind.PURGE, about)


def _indexes(words: set[UUID], vectors: set[UUID], files: set[UUID]) -> list[Place]:
    places = {"lexical index": words, "dense index": vectors, DENSE_SNAPSHOTS: files}
    return [_place(name, ids) for name, ids in places.items()]


def _place(name: str, ids: Collection[UUID]) -> Place:
    return Place(name, len(ids), [str(id_) for id_ in sorted(ids)[:EXAMPLES]])
