"""Add the engines of models.

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op

from app.core.clock import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_engines",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("machine", sa.String(length=200), nullable=False),
        sa.Column("chosen", sa.String(length=32), nullable=False),
        sa.Column("measured", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("measured_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_model_engines_model_id_models"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model_id", "machine", name=op.f("pk_model_engines")),
    )


def downgrade() -> None:
    op.drop_table("model_engines")
