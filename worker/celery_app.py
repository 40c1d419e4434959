"""The team's worker: `celery -A worker.celery_app worker --pool=threads --concurrency=3`.

Three threads let a ring for each resource (io, cpu, gpu) through at once; how many jobs run is the slots' business.
A message says that a job waits, and no more; the task's body is the embedded worker's claim loop. So a message that is
lost, late or doubled changes nothing, and so does a broker that loses all of them.
"""

import logging
from typing import Any

from celery import Celery, signals

from app.core.home import make_private
from app.core.logging import configure_logging
from app.core.settings import Settings
from app.jobs.doorbell import QUEUE, TASK
from worker.supervision.worker import Worker

_settings = Settings()

celery_app = Celery("graftwork", broker=_settings.redis_url)
celery_app.conf.update(
    task_default_queue=QUEUE,
    # Results are rows in our database.
    task_ignore_result=True,
    # A ring that waits in a busy worker's memory is of no use to an idle one.
    worker_prefetch_multiplier=1,
    # Acknowledged on receipt: the row is the queue. Late acknowledgement would make Redis deliver a ring again for
    # every training that is longer than its visibility timeout.
    task_acks_late=False,
    # A worker outlives any outage of the broker; meanwhile its slots look for work by themselves.
    broker_connection_max_retries=None,
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)

_worker: Worker | None = None


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _log(**_: Any) -> None:
    configure_logging(_settings)
    # A ring is no news: of jobs, slots tell.
    for chatty in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


# Not `worker_ready`, which waits for the broker: a worker that starts while there is none looks for work by itself.
@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _start(**_: Any) -> None:
    global _worker
    make_private(_settings)
    _worker = Worker(_settings, _settings.broker_poll_seconds)
    _worker.start()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:
    # Before Celery waits for its tasks: each ends when its slot has given its job back.
    if _worker is not None:
        _worker.stop()


@celery_app.task(name=TASK)  # type: ignore[untyped-decorator]
def run_jobs(kind: str) -> None:
    """Run waiting jobs of this kind."""
    if _worker is not None:
        _worker.ring(kind)
