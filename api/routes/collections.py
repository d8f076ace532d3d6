"""Collections: create, list, look into, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import Row, delete, exists, func, select, update
from sqlalchemy.orm import Session

from api import schemas
from api.deps import NAME, Db, collection_named
from api.paging import Page
from api.strict_body import StrictRoute
from clara.db.tables import (
    ACTIVE,
    Collection,
    Document,
    Latent,
    Passage,
    Run,
    RunKind,
    RunStatus,
)
from clara.documents import create_collection
from clara.texts import check_characters
from workers.enqueue import queue_run, transaction

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=StrictRoute)


class CollectionPage(Page):
    """Which collections to list."""

    after: str | None = Field(default=None, pattern=NAME, description="`next` of a page.")


@router.post(
    "",
    status_code=201,
    summary="Create a collection",
    responses=schemas.problems(400, 409, 413, 415, 422),
)
def create(open_db: Db, body: schemas.NewCollection) -> schemas.Collection:
    """A new, empty collection; its name is part of addresses and cannot change."""
    check_characters(body.description, field="/description")
    with open_db.begin() as db:
        return _shown(create_collection(db, body.name, body.description))


@router.get("", summary="List collections", responses=schemas.problems(422))
def list_collections(open_db: Db, page: Annotated[CollectionPage, Query()]) -> schemas.Collections:
    """A page of collections, by name."""
    statement = select(Collection).order_by(Collection.name).limit(page.limit + 1)
    if page.after:
        statement = statement.where(Collection.name > page.after)
    with open_db() as db:
        found = [_shown(row) for row in db.scalars(statement)]
    return schemas.Collections(
        collections=found[: page.limit],
        next=found[page.limit - 1].name if len(found) > page.limit else None,
    )


@router.get("/{name}", summary="Look into a collection", responses=schemas.problems(404, 422))
def read(open_db: Db, name: str) -> schemas.CollectionDetail:
    """A collection and how much is in it."""
    with open_db() as db:
        collection = collection_named(db, name)
        counted = _counts(db, collection)
    return schemas.CollectionDetail(
        **_shown(collection).model_dump(),
        documents=schemas.DocumentCounts(**(counted.documents or {})),
        passages=counted.passages,
        latents=counted.latents,
        active_runs=counted.active_runs,
    )


@router.delete(
    "/{name}",
    status_code=202,
    summary="Delete a collection",
    responses=schemas.problems(404, 422),
)
def remove(open_db: Db, name: str) -> schemas.Purging:
    """Delete a collection, its documents and its questions now; a run clears the indexes."""
    with transaction(open_db) as (db, send):
        collection = collection_named(db, name, lock="end")
        _cancel_queued(db, collection)
        # Its reference becomes null with the delete; the id in the inputs stays.
        run = queue_run(
            db,
            send,
            RunKind.PURGE,
            collection_id=collection.id,
            inputs={"collection_id": str(collection.id), "name": collection.name},
        )
        db.execute(delete(Collection).where(Collection.id == collection.id))
    return schemas.Purging(run_ids=[run.id])


def _cancel_queued(db: Session, collection: Collection) -> None:
    """Work about a collection that is going has nothing left to work on."""
    db.execute(
        update(Run)
        .where(
            Run.collection_id == collection.id,
            Run.status == RunStatus.QUEUED,
            Run.kind != RunKind.PURGE,
        )
        .values(status=RunStatus.CANCELLED, finished_at=func.clock_timestamp())
    )


def _counts(db: Session, collection: Collection) -> Row[Any, Any, Any, Any]:
    by_status = (
        select(Document.status.label("status"), func.count().label("documents"))
        .where(Document.collection_id == collection.id)
        .group_by(Document.status)
        .subquery()
    )
    mine = Passage.collection_id == collection.id
    passages = select(func.count()).select_from(Passage).where(mine)
    with_latent = passages.where(exists().where(Latent.passage_id == Passage.id))
    active = (
        select(func.count())
        .select_from(Run)
        .where(Run.collection_id == collection.id, Run.status.in_(ACTIVE))
    )
    return db.execute(
        select(
            select(func.json_object_agg(by_status.c.status, by_status.c.documents))
            .scalar_subquery()
            .label("documents"),
            passages.scalar_subquery().label("passages"),
            with_latent.scalar_subquery().label("latents"),
            active.scalar_subquery().label("active_runs"),
        )
    ).one()


def _shown(collection: Collection) -> schemas.Collection:
    return schemas.Collection(
        name=collection.name,
        description=collection.description,
        created_at=collection.created_at,
    )
