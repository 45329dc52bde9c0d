"""the feed"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("change", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "position",
                sa.BigInteger(),
                nullable=True,
                comment="in the feed; given after the commit, null until then",
            )
        )
        batch_op.create_index(batch_op.f("ix_change_position"), ["position"], unique=True)
        batch_op.create_index(
            "ix_change_without_position",
            ["id"],
            unique=False,
            sqlite_where=sa.text("position IS NULL"),
            postgresql_where=sa.text("position IS NULL"),
        )
    op.create_table(
        "feed",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False, comment="always 1"),
        sa.Column("next", sa.BigInteger(), nullable=False, comment="the position that the next change gets"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feed")),
        comment="Where the feed ends. Whoever holds the row's lock gives the positions",
    )
    op.execute("INSERT INTO feed (id, next) VALUES (1, 1)")


def downgrade() -> None:
    op.drop_table("feed")
    with op.batch_alter_table("change", schema=None) as batch_op:
        batch_op.drop_index("ix_change_without_position")
        batch_op.drop_index(batch_op.f("ix_change_position"))
        batch_op.drop_column("position")
