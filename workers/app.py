"""The Celery app: queues, time limits, retries. Imports no model code."""

from __future__ import annotations

from celery import Celery
from kombu.entity import Queue

from clara.settings import Settings, settings

UPKEEP = "upkeep"
"""Every worker consumes it, and first: what looks after runs takes milliseconds, and must be done
wherever any worker is up, however long the other queues are."""

QUEUES = (UPKEEP, "query", "ingest", "compress", "recompress", "train")

TASK_QUEUES = {
    "answer_question": "query",
    "ingest_documents": "ingest",
    "purge_passages": "ingest",
    "compress_collection": "compress",
    "register_checkpoint": "compress",  # where the device is that its fingerprint is about
    "recompress_collection": "recompress",
    "recompress_part": "recompress",
    "work_off_night": "recompress",
    "look_at_schedule": UPKEEP,
    "train": "train",
    "reconcile": UPKEEP,
}
"""Which queue each task travels on."""

LOOK_S = 60.0
"""Seconds between two looks at whether a night is due: ticks are minutes."""

VISIBILITY_TIMEOUT_S = 1800
"""Seconds until Redis hands an unacknowledged message to another worker: four times the longest
task but a training. The runs table makes such a second copy harmless; the reconciler acts long
before it."""


def configure(app: Celery, config: Settings) -> None:
    """Point an app at the broker of `config`; the settings of this file hold for every app."""
    app.conf.update(
        broker_url=config.redis_url or "redis://127.0.0.1:6379/0",
        task_ignore_result=True,  # state lives in the runs table
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_reject_on_worker_lost=True,  # poison ends by the attempts counted in the row
        task_acks_on_failure_or_timeout=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        task_send_sent_event=False,  # the row says when it was queued; an event doubles the sends
        worker_hijack_root_logger=False,
        worker_soft_shutdown_timeout=10.0,
        worker_enable_soft_shutdown_on_idle=False,
        broker_connection_retry_on_startup=True,
        broker_pool_limit=10,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "queue_order_strategy": "priority",  # a worker empties `query` before `compress`
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
            "health_check_interval": 15,
        },
        task_queues=[Queue(name) for name in QUEUES],
        task_routes={task: {"queue": queue} for task, queue in TASK_QUEUES.items()},
        task_default_queue="ingest",
        beat_schedule={
            "reconcile": {
                "task": "reconcile",
                "schedule": config.reconcile_s,
                # one that waited longer than a round says nothing the next does not say
                "options": {"expires": config.reconcile_s},
            },
            "look_at_schedule": {
                "task": "look_at_schedule",
                "schedule": LOOK_S,
                "options": {"expires": LOOK_S},
            },
        },
        beat_schedule_filename=str(config.home / "beat-schedule"),
        timezone="UTC",
    )


app = Celery(
    "clara", include=["workers.tasks", "workers.ready", "workers.stopping", "workers.watchdog"]
)
app.add_defaults(dict)
configure(app, settings())
