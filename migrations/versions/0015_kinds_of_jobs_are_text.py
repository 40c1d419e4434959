"""Keep kinds of jobs as text, so that a new kind needs no change of the schema.

Revision: 0015, after 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_KINDS = "ck_jobs_jobkind"
_OF_BEFORE = ("train", "ingest", "predict")
_JOBS = sa.table("jobs", sa.column("id"), sa.column("kind"))


def upgrade() -> None:
    # PostgreSQL only strikes out the constraint; SQLite copies the table. The column is text in both already.
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_constraint(op.f(_KINDS), type_="check")


def downgrade() -> None:
    # There is no place for jobs of other kinds.
    others = sa.select(_JOBS.c.id).where(_JOBS.c.kind.not_in(_OF_BEFORE))
    events = sa.table("events", sa.column("subject_id"))
    op.execute(sa.delete(events).where(events.c.subject_id.in_(others)))
    for name in ("epoch_metrics", "checkpoints", "job_members"):
        table = sa.table(name, sa.column("job_id"))
        op.execute(sa.delete(table).where(table.c.job_id.in_(others)))
    op.execute(sa.delete(_JOBS).where(_JOBS.c.kind.not_in(_OF_BEFORE)))
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_check_constraint(op.f(_KINDS), "kind IN ('train', 'ingest', 'predict')")
