"""Events: written with the change that they tell of, in an order that a reader can go by, and forgotten in time."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from uuid import UUID

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session

from app.auth.orm import Workspace
from app.core import outbox
from app.core.clock import DatabaseTime
from app.core.database import Database
from app.core.ids import new_id
from app.core.outbox import Event

HERE, ELSEWHERE, SUBJECT = new_id(), new_id(), new_id()


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[Database]:
    database = Database(postgresql_url)
    yield database
    database.close()


def tell(database: Database, *topics: str, workspace: UUID = HERE, subject: UUID = SUBJECT) -> None:
    with database.writing() as session:
        for topic in topics:
            outbox.tell(session, workspace, topic, subject, {"said": topic})


def told(database: Database, sequence: int = 0, workspace: UUID = HERE) -> list[str]:
    with database.reading() as session:
        return [one.topic for one in outbox.after(session, workspace, sequence)]


def newest(database: Database, workspace: UUID = HERE) -> int:
    with database.reading() as session:
        return outbox.newest(session, workspace)


def test_events_are_there_once_the_transaction_is_committed(database: Database) -> None:
    with database.writing() as session:
        outbox.tell(session, HERE, "model.created", SUBJECT, {"name": "pets"})
        session.flush()
        # No other session is asked here: a SQLite whose journal is a file of its own shuts readers out by now.
        assert session.scalar(select(func.count()).select_from(Event)) == 0
    with database.reading() as session:
        (one,) = outbox.after(session, HERE, 0)
        assert (one.workspace_id, one.topic, one.subject_id, one.number) == (HERE, "model.created", SUBJECT, None)
        assert (one.body, one.sequence) == ({"name": "pets"}, outbox.newest(session, HERE))


def test_no_event_is_left_of_a_transaction_that_is_rolled_back(database: Database) -> None:
    def write() -> None:
        with database.writing() as session:
            outbox.tell(session, HERE, "model.created", SUBJECT, {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert told(database) == []


def test_a_session_that_was_rolled_back_says_nothing_of_it_later(database: Database) -> None:
    with closing(Session(database.engine)) as session:
        outbox.tell(session, HERE, "model.created", SUBJECT, {})
        session.execute(select(1))
        session.rollback()
        session.add(Workspace(name="kept"))
        session.commit()
    assert told(database) == []


def test_a_savepoint_leaves_what_was_told_before_it_and_takes_nothing_in(database: Database) -> None:
    with database.writing() as session:
        outbox.tell(session, HERE, "model.created", SUBJECT, {})
        with session.begin_nested():
            session.add(Workspace(name="kept"))
        savepoint = session.begin_nested()
        session.add(Workspace(name="lost"))
        savepoint.rollback()
        with session.begin_nested(), pytest.raises(RuntimeError, match="inside a savepoint"):
            outbox.tell(session, HERE, "model.deleted", SUBJECT, {})
        outbox.tell(session, HERE, "model.aliased", SUBJECT, {})
    assert told(database) == ["model.created", "model.aliased"]


def test_they_are_read_in_order_from_where_a_reader_was_and_by_workspace(database: Database) -> None:
    tell(database, "model.created", "model.aliased")
    seen = newest(database)
    tell(database, "model.created", workspace=ELSEWHERE)
    tell(database, "model.deleted", "key.created")
    assert told(database) == ["model.created", "model.aliased", "model.deleted", "key.created"]
    assert told(database, seen) == ["model.deleted", "key.created"]
    assert told(database, newest(database)) == []
    assert told(database, workspace=ELSEWHERE) == ["model.created"]
    assert told(database, workspace=new_id()) == []
    assert newest(database, new_id()) == 0
    with database.reading() as session:
        assert [one.topic for one in outbox.after(session, HERE, seen, without=["key."])] == ["model.deleted"]
        assert [one.topic for one in outbox.after(session, HERE, 0, limit=1)] == ["model.created"]


def test_one_transaction_tells_several_workspaces(database: Database) -> None:
    with database.writing() as session:
        for workspace in (HERE, ELSEWHERE, HERE):
            outbox.tell(session, workspace, "job.state", new_id(), {}, 1)
    assert (len(told(database)), len(told(database, workspace=ELSEWHERE))) == (2, 1)


def test_a_subject_that_numbers_its_events_is_read_by_its_numbers(database: Database) -> None:
    other = new_id()
    with database.writing() as session:
        for number in (1, 2, 3):
            outbox.tell(session, HERE, f"job.{number}", SUBJECT, {}, number)
            outbox.tell(session, HERE, "job.state", other, {}, number)
    with database.reading() as session:
        assert [one.topic for one in outbox.of_subject(session, SUBJECT, 1)] == ["job.2", "job.3"]
        assert [one.topic for one in outbox.of_subject(session, SUBJECT, 0, limit=1)] == ["job.1"]


@contextmanager
def held_open(database: Database, workspace: UUID) -> Iterator[None]:
    """A transaction that has told its event and has not committed it, for as long as this is open."""
    inserted, may_end = threading.Event(), threading.Event()

    def keep_waiting(_: Session) -> None:
        inserted.set()
        assert may_end.wait(30)

    def write() -> None:
        with database.writing() as session:
            outbox.tell(session, workspace, "slow", SUBJECT, {})
            event.listen(session, "before_commit", keep_waiting)  # after the outbox, which listens to every session

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(write)
        try:
            assert inserted.wait(30)
            yield
        finally:
            may_end.set()
            done.result()


def test_no_event_appears_below_one_that_a_reader_has_seen(postgresql: Database) -> None:
    """What draws the higher number waits for what drew the lower one, and is not seen before it."""
    database = postgresql
    with ThreadPoolExecutor(1) as pool:
        with held_open(database, HERE):
            quick = pool.submit(tell, database, "quick")
            with pytest.raises(TimeoutError):
                quick.result(0.5)
            assert told(database) == []
            tell(database, "elsewhere", workspace=ELSEWHERE)  # which has nothing to wait for
        quick.result(30)
    assert told(database) == ["slow", "quick"]


def test_readers_beside_many_writers_miss_nothing(database: Database) -> None:
    writers, each = 6, 25
    over = threading.Event()

    def write(name: int) -> None:
        for number in range(each):
            with database.writing() as session:
                outbox.tell(session, HERE, "count", SUBJECT, {"writer": name, "number": number})

    def read() -> list[tuple[int, int]]:
        seen, found = 0, []
        while True:
            ended = over.is_set()  # before the look: what was committed by then is found by it
            with database.reading() as session:
                new = outbox.after(session, HERE, seen, limit=7)
            found += [(one.body["writer"], one.body["number"]) for one in new]
            seen = new[-1].sequence if new else seen
            if ended and not new:
                return found

    with ThreadPoolExecutor(writers + 2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for done in [pool.submit(write, name) for name in range(writers)]:
            done.result()
        over.set()
        for reader in readers:
            found = reader.result()
            assert sorted(found) == [(name, number) for name in range(writers) for number in range(each)]
            for name in range(writers):
                assert [number for writer, number in found if writer == name] == list(range(each))


def test_transactions_with_events_do_not_wait_for_each_other_in_a_circle(postgresql: Database) -> None:
    """Each locks rows of its own and of the other, after its first event: the events' lock comes last all the same."""
    database = postgresql
    both = threading.Barrier(2, timeout=30)
    with database.writing() as session:
        rows = [Workspace(name=name) for name in ("first", "second")]
        session.add_all(rows)
        session.flush()
        ids = [row.id for row in rows]

    def write(number: int) -> None:
        with database.writing() as session:
            outbox.tell(session, HERE, "count", SUBJECT, {"writer": number})
            both.wait()
            for workspace_id in ids:
                renamed = update(Workspace).where(Workspace.id == workspace_id)
                session.execute(renamed.values(name=f"{workspace_id} by {number}"))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write, number) for number in range(2)]:
            done.result(30)
    assert told(database) == ["count", "count"]


def test_what_is_old_is_forgotten_unless_it_is_numbered(database: Database) -> None:
    tell(database, "old", "old", "old")
    with database.writing() as session:
        outbox.tell(session, HERE, "job.state", SUBJECT, {}, 1)
    with database.writing() as session:
        session.execute(update(Event).values(created_at=DatabaseTime(-3600)))
    tell(database, "young")
    with database.writing() as session:
        assert outbox.forget(session, DatabaseTime(-1800), limit=2) == 2
        assert outbox.forget(session, DatabaseTime(-1800)) == 1
        assert outbox.forget(session, DatabaseTime(-1800)) == 0
    assert told(database) == ["job.state", "young"]


def test_a_subject_is_forgotten_with_all_its_events(database: Database) -> None:
    other = new_id()
    tell(database, "job.state")
    tell(database, "job.state", subject=other)
    with database.writing() as session:
        outbox.forget_subjects(session, [SUBJECT])
    with database.reading() as session:
        assert session.scalars(select(Event.subject_id)).all() == [other]


def test_a_number_is_never_given_twice(database: Database) -> None:
    """Or a reader who was there would miss what comes next under the number that it has seen."""
    tell(database, "first", "second")
    seen = newest(database)
    with database.writing() as session:
        outbox.forget_subjects(session, [SUBJECT])
    tell(database, "third")
    assert told(database, seen) == ["third"]
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Event)) == 1


def test_a_transaction_without_events_costs_no_statement(database: Database) -> None:
    said: list[str] = []
    with ExitStack() as stack:
        event.listen(database.engine, "before_cursor_execute", lambda *given: said.append(given[2]))
        stack.callback(said.clear)
        with database.writing() as session:
            session.add(Workspace(name="quiet"))
        assert not [one for one in said if "events" in one]
        tell(database, "model.created", "model.aliased")
        assert len([one for one in said if "events" in one]) == 1
