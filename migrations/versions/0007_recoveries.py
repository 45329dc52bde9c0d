"""recoveries"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("webhook_job", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "queued", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="what it had to send again"
            )
        )


def downgrade() -> None:
    with op.batch_alter_table("webhook_job", schema=None) as batch_op:
        batch_op.drop_column("queued")
