"""Loads what a worker's queues need before it takes its first message."""

from __future__ import annotations

import logging
from typing import Any

from celery.signals import celeryd_after_setup

from workers import bootstrap

log = logging.getLogger(__name__)


@celeryd_after_setup.connect
def load(instance: Any, **_: Any) -> None:
    """A first question must not wait for a model, and a missing model must stop the start.

    Raises:
        SystemExit: something is missing. Celery would log any other exception and go on.
    """
    queues = set(instance.app.amqp.queues.consume_from)
    try:
        if queues & {"query", "compress"}:
            models = bootstrap.answering().models
            log.warning("checkpoint %s, fingerprint %s", models.checkpoint.name, models.fingerprint)
        if "ingest" in queues:
            bootstrap.indexing()
    except Exception as error:
        log.critical("this worker cannot start: %s", error, exc_info=True)
        raise SystemExit(1) from error
