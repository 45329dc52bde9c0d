"""webhooks"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _bytewise(length: int | None = None) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _serial() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "webhook_attempt",
        sa.Column("id", _serial(), autoincrement=True, nullable=False),
        sa.Column("delivery", sa.BigInteger(), nullable=False),
        sa.Column(
            "number", sa.Integer(), nullable=False, comment="from 1 within the delivery; 0: it counts for nothing"
        ),
        sa.Column("endpoint", _bytewise(32), nullable=False),
        sa.Column("message", _bytewise(32), nullable=False),
        sa.Column("type", _bytewise(32), nullable=False, comment="of the message"),
        sa.Column("trigger", _bytewise(12), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False, comment="when it began"),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("status", _bytewise(12), nullable=False, comment="succeeded | failed"),
        sa.Column("status_code", sa.SmallInteger(), nullable=True, comment="null: there was no answer"),
        sa.Column(
            "failure",
            _bytewise(32),
            nullable=True,
            comment="why there was none; the codes are those of webhook/sender.py",
        ),
        sa.Column("response", sa.LargeBinary(), nullable=True, comment="at most 16 KiB of the answer's body"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_attempt")),
        comment="What was sent and what was answered; kept for 30 days",
    )
    with op.batch_alter_table("webhook_attempt", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_webhook_attempt_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_webhook_attempt_delivery"), ["delivery"], unique=False)
        batch_op.create_index(batch_op.f("ix_webhook_attempt_endpoint_at"), ["endpoint", "at"], unique=False)

    op.create_table(
        "webhook_delivery",
        sa.Column("id", _serial(), autoincrement=True, nullable=False, comment="ascends along each customer's changes"),
        sa.Column("endpoint", _bytewise(32), nullable=False),
        sa.Column("message", _bytewise(32), nullable=False),
        sa.Column(
            "customer",
            sa.BigInteger(),
            nullable=True,
            comment="the lane where deliveries are ordered; null: not to be ordered",
        ),
        sa.Column("status", _bytewise(12), nullable=False, comment="pending | delivered | failed | dropped"),
        sa.Column("trigger", _bytewise(12), nullable=False, comment="change | endpoint | test | resend | recover"),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="of its schedule"),
        sa.Column("due_at", sa.BigInteger(), nullable=False, comment="of the next attempt, or of the last"),
        sa.Column(
            "lease",
            sa.BigInteger(),
            nullable=True,
            comment="the token of whoever makes an attempt; a result without it is void",
        ),
        sa.Column("leased_until", sa.BigInteger(), nullable=True, comment="when somebody else may make the attempt"),
        sa.Column(
            "reason",
            _bytewise(32),
            nullable=True,
            comment="why it failed or was dropped: exhausted | aborted | disabled | …",
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
        comment="A message on its way to an endpoint",
    )
    with op.batch_alter_table("webhook_delivery", schema=None) as batch_op:
        batch_op.create_index(
            "ix_webhook_delivery_due",
            ["endpoint", "due_at", "id"],
            unique=False,
            sqlite_where=sa.text("status = 'pending'"),
            postgresql_where=sa.text("status = 'pending'"),
        )
        batch_op.create_index(
            batch_op.f("ix_webhook_delivery_endpoint_created_at"), ["endpoint", "created_at"], unique=False
        )
        batch_op.create_index(
            "ix_webhook_delivery_lane",
            ["endpoint", "customer", "id"],
            unique=False,
            sqlite_where=sa.text("status = 'pending' AND customer IS NOT NULL"),
            postgresql_where=sa.text("status = 'pending' AND customer IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_webhook_delivery_lease",
            ["endpoint", "leased_until"],
            unique=False,
            sqlite_where=sa.text("lease IS NOT NULL"),
            postgresql_where=sa.text("lease IS NOT NULL"),
        )
        batch_op.create_index(batch_op.f("ix_webhook_delivery_message"), ["message"], unique=False)

    op.create_table(
        "webhook_endpoint",
        sa.Column("id", _bytewise(32), nullable=False, comment="ep_ and a ULID"),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column(
            "filter",
            sa.Text(),
            nullable=True,
            comment="JSON, read by outbox/filters.py; null: everything about customers",
        ),
        sa.Column("throttle_rate", sa.Integer(), nullable=True, comment="attempts a second at most; null: no limit"),
        sa.Column(
            "max_in_flight",
            sa.Integer(),
            nullable=True,
            comment="attempts at a time at most, of all replicas; null: no limit",
        ),
        sa.Column(
            "ordering", _bytewise(16), server_default=sa.text("'none'"), nullable=False, comment="none | per_customer"
        ),
        sa.Column(
            "signatures", _bytewise(16), server_default=sa.text("'v1'"), nullable=False, comment="separated by spaces"
        ),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.Column(
            "disabled_reason", _bytewise(32), nullable=True, comment="by_request | gone | asked_to_stop | failing"
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False, comment="grows with each edit"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoint")),
        comment="Who is told of changes",
    )
    op.create_table(
        "webhook_health",
        sa.Column("endpoint", _bytewise(32), nullable=False),
        sa.Column("parked_until", sa.BigInteger(), nullable=True, comment="no attempt before; then one, as a probe"),
        sa.Column(
            "probes",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="that failed since it was parked",
        ),
        sa.Column(
            "outcomes", sa.Text(), server_default=sa.text("('')"), nullable=False, comment="read by store/health.py"
        ),
        sa.Column(
            "failing_since",
            sa.BigInteger(),
            nullable=True,
            comment="the first failed attempt after the last that succeeded",
        ),
        sa.Column("last_success_at", sa.BigInteger(), nullable=True),
        sa.Column(
            "first_exhausted_at",
            sa.BigInteger(),
            nullable=True,
            comment="the first message given up after the last success",
        ),
        sa.Column(
            "announced",
            sa.Boolean(),
            server_default=sa.text("(false)"),
            nullable=False,
            comment="others know that it fails",
        ),
        sa.Column(
            "throttled_until",
            sa.BigInteger(),
            nullable=True,
            comment="when the attempts claimed so far are all due at throttle_rate",
        ),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_webhook_health")),
        comment="How an endpoint does; whoever claims its deliveries or writes their results locks this row first",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "webhook_job",
        sa.Column("id", _bytewise(32), nullable=False),
        sa.Column("endpoint", _bytewise(32), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="how far it has got"),
        sa.Column("total", sa.Integer(), nullable=True, comment="null until that is counted"),
        sa.Column("done", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_job")),
        comment="Sending again what an endpoint has missed",
    )
    with op.batch_alter_table("webhook_job", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_webhook_job_endpoint"), ["endpoint"], unique=False)

    op.create_table(
        "webhook_message",
        sa.Column("id", _bytewise(32), nullable=False, comment="msg_ and a ULID: the webhook-id of every attempt"),
        sa.Column("type", _bytewise(32), nullable=False),
        sa.Column(
            "change",
            sa.BigInteger(),
            nullable=True,
            comment="change.id; null where it tells of an endpoint, or is a test",
        ),
        sa.Column("customer", sa.BigInteger(), nullable=True),
        sa.Column("lifecycle", _bytewise(64), nullable=True),
        sa.Column("subject", _bytewise(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False, comment="of what it tells"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "body", sa.LargeBinary(), nullable=True, comment="the bytes that are sent and signed; null once pruned"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_message")),
        comment="What is sent, serialised once",
    )
    with op.batch_alter_table("webhook_message", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_webhook_message_change"), ["change"], unique=True)
        batch_op.create_index(batch_op.f("ix_webhook_message_created_at"), ["created_at"], unique=False)

    op.create_table(
        "webhook_secret",
        sa.Column("id", _serial(), autoincrement=True, nullable=False),
        sa.Column("endpoint", _bytewise(32), nullable=False),
        sa.Column("kind", _bytewise(4), nullable=False, comment="v1 | v1a"),
        sa.Column("key_id", _bytewise(64), nullable=False, comment="of the master key that it is encrypted under"),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True, comment="null: the current one"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_secret")),
        comment="What deliveries are signed with",
    )
    with op.batch_alter_table("webhook_secret", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_webhook_secret_endpoint"), ["endpoint"], unique=False)


def downgrade() -> None:
    for table in ("job", "attempt", "delivery", "message", "secret", "health", "endpoint"):
        op.drop_table(f"webhook_{table}")
