"""Checkpoints: which weights have answered here."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import select

from api import schemas
from api.deps import Db
from clara.db.tables import Checkpoint

router = APIRouter(prefix="/v1/checkpoints", tags=["checkpoints"])


@router.get("", summary="List checkpoints", responses=schemas.problems())
def list_checkpoints(open_db: Db) -> schemas.Checkpoints:
    """All checkpoints, newest first."""
    statement = select(Checkpoint).order_by(Checkpoint.created_at.desc(), Checkpoint.id)
    with open_db() as db:
        found = db.scalars(statement).all()
    return schemas.Checkpoints(
        checkpoints=[
            schemas.Checkpoint(
                id=one.id,
                name=one.name,
                fingerprint=one.fingerprint,
                weights_hash=one.weights_hash,
                base=one.base,
                trained=one.trained,
                config=one.config,
                created_at=one.created_at,
            )
            for one in found
        ]
    )
