"""Add the members of jobs that several machines share.

Revision: 0012, after 0011
"""

import sqlalchemy as sa
from alembic import op

from app.core.clock import UtcDateTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_members",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(length=255), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("lease_expires_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_members_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_members")),
        sa.UniqueConstraint("job_id", "number", name="uq_job_members_number"),
        sa.UniqueConstraint("job_id", "worker", name="uq_job_members_worker"),
    )


def downgrade() -> None:
    op.drop_table("job_members")
