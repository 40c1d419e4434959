"""Store the events of a workspace in one table, and move those of jobs there.

Revision: 0014, after 0013
"""

import sqlalchemy as sa
from alembic import op

from app.core.clock import UtcDateTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_UNNUMBERED = sa.text("number IS NULL")


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.String(length=32), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_events")),
        sa.UniqueConstraint("subject_id", "number", name="uq_events_number"),
        sqlite_autoincrement=True,
    )
    # In the order in which they were told: a job's number decides where two have the same time.
    op.execute(
        "INSERT INTO events (workspace_id, topic, subject_id, number, body, created_at) "
        "SELECT jobs.workspace_id, 'job.' || told.type, told.job_id, told.seq, told.data, told.created_at "
        "FROM job_events AS told JOIN jobs ON jobs.id = told.job_id ORDER BY told.created_at, told.job_id, told.seq"
    )
    op.create_index("ix_events_workspace", "events", ["workspace_id", "sequence"], unique=False)
    op.create_index(
        "ix_events_unnumbered",
        "events",
        ["created_at"],
        unique=False,
        postgresql_where=_UNNUMBERED,
        sqlite_where=_UNNUMBERED,
    )
    op.drop_table("job_events")


def downgrade() -> None:
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_events_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_job_events")),
    )
    # There is no place for the others.
    op.execute(
        "INSERT INTO job_events (job_id, seq, type, data, created_at) "
        "SELECT told.subject_id, told.number, substr(told.topic, 5), told.body, told.created_at "
        "FROM events AS told JOIN jobs ON jobs.id = told.subject_id WHERE told.topic LIKE 'job.%'"
    )
    op.drop_table("events")
