"""Store metadata with each image, and make an image unique within its dataset.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("dataset_images", schema=None) as batch_op:
        batch_op.add_column(sa.Column("metadata", sa.JSON(none_as_null=True), nullable=True))
        batch_op.create_unique_constraint(batch_op.f("uq_dataset_images_dataset_id"), ["dataset_id", "sha256"])


def downgrade() -> None:
    with op.batch_alter_table("dataset_images", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("uq_dataset_images_dataset_id"), type_="unique")
        batch_op.drop_column("metadata")
