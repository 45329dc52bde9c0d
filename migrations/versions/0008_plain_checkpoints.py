"""plain checkpoints"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Checkpoints are written by the dozen and read one at a time: to compress the large ones costs a re-fold more than
    # everything else that it writes.
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE checkpoint ALTER COLUMN state SET STORAGE EXTERNAL")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE checkpoint ALTER COLUMN state SET STORAGE EXTENDED")
