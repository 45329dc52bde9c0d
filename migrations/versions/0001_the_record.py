"""the record"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column(
            "name",
            sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"),
            nullable=False,
            comment="the source of what is posted with it",
        ),
        sa.Column(
            "prefix",
            sa.String(length=16).with_variant(sa.String(length=16, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the whole key"),
        sa.Column("scopes", sa.Text(), nullable=False, comment="separated by spaces"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_api_key")),
    )
    with op.batch_alter_table("api_key", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_key_hash"), ["hash"], unique=True)

    op.create_table(
        "change",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("customer", sa.BigInteger(), nullable=False),
        sa.Column(
            "type",
            sa.String(length=32).with_variant(sa.String(length=32, collation="C"), "postgresql"),
            nullable=False,
            comment="stage.changed | history.corrected",
        ),
        sa.Column(
            "lifecycle",
            sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("subject", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column("sequence", sa.Integer(), nullable=True, comment="of the journey; null on corrections"),
        sa.Column("muted", sa.Boolean(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="JSON: the data of the event"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change")),
        comment="What others are told, written in the transaction of the fact",
    )
    op.create_table(
        "checkpoint",
        sa.Column("customer", sa.BigInteger(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "id", sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"), nullable=False
        ),
        sa.Column(
            "source",
            sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("customer", "occurred_at", "id", "source", name=op.f("pk_checkpoint")),
        comment="The fold's state after the fact named: where a re-fold can begin. Disposable",
    )
    op.create_table(
        "conflict",
        sa.Column(
            "source",
            sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column(
            "id", sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"), nullable=False
        ),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False, comment="the message that was not taken"),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "id", "content", name=op.f("pk_conflict")),
        comment="The same id posted with other content: the first one stands",
    )
    op.create_table(
        "customer",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column(
            "kind",
            sa.String(length=16).with_variant(sa.String(length=16, collation="C"), "postgresql"),
            nullable=False,
            comment="customer_id | anonymous_id",
        ),
        sa.Column("value", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column(
            "definitions", sa.Integer(), nullable=False, comment="the set of definitions that `state` was folded under"
        ),
        sa.Column(
            "state",
            sa.LargeBinary(),
            nullable=True,
            comment="the fold's state after the last fact; derived, read by store/states.py",
        ),
        sa.Column(
            "sequences",
            sa.LargeBinary(),
            nullable=True,
            comment="the last sequence of each journey; read by store/states.py",
        ),
        sa.Column(
            "recorded_at", sa.BigInteger(), nullable=False, comment="of the last transaction; strictly increasing"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_customer")),
        sa.UniqueConstraint("kind", "value", name=op.f("uq_customer_kind_value")),
        comment="One row for each identity that touchpoints were stored under: lock, state and sequences of a customer",
        postgresql_with={"fillfactor": "60"},
    )
    op.create_table(
        "dead_letter",
        sa.Column(
            "log",
            sa.String(length=200).with_variant(sa.String(length=200, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column(
            "source",
            sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"),
            nullable=True,
        ),
        sa.Column(
            "id", sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"), nullable=True
        ),
        sa.Column(
            "code", sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql"), nullable=False
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("log", "partition", "position", name=op.f("pk_dead_letter")),
        comment="Records that could not be processed, set aside in the transaction that moved the position past them",
    )
    with op.batch_alter_table("dead_letter", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dead_letter_source_id"), ["source", "id"], unique=False)

    op.create_table(
        "definition_set",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False, comment="always 1"),
        sa.Column("number", sa.Integer(), nullable=False, comment="grows with each activation"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_definition_set")),
        comment="The number of the set of active definitions, which every transaction of the engine is begun under",
    )
    op.create_table(
        "history",
        sa.Column("customer", sa.BigInteger(), nullable=False),
        sa.Column(
            "at", sa.BigInteger(), nullable=False, comment="entered_at of the stay, or the instant of the refusal"
        ),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="tells lines of one transaction apart"),
        sa.Column(
            "lifecycle",
            sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("subject", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=True),
        sa.Column(
            "stage",
            sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql"),
            nullable=False,
            comment="entered, or aimed at by the refused rule",
        ),
        sa.Column(
            "origin",
            sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql"),
            nullable=True,
        ),
        sa.Column(
            "move",
            sa.String(length=8).with_variant(sa.String(length=8, collation="C"), "postgresql"),
            nullable=False,
            comment="start | advance | skip | back | reenter | refused",
        ),
        sa.Column("skipped", sa.Text(), nullable=False, comment="stage keys, separated by spaces"),
        sa.Column(
            "cause",
            sa.String(length=12).with_variant(sa.String(length=12, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("rule", sa.SmallInteger(), nullable=True),
        sa.Column(
            "touchpoint",
            sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"),
            nullable=True,
        ),
        sa.Column(
            "source",
            sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"),
            nullable=True,
        ),
        sa.Column("definition_version", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("superseded_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("customer", "at", "recorded_at", "number", name=op.f("pk_history")),
        comment="Append-only: a correction sets superseded_at once; left_at is the next stay's at, as known then",
    )
    op.create_table(
        "lifecycle",
        sa.Column(
            "key", sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql"), nullable=False
        ),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False, comment="as it was posted"),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("activated_at", sa.BigInteger(), nullable=True, comment="null: never"),
        sa.Column(
            "activated_in",
            sa.Integer(),
            nullable=True,
            comment="the number of the set of definitions that it came with",
        ),
        sa.PrimaryKeyConstraint("key", "version", name=op.f("pk_lifecycle")),
        comment="Every version of every definition. Immutable but for its activation",
    )
    op.create_table(
        "log_position",
        sa.Column(
            "log",
            sa.String(length=200).with_variant(sa.String(length=200, collation="C"), "postgresql"),
            nullable=False,
            comment="the Kafka topic, or `database`",
        ),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("next", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("log", "partition", name=op.f("pk_log_position")),
        comment="Where to go on reading; moved by compare-and-set in the transaction of the effects",
    )
    op.create_table(
        "log_record",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("appended_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_log_record")),
        comment="The log, where there is no Kafka",
        sqlite_autoincrement=True,
    )
    op.create_table(
        "ownership",
        sa.Column(
            "identity", sa.BigInteger(), nullable=False, comment="customer.id of the anonymous id or merged customer"
        ),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.BigInteger(), nullable=False, comment="customer.id that it belongs to"),
        sa.Column("superseded_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("identity", "recorded_at", name=op.f("pk_ownership")),
        comment="Who belongs to a customer, as it was known. An identity without a row here is a customer of its own",
    )
    with op.batch_alter_table("ownership", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ownership_owner"), ["owner"], unique=False)

    op.create_table(
        "touchpoint",
        sa.Column(
            "source",
            sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column(
            "id", sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"), nullable=False
        ),
        sa.Column(
            "customer", sa.BigInteger(), nullable=False, comment="customer.id of the identity that it named first"
        ),
        sa.Column(
            "anonymous_id",
            sa.String().with_variant(sa.String(collation="C"), "postgresql"),
            nullable=True,
            comment="also named, beside a customer_id",
        ),
        sa.Column(
            "type",
            sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False, comment="16 bytes of BLAKE2b over what the poster sent"),
        sa.Column(
            "body",
            sa.LargeBinary(),
            nullable=True,
            comment='canonical JSON {"context":…,"properties":…}; null once pruned',
        ),
        sa.Column("muted", sa.Boolean(), nullable=False),
        sa.Column(
            "late",
            sa.Boolean(),
            server_default=sa.text("(false)"),
            nullable=False,
            comment="it changed what was already told",
        ),
        sa.Column("duplicates", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("conflicts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("source", "id", name=op.f("pk_touchpoint")),
        comment="Every accepted fact. The row outlives its body, so that an id never takes effect twice",
    )
    with op.batch_alter_table("touchpoint", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_touchpoint_customer_occurred_at"), ["customer", "occurred_at"], unique=False
        )

    op.execute("INSERT INTO definition_set (id, number) VALUES (1, 0)")


def downgrade() -> None:
    with op.batch_alter_table("touchpoint", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_touchpoint_customer_occurred_at"))

    op.drop_table("touchpoint")
    with op.batch_alter_table("ownership", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_ownership_owner"))

    op.drop_table("ownership")
    op.drop_table("log_record")
    op.drop_table("log_position")
    op.drop_table("lifecycle")
    op.drop_table("history")
    op.drop_table("definition_set")
    with op.batch_alter_table("dead_letter", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_dead_letter_source_id"))

    op.drop_table("dead_letter")
    op.drop_table("customer")
    op.drop_table("conflict")
    op.drop_table("checkpoint")
    op.drop_table("change")
    with op.batch_alter_table("api_key", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_key_hash"))

    op.drop_table("api_key")
