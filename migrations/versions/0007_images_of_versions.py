"""Add a table of the images that each version holds.

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dataset_version_images",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["dataset_versions.id"],
            name=op.f("fk_dataset_version_images_version_id_dataset_versions"),
        ),
        sa.PrimaryKeyConstraint("version_id", "sha256", name=op.f("pk_dataset_version_images")),
    )
    with op.batch_alter_table("dataset_version_images", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dataset_version_images_sha256"), ["sha256"], unique=False)
    # Until now a dataset had one version, of all its images.
    op.execute(
        "INSERT INTO dataset_version_images (version_id, sha256) SELECT dataset_versions.id, dataset_images.sha256 "
        "FROM dataset_versions JOIN dataset_images ON dataset_images.dataset_id = dataset_versions.dataset_id"
    )


def downgrade() -> None:
    op.drop_table("dataset_version_images")
