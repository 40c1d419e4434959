"""Give jobs a priority, an earliest start and a deadline, register workers, and keep models longer than their jobs.

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op

from app.core.clock import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        # The defaults are for the rows there are; new ones bring their values.
        batch_op.add_column(sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("run_after", UtcDateTime(), nullable=True))
        batch_op.add_column(sa.Column("max_seconds", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("ran_seconds", sa.Double(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("claimed_at", UtcDateTime(), nullable=True))
        batch_op.add_column(sa.Column("setback", _JSON, nullable=True))
        batch_op.create_check_constraint(
            op.f("ck_jobs_finished"), "(finished_at IS NOT NULL) = (state IN ('cancelled', 'failed', 'succeeded'))"
        )
        batch_op.drop_index("ix_jobs_claim")
        batch_op.create_index("ix_jobs_claim", ["state", "kind", "priority", "id"], unique=False)
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.alter_column("priority", server_default=None)
        batch_op.alter_column("ran_seconds", server_default=None)
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("fk_models_job_id_jobs"), type_="foreignkey")
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("devices", _JSON, nullable=False),
        sa.Column("train_slots", sa.Integer(), nullable=False),
        sa.Column("problem", _JSON, nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("heartbeat_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        sa.UniqueConstraint("name", name=op.f("uq_workers_name")),
    )


def downgrade() -> None:
    op.drop_table("workers")
    # Models whose job is forgotten have nothing to point to.
    op.execute("DELETE FROM models WHERE job_id NOT IN (SELECT id FROM jobs)")
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.create_foreign_key(op.f("fk_models_job_id_jobs"), "jobs", ["job_id"], ["id"])
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_claim")
        batch_op.create_index("ix_jobs_claim", ["state", "kind", "id"], unique=False)
        batch_op.drop_constraint(op.f("ck_jobs_finished"), type_="check")
        for column in ("setback", "claimed_at", "ran_seconds", "max_seconds", "run_after", "priority"):
            batch_op.drop_column(column)
