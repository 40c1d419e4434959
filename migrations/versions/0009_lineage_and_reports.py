"""Add the lineage of models, and the files of their reports.

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.add_column(sa.Column("parent_id", sa.Uuid(), nullable=True))
        # All that there are were fine-tuned from published weights.
        batch_op.add_column(sa.Column("lineage", sa.JSON(none_as_null=True), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("training", sa.JSON(none_as_null=True), nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("files", sa.JSON(none_as_null=True), nullable=False, server_default="{}"))
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.alter_column("lineage", server_default=None)
        batch_op.alter_column("training", server_default=None)
        batch_op.alter_column("files", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.drop_column("files")
        batch_op.drop_column("training")
        batch_op.drop_column("lineage")
        batch_op.drop_column("parent_id")
