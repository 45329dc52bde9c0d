"""time and identity"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _bytewise(length: int | None = None) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "activation",
        sa.Column(
            "number",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="of the set of definitions it makes",
        ),
        sa.Column("key", _bytewise(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column(
            "since", sa.BigInteger(), nullable=True, comment="from when on it judges; null: from the beginning of time"
        ),
        sa.Column("activated_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "customers",
            sa.Integer(),
            nullable=True,
            comment="how many had to be folded anew; null until that is counted",
        ),
        sa.Column("finished_at", sa.BigInteger(), nullable=True, comment="when all of them were"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_activation")),
        comment="Which version takes effect from when on: append-only, and the job that brings customers up to it",
    )
    op.execute(
        "INSERT INTO activation (number, key, version, activated_at) "
        "SELECT activated_in, key, version, activated_at FROM lifecycle WHERE activated_in IS NOT NULL"
    )
    with op.batch_alter_table("lifecycle", schema=None) as batch_op:
        batch_op.drop_column("activated_at")
        batch_op.drop_column("activated_in")
    if op.get_bind().dialect.name == "postgresql":
        op.create_table_comment(
            "lifecycle",
            "Every version of every definition. Immutable",
            existing_comment="Every version of every definition. Immutable but for its activation",
        )

    op.create_table(
        "wake",
        sa.Column("customer", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "at",
            sa.BigInteger(),
            nullable=False,
            comment="never later than what is due; it may prove to be too early",
        ),
        sa.PrimaryKeyConstraint("customer", name=op.f("pk_wake")),
        comment="When a customer has to be looked at though no fact comes: deadlines, windows' ends, announcements",
    )
    with op.batch_alter_table("wake", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_wake_at_customer"), ["at", "customer"], unique=False)

    with op.batch_alter_table("customer", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "announced",
                sa.LargeBinary(),
                nullable=True,
                comment="timers that others were told of; read by store/states.py",
            )
        )
        batch_op.add_column(
            sa.Column(
                "muted",
                sa.Boolean(),
                server_default=sa.text("false"),
                nullable=False,
                comment="what was accepted last was muted",
            )
        )
        batch_op.add_column(
            sa.Column(
                "owner",
                sa.BigInteger(),
                nullable=True,
                comment="customer.id of whom it belongs to now, never itself owned; null: nobody",
            )
        )
        batch_op.add_column(sa.Column("wake", sa.BigInteger(), nullable=True, comment="as in the table wake"))
        batch_op.create_index(batch_op.f("ix_customer_definitions"), ["definitions"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_customer_owner"),
            ["owner"],
            unique=False,
            sqlite_where=sa.text("owner IS NOT NULL"),
            postgresql_where=sa.text("owner IS NOT NULL"),
        )

    with op.batch_alter_table("touchpoint", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("retracted_at", sa.BigInteger(), nullable=True, comment="since when it counts as never accepted")
        )
        batch_op.create_index(
            batch_op.f("ix_touchpoint_anonymous_id_customer_occurred_at"),
            ["anonymous_id", "customer", "occurred_at"],
            unique=False,
            sqlite_where=sa.text("anonymous_id IS NOT NULL"),
            postgresql_where=sa.text("anonymous_id IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_touchpoint_merge",
            ["customer"],
            unique=False,
            sqlite_where=sa.text("type IN ('$merge', '$unmerge')"),
            postgresql_where=sa.text("type IN ('$merge', '$unmerge')"),
        )

    with op.batch_alter_table("history", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "phase",
                sa.SmallInteger(),
                server_default=sa.text("5"),
                nullable=False,
                comment="orders what is at one instant",
            )
        )

    with op.batch_alter_table("change", schema=None) as batch_op:
        batch_op.alter_column(
            "type",
            existing_type=_bytewise(32),
            existing_nullable=False,
            comment="stage.changed | stage.expiring | …",
        )
        batch_op.alter_column(
            "lifecycle",
            existing_type=_bytewise(64),
            nullable=True,
            comment="null for what is about the customer as a whole",
        )


def downgrade() -> None:
    raise NotImplementedError("a customer's merged history cannot be taken apart; restore a backup instead")
