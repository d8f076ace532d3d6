"""Loads what a worker's queues need before it takes its first message."""

from __future__ import annotations

import logging
import os
from typing import Any

from celery.signals import celeryd_after_setup

from clara.settings import Settings, settings
from workers import bootstrap
from workers.app import QUEUES, UPKEEP
from workers.starting import start

log = logging.getLogger(__name__)

WORK = set(QUEUES) - {UPKEEP}
"""Queues that say what a worker is for; every one has others beside them."""

MODELS = {"query", "compress", "recompress"}
"""Those that need a checkpoint."""


@celeryd_after_setup.connect
def load(instance: Any, **_: Any) -> None:
    """A first question must not wait for a model, and a missing model must stop the start.

    Raises:
        SystemExit: something is missing. Celery would log any other exception and go on.
    """
    queues = set(instance.app.amqp.queues.consume_from) & WORK
    try:
        if queues & MODELS:
            start(bootstrap.loaded(), bootstrap.database(), settings())
            bootstrap.loaded().watch()
        if "ingest" in queues:
            bootstrap.indexings().default()
        if queues == {"train"}:
            _stand_back(settings())
    except Exception as error:
        log.critical("this worker cannot start: %s", error, exc_info=True)
        raise SystemExit(1) from error


def _stand_back(config: Settings) -> None:
    """Leave the processor to questions; trainings inherit it from here."""
    os.nice(config.training_nice)
