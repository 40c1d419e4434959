"""The outbox has one row for each event of a workspace, written in the transaction of the change that it tells of.

Whoever follows a workspace remembers the sequence number of the last event that it read, and asks for those after it.
That is safe only if no event becomes visible after a later number was read. A database hands out numbers before the
commit: of two transactions of PostgreSQL the one with the higher number may commit first, and a reader who comes in
between would never see the other's event. Two ways around this were considered:

- Readers wait for older transactions (`pg_snapshot_xmin`). It needs the transaction's id in each row; these begin anew
  in a restored database, and any long transaction of the same server, in whichever database, holds up all readers.
- Writers of a workspace take turns from the number to the commit. This is what is done here: events wait in the session
  until its commit, and the statement that inserts them first takes an advisory lock of the workspace, which PostgreSQL
  releases after the commit is visible. It is the last lock of every transaction, so no two wait for each other, and it
  is held for one insert and one commit. SQLite has one writer at a time, and needs nothing.

A number is used once, also after housekeeping has deleted the newest row. Numbers have gaps: workspaces share them.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Index,
    Insert,
    Integer,
    String,
    UniqueConstraint,
    bindparam,
    delete,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.orm import Mapped, Session, SessionTransaction, mapped_column

from app.core.clock import DatabaseTime, UtcDateTime
from app.core.database import Base, Json

_WAITING = "events_to_insert"  # in `Session.info`


class Event(Base):
    """An event says what happened in a workspace. `topic` is `subject.what`, such as `model.created`.

    `number` counts the events of one subject from 1, where it numbers them (jobs do, by their row); those are kept
    until their subject is forgotten, all others for a time.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_workspace", "workspace_id", "sequence"),
        UniqueConstraint("subject_id", "number", name="uq_events_number"),
        {"sqlite_autoincrement": True},  # without it SQLite gives the number of a deleted last row again
    )

    sequence: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    workspace_id: Mapped[UUID]  # no foreign key: workspaces are known a floor above
    topic: Mapped[str] = mapped_column(String(32))
    subject_id: Mapped[UUID]
    number: Mapped[int | None]
    body: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())


# Housekeeping finds what is old without a look at what is kept; numbered events, the many, cost nothing here.
_UNNUMBERED = Event.number.is_(None)
Index("ix_events_unnumbered", Event.created_at, postgresql_where=_UNNUMBERED, sqlite_where=_UNNUMBERED)


def tell(
    session: Session, workspace_id: UUID, topic: str, subject_id: UUID, body: dict[str, Any], number: int | None = None
) -> None:
    """Write an event when this session's transaction is committed; none is written if it is rolled back."""
    if session.in_nested_transaction():
        raise RuntimeError("an event was told inside a savepoint, whose rollback would not take it back")
    told = {"workspace_id": workspace_id, "topic": topic, "subject_id": subject_id, "number": number, "body": body}
    session.info.setdefault(_WAITING, []).append(told)


def after(
    session: Session,
    workspace_id: UUID,
    sequence: int,
    limit: int = 500,
    *,
    without: Collection[str] = (),
) -> Sequence[Event]:
    """Return the workspace's events with numbers above `sequence`, in order; none whose topic begins with `without`.

    No event appears later below a number that was returned.
    """
    query = select(Event).where(Event.workspace_id == workspace_id, Event.sequence > sequence)
    for prefix in without:
        query = query.where(Event.topic.not_like(f"{prefix}%"))
    return session.scalars(query.order_by(Event.sequence).limit(limit)).all()


def newest(session: Session, workspace_id: UUID) -> int:
    """Return the sequence number of the workspace's newest event; 0 where there is none."""
    return session.scalar(select(func.max(Event.sequence)).where(Event.workspace_id == workspace_id)) or 0


def of_subject(session: Session, subject_id: UUID, number: int, limit: int = 500) -> Sequence[Event]:
    """Return the numbered events of one subject above `number`, in order."""
    query = select(Event).where(Event.subject_id == subject_id, Event.number > number)
    return session.scalars(query.order_by(Event.number).limit(limit)).all()


def forget_subjects(session: Session, subject_ids: Collection[UUID]) -> None:
    """Delete every event of these subjects."""
    session.execute(delete(Event).where(Event.subject_id.in_(subject_ids)))


def forget(session: Session, before: DatabaseTime, limit: int = 1000) -> int:
    """Delete events that are older than that and have no number of their subject. Return how many, at most `limit`."""
    old = select(Event.sequence).where(_UNNUMBERED, Event.created_at < before).order_by(Event.created_at).limit(limit)
    sequences = session.scalars(old).all()
    session.execute(delete(Event).where(Event.sequence.in_(sequences)))
    return len(sequences)


def _insert_in_turn() -> Insert:
    """Return PostgreSQL's insert, in one statement with the lock: a number is drawn when the lock is held."""
    columns = Event.__table__.columns
    names = [name for name in columns.keys() if name not in ("sequence", "created_at")]  # noqa: SIM118
    lock = select(func.pg_advisory_xact_lock(bindparam("of_lock", type_=BigInteger())).label("held"))
    turn = lock.cte("turn").prefix_with("MATERIALIZED", dialect="postgresql")
    row = select(*(bindparam(f"of_{name}", type_=columns[name].type) for name in names), DatabaseTime())
    return insert(Event.__table__).from_select([*names, "created_at"], row.select_from(turn))  # type: ignore[arg-type]


_INSERT = insert(Event.__table__)  # type: ignore[arg-type]
_INSERT_IN_TURN = _insert_in_turn()


def _lock_of(workspace_id: UUID) -> int:
    """Return the number of the workspace's advisory lock: the random half of its id, as a signed integer."""
    return int.from_bytes(workspace_id.bytes[8:], signed=True)


@event.listens_for(Session, "before_commit")
def _write(session: Session) -> None:
    """Insert what was told, after everything else that the transaction writes: see the lock above."""
    # SQLAlchemy tells of a released savepoint as of a commit.
    if session.in_nested_transaction() or not (told := session.info.pop(_WAITING, None)):
        return
    session.flush()
    connection = session.connection()
    if connection.dialect.name != "postgresql":
        connection.execute(_INSERT, told)
        return
    for lock in sorted({_lock_of(one["workspace_id"]) for one in told}):
        mine = [one for one in told if _lock_of(one["workspace_id"]) == lock]
        rows = [{f"of_{name}": value for name, value in one.items()} | {"of_lock": lock} for one in mine]
        connection.execute(_INSERT_IN_TURN, rows)


@event.listens_for(Session, "after_soft_rollback")
def _discard(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_WAITING, None)
