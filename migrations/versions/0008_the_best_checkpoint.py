"""Mark the best checkpoint of a job.

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("checkpoints", schema=None) as batch_op:
        # Of those that are there nobody knows; the next of their run will say.
        batch_op.add_column(sa.Column("best", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("checkpoints", schema=None) as batch_op:
        batch_op.alter_column("best", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("checkpoints", schema=None) as batch_op:
        batch_op.drop_column("best")
