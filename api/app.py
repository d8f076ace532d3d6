"""Assembly: settings in, an ASGI app out.

`uvicorn api.app:app` reads the settings of the environment at its first request for `app`;
`create_app(settings)` takes others. Importing this module connects to nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from api import errors
from api.bell import Bell
from api.body_limit import BodyLimit
from api.intake import Intake
from api.routes import (
    audits,
    checkpoints,
    collections,
    documents,
    files,
    health,
    nights,
    questions,
    recompressions,
    runs,
    training_data,
    trainings,
)
from clara.audit import stores
from clara.db.connect import connect, open_db
from clara.settings import Settings, settings
from workers.app import app as celery_app
from workers.app import configure
from workers.asking import queue_questions

_PARTS = (
    collections,
    recompressions,
    documents,
    files,
    questions,
    audits,
    runs,
    nights,
    training_data,  # before `trainings`, one of whose paths would take its name for an id
    trainings,
    checkpoints,
    health,
)

_DESCRIPTION = """Documents in, cited answers out. Writing and asking answer at once with a run;
its row says how far the work is. Every error is an RFC 9457 problem that names the input at fault,
the limit, and what to do."""


class Api(FastAPI):
    """FastAPI, but its description names a problem as `application/problem+json` only."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            for path in document["paths"].values():
                for operation in path.values():
                    for response in operation["responses"].values():
                        if errors.MEDIA_TYPE in response["content"]:
                            response["content"].pop("application/json", None)
        return super().openapi()


def create_app(config: Settings | None = None) -> FastAPI:
    """The API on the servers of `config`, or of the environment's settings."""
    config = config or settings()
    configure(celery_app, config)
    engine = connect(config.database_url)
    bell = Bell(config.database_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with bell.listening():
            yield
        engine.dispose()

    app = Api(
        title="CLaRa Workers",
        version=version("clara-workers"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.settings = config
    app.state.open_db = open_db(engine)
    app.state.intake = Intake(partial(queue_questions, app.state.open_db))
    app.state.bell = bell
    app.state.stores = cache(partial(stores, app.state.open_db, config))
    app.state.broker_url = celery_app.conf.broker_url
    app.state.extraction = CapacityLimiter(files.FILES_AT_ONCE)
    app.state.checking = CapacityLimiter(8)
    app.add_middleware(
        BodyLimit,
        limit=config.max_body_bytes,
        streamed={training_data.PATH: config.max_training_bytes},
    )
    errors.install(app)
    for part in _PARTS:
        app.include_router(part.router)

    @app.get("/", include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app


def __getattr__(name: str) -> FastAPI:
    """`app`, made when it is first asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = app = create_app()
    return app
