"""Questions into the record: as many as come at once, in one statement and one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import uuid4

from sqlalchemy import Table, Text, bindparam, column, func, insert, literal, select, true
from sqlalchemy.dialects.postgresql import JSONB

from clara.db.connect import OpenDb
from clara.db.tables import Collection, Question, Run, RunKind, RunStatus
from clara.types import Fusion, Mode, Rerank
from workers.enqueue import transaction


@dataclass(frozen=True)
class NewQuestion:
    """A question that is to be written with its run: its columns, all of them JSON."""

    text: str
    mode: Mode
    top_k: int
    max_answer_tokens: int
    fusion: Fusion
    rerank: Rerank | None
    filters: list[dict[str, Any]] = field(default_factory=list)
    explain: bool = False
    search_only: bool = False
    id: str = field(default_factory=lambda: str(uuid4()))
    run_id: str = field(default_factory=lambda: str(uuid4()))


def queue_questions(open_db: OpenDb, collection: str, questions: Sequence[NewQuestion]) -> bool:
    """Write questions and their queued runs, then send the runs.

    Args:
        open_db: transactions on the record.
        collection: name of the one they are all asked to.
        questions: at least one.
    Returns:
        Whether there is such a collection; where there is none, nothing was written.
    """
    asked = [vars(question) for question in questions]
    with transaction(open_db) as (db, send):
        run_ids = db.scalars(_WRITE, {"collection": collection, "asked": asked}).all()
        for run_id in run_ids:
            send(RunKind.QUERY, run_id)
    return bool(run_ids)


def _statement() -> Any:
    """The rows come out of one JSON array: however many there are, it is the same statement."""
    names = list(NewQuestion.__dataclass_fields__)
    # of the table: the mapped class would take the array for a row of its own
    table = cast("Table", Question.__table__)
    asked = (
        func.jsonb_to_recordset(bindparam("asked", type_=JSONB))
        .table_valued(*(column(name, table.c[name].type) for name in names))
        .render_derived(name="asked", with_types=True)
    )
    known = (
        select(Collection.id.label("collection_id"), *asked.c)
        .join(asked, true())
        .where(Collection.name == bindparam("collection", type_=Text))
        .with_for_update(of=Collection, read=True, key_share=True)  # it stays until the commit
        .cte("known")
    )
    queued = {
        "id": known.c.run_id,
        "collection_id": known.c.collection_id,
        "kind": literal(RunKind.QUERY, Run.kind.type),
        "status": literal(RunStatus.QUEUED, Run.status.type),
        "inputs": func.jsonb_build_object("question_id", known.c.id),
        "total": literal(1),
    }
    runs = insert(Run).from_select(list(queued), select(*queued.values()))
    questions = insert(table).from_select(["collection_id", *names], select(known))
    return questions.add_cte(runs.cte("runs")).returning(table.c.run_id)


_WRITE = _statement()
