"""The doorbell: rung after the commit, heard as a Celery message, and never in the way."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import kombu
import pytest
import redis
from celery import Celery
from celery.worker.request import Request
from kombu.message import Message
from sqlalchemy import select

from app.auth.orm import Workspace
from app.core.database import Database
from app.core.logging import configure_logging
from app.core.settings import Settings
from app.jobs.doorbell import QUEUE, TASK, CeleryDoorbell, FifoDoorbell, open_doorbell, ring_after_commit
from app.work import JOB_TYPES
from tests.support.factories import ingestion, new_dataset, ready_dataset, training
from tests.support.servers import free_port, redis_server

WITHIN = 60  # seconds; only a test that fails waits so long


class CountingDoorbell:
    """Remembers who rang, and asks what could be seen at that moment."""

    def __init__(self, database: Database) -> None:
        self.rung: list[str] = []
        self.seen: list[list[str]] = []
        self._database = database

    def ring(self, kind: str) -> None:
        self.rung.append(kind)
        with self._database.reading() as session:
            self.seen.append(list(session.scalars(select(Workspace.name))))


@pytest.fixture
def broker(redis_url: str) -> Iterator[str]:
    """A Redis database that nobody else uses."""
    url = redis_url.rsplit("/", 1)[0] + "/9"
    with closing(redis.Redis.from_url(url)) as client:
        client.flushdb()
        yield url
        client.flushdb()


def hear(broker: str) -> Message:
    """The next message, as any Celery worker would take it."""
    with kombu.Connection(broker) as connection, connection.SimpleQueue(QUEUE) as messages:
        message = messages.get(timeout=WITHIN)
        message.ack()
        return message


def test_it_rings_once_when_others_can_see_the_row(database: Database) -> None:
    doorbell = CountingDoorbell(database)
    with database.writing() as session:
        session.add(Workspace(name="committed"))
        ring_after_commit(session, doorbell, "train")
        session.flush()
        assert doorbell.rung == []
    assert (doorbell.rung, doorbell.seen) == (["train"], [["committed"]])


def test_a_released_savepoint_is_not_the_commit(database: Database) -> None:
    doorbell = CountingDoorbell(database)
    with database.writing() as session:
        ring_after_commit(session, doorbell, "train")
        with session.begin_nested():
            session.add(Workspace(name="inner"))
        assert doorbell.rung == []
    assert (doorbell.rung, doorbell.seen) == (["train"], [["inner"]])


def test_it_does_not_ring_for_what_was_rolled_back(database: Database) -> None:
    doorbell = CountingDoorbell(database)

    def breaks() -> None:
        with database.writing() as session:
            ring_after_commit(session, doorbell, "train")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaks()
    assert doorbell.rung == []


def test_a_session_that_goes_on_does_not_ring_again_nor_for_what_it_rolled_back(database: Database) -> None:
    doorbell = CountingDoorbell(database)
    with database.reading() as session:
        session.connection()
        ring_after_commit(session, doorbell, "ingest")
        session.rollback()
        session.commit()
        assert doorbell.rung == []
        session.connection()
        ring_after_commit(session, doorbell, "train")
        session.commit()
        session.connection()
        session.commit()
    assert doorbell.rung == ["train"]


def test_each_job_rings_for_its_kind(database: Database) -> None:
    doorbell = CountingDoorbell(database)
    with database.writing() as session:
        dataset = ready_dataset(session)
        training(session, dataset, doorbell=doorbell)
        training(session, dataset, doorbell=doorbell)
        assert doorbell.rung == []
    with database.writing() as session:
        ingestion(session, new_dataset(session, "other"), doorbell=doorbell)
    assert doorbell.rung == ["train", "train", "ingest"]


def test_it_is_published_when_the_request_goes_on(broker: str) -> None:
    doorbell = CeleryDoorbell(broker, WITHIN)  # however slow this machine is
    with closing(redis.Redis.from_url(broker)) as client:
        for number in range(1, 20):
            doorbell.ring("train")
            assert client.llen(QUEUE) == number


@pytest.mark.parametrize("kind", [kind.name for kind in JOB_TYPES])
def test_the_message_is_one_that_celery_reads(broker: str, kind: str) -> None:
    open_doorbell(Settings(redis_url=broker)).ring(kind)
    message = hear(broker)
    assert message.decode() == [[kind], {}, {}]
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")

    with Celery("graftwork", broker=broker, set_as_current=False) as celery:

        @celery.task(name=TASK, shared=False)
        def run_jobs(kind: str) -> str:
            return kind

        request = Request(message, app=celery, task=celery.tasks[TASK], hostname="test")
        assert (request.name, request.args, request.kwargs) == (TASK, [kind], {})
        assert request.id == request.root_id == request.correlation_id == message.properties["correlation_id"]
        assert celery.tasks[request.name](*request.args) == kind


def test_each_ring_is_a_message_of_its_own(broker: str) -> None:
    doorbell = CeleryDoorbell(broker)
    for kind in ("train", "ingest", "train"):
        doorbell.ring(kind)
    heard = [hear(broker) for _ in range(3)]
    assert [message.decode()[0] for message in heard] == [["train"], ["ingest"], ["train"]]
    assert len({message.headers["id"] for message in heard}) == 3
    with closing(redis.Redis.from_url(broker)) as client:
        assert client.llen(QUEUE) == 0


class Complaints(logging.Handler):
    """Waits for warnings and remembers which thread gave them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.threads: list[str] = []
        self.heard = threading.Semaphore(0)

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "graftwork" and "doorbell_failed" in record.getMessage():
            self.threads.append(str(record.threadName))
            self.heard.release()


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    root, handler = logging.getLogger(), Complaints()
    before, level = root.handlers[:], root.level
    configure_logging(Settings())
    root.addHandler(handler)
    yield handler
    root.handlers[:] = before
    root.setLevel(level)


def test_a_dead_broker_is_another_threads_business_and_later_rings_get_through(complaints: Complaints) -> None:
    port = free_port()
    doorbell = CeleryDoorbell(f"redis://127.0.0.1:{port}/0")
    for _ in range(2):
        doorbell.ring("train")
        assert complaints.heard.acquire(timeout=WITHIN)
    assert complaints.threads == ["doorbell"] * 2
    with redis_server(port) as url:
        doorbell.ring("ingest")
        assert hear(url).decode()[0] == ["ingest"]


def test_a_broker_that_dies_and_comes_back_is_rung_again(complaints: Complaints) -> None:
    with redis_server() as url:
        doorbell = CeleryDoorbell(url)
        doorbell.ring("train")
        hear(url)
    doorbell.ring("train")
    assert complaints.heard.acquire(timeout=WITHIN)
    with redis_server(int(url.rsplit(":", 1)[1].split("/")[0])) as again:
        doorbell.ring("ingest")
        assert hear(again).decode()[0] == ["ingest"]


def test_a_broker_that_accepts_and_never_answers_is_given_up(complaints: Complaints) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        doorbell = CeleryDoorbell(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        doorbell.ring("train")
        assert complaints.heard.acquire(timeout=WITHIN)
    assert complaints.threads == ["doorbell"]


def test_without_a_broker_a_ring_that_nobody_hears_is_no_fault(settings: Settings) -> None:
    doorbell = open_doorbell(settings)
    assert isinstance(doorbell, FifoDoorbell)
    doorbell.ring("train")  # no pipe
    os.mkfifo(settings.doorbell)
    doorbell.ring("train")  # no reader
    pipe = os.open(settings.doorbell, os.O_RDWR)
    try:
        for _ in range(100_000 // len("train\n")):  # more than a pipe holds
            doorbell.ring("train")
    finally:
        os.close(pipe)
