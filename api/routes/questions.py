"""Questions: ask, search, and read what came of it."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api import checks, filters, schemas
from api.answers import read_question, refuse_where_away, run_of
from api.deps import Config, Db, Questions, named
from api.strict_body import StrictRoute
from api.waiting import Wait, until_ended
from clara.db.tables import ACTIVE
from clara.types import Mode
from workers.asking import NewQuestion

router = APIRouter(prefix="/v1", tags=["questions"], route_class=StrictRoute)

SEARCH_WAIT_S = 10.0


@router.post(
    "/questions",
    status_code=202,
    summary="Ask a question",
    responses=schemas.problems(400, 404, 413, 415, 422),
)
async def ask(
    config: Config, intake: Questions, body: schemas.NewQuestion
) -> schemas.QueuedQuestion:
    """Queue a question; read the answer at its id."""
    question = NewQuestion(
        text=checks.question(body.question, config),
        mode=body.mode or config.answer_mode,
        top_k=body.top_k or config.top_k,
        max_answer_tokens=body.max_answer_tokens or config.max_answer_tokens,
        filters=filters.checked(body.filters, "/filters"),
        fusion=body.fusion or config.fusion,
        rerank=body.rerank,
        explain=body.explain,
    )
    await intake.accept(named(body.collection), question)
    return schemas.QueuedQuestion(id=UUID(question.id), run_id=UUID(question.run_id))


@router.get(
    "/questions/{question_id}", summary="Read a question", responses=schemas.problems(404, 422)
)
async def read(
    request: Request, open_db: Db, question_id: UUID, wait: Wait = 0.0
) -> schemas.Question:
    """A question and, once there, its answer with the passages it was built on.

    With `wait`, a question that could not be answered because a server was away is a 503.
    """
    if wait:
        run_id = await run_in_threadpool(run_of, open_db, question_id)
        await until_ended(request, open_db, run_id, wait)
    found = await run_in_threadpool(read_question, open_db, question_id)
    if wait:
        refuse_where_away(found)
    return found


@router.post(
    "/collections/{name}/search",
    summary="Find passages",
    responses={202: {"model": schemas.Question}, **schemas.problems(400, 404, 413, 415, 422)},
)
async def search(
    request: Request,
    response: Response,
    open_db: Db,
    config: Config,
    intake: Questions,
    name: str,
    body: schemas.NewSearch,
    wait: Wait = SEARCH_WAIT_S,
) -> schemas.Question:
    """Find and rank passages as for an answer, without one: all candidates, and their fates.

    202 where it takes longer than `wait`: read it under its id with GET /v1/questions/{id}.
    """
    question = NewQuestion(
        text=checks.question(body.question, config),
        mode=Mode.AUTO,
        top_k=body.top_k or config.top_k,
        max_answer_tokens=1,
        filters=filters.checked(body.filters, "/filters"),
        fusion=body.fusion or config.fusion,
        rerank=body.rerank,
        search_only=True,
    )
    await intake.accept(named(name), question)
    await until_ended(request, open_db, UUID(question.run_id), wait)
    found = await run_in_threadpool(read_question, open_db, UUID(question.id))
    refuse_where_away(found)
    if found.status in ACTIVE:
        response.status_code = 202
    return found
