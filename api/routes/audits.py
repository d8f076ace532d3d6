"""Audits: what the stores hold of a document or of a collection."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from fastapi import APIRouter, Request

from api import schemas
from clara.audit import Audit, Stores, audit_collection, audit_document

router = APIRouter(prefix="/v1", tags=["audits"])


@router.get(
    "/documents/{document_id}/audit",
    summary="Look for what is left of a document",
    responses=schemas.problems(422),
)
def document(request: Request, document_id: UUID) -> schemas.Audit:
    """Rows and index entries of a document; of a deleted one there are none."""
    return _shown(audit_document(document_id, _stores(request)))


@router.get(
    "/collections/{name}/audit",
    summary="Look for what is left of deleted documents",
    responses=schemas.problems(404, 422),
)
def collection(request: Request, name: str) -> schemas.Audit:
    """Index entries that no document of a collection accounts for; of a deleted one, all."""
    return _shown(audit_collection(name, _stores(request)))


def _stores(request: Request) -> Stores:
    return cast("Stores", request.app.state.stores())


def _shown(audit: Audit) -> schemas.Audit:
    return schemas.Audit(
        clean=audit.clean,
        places=[
            schemas.Place(name=one.name, entries=one.entries, examples=one.examples)
            for one in audit.places
        ],
        pending_runs=audit.pending,
    )
