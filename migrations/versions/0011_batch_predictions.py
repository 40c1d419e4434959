"""Add predict jobs, which classify a dataset or images that are named one by one.

Revision: 0011, after 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_KINDS = "ck_jobs_jobkind"


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_constraint(op.f(_KINDS), type_="check")
        batch_op.create_check_constraint(op.f(_KINDS), "kind IN ('train', 'ingest', 'predict')")
        batch_op.alter_column("dataset_id", existing_type=sa.Uuid(), nullable=True)


def downgrade() -> None:
    # There is no place for them: neither for their kind nor, for some, for the dataset that they have not.
    op.execute("DELETE FROM job_events WHERE job_id IN (SELECT id FROM jobs WHERE kind = 'predict')")
    op.execute("DELETE FROM epoch_metrics WHERE job_id IN (SELECT id FROM jobs WHERE kind = 'predict')")
    op.execute("DELETE FROM checkpoints WHERE job_id IN (SELECT id FROM jobs WHERE kind = 'predict')")
    op.execute("DELETE FROM jobs WHERE kind = 'predict'")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_constraint(op.f(_KINDS), type_="check")
        batch_op.create_check_constraint(op.f(_KINDS), "kind IN ('train', 'ingest')")
        batch_op.alter_column("dataset_id", existing_type=sa.Uuid(), nullable=False)
