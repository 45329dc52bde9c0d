"""keys and idempotency"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_EVERY = {
    "ingest:write",
    "customers:read",
    "customers:write",
    "lifecycles:read",
    "lifecycles:write",
    "changes:read",
    "metrics:read",
}
"""Every scope that there was; a key that has them all was made to be allowed everything."""


def _bytewise(length: int | None = None) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    connection = op.get_bind()
    # Its primary key becomes another: there are few rows, and so they are carried over by hand.
    keys = [row._asdict() for row in connection.execute(sa.text("SELECT * FROM api_key"))]
    op.drop_table("api_key")
    table = op.create_table(
        "api_key",
        sa.Column("id", _bytewise(16), nullable=False, comment="the eight characters of the key after le_"),
        sa.Column("name", _bytewise(128), nullable=False, comment="for people: who has it, and for what"),
        sa.Column(
            "source",
            _bytewise(128),
            nullable=False,
            comment="of what is posted with it; several keys may have the same",
        ),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the whole key"),
        sa.Column("scopes", sa.Text(), nullable=False, comment="separated by spaces"),
        sa.Column(
            "rate_requests",
            sa.Integer(),
            nullable=True,
            comment="how many requests it may make in rate_seconds; null: the setting",
        ),
        sa.Column("rate_seconds", sa.Integer(), nullable=True),
        sa.Column("replaces", _bytewise(16), nullable=True, comment="id of the key that it was rotated from"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True, comment="to the minute; written behind the requests"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
    )
    op.create_index(op.f("ix_api_key_hash"), "api_key", ["hash"], unique=True)
    for key in keys:
        scopes = "admin" if set(key["scopes"].split()) >= _EVERY else key["scopes"]
        carried = key | {"id": key.pop("prefix"), "source": key["name"], "scopes": scopes}
        op.bulk_insert(table, [carried])
    op.create_table(
        "idempotency",
        sa.Column("caller", _bytewise(16), nullable=False, comment="api_key.id"),
        sa.Column("route", _bytewise(256), nullable=False, comment="method and path, its parts by their names"),
        sa.Column("key", _bytewise(255), nullable=False, comment="the Idempotency-Key"),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False, comment="of the request"),
        sa.Column("lease", sa.BigInteger(), nullable=False, comment="the token of whoever works on the first answer"),
        sa.Column("leased_until", sa.BigInteger(), nullable=False, comment="when somebody else may take it over"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True, comment="of the first answer; null while there is none"),
        sa.Column("headers", sa.LargeBinary(), nullable=True, comment="of the first answer, as JSON"),
        sa.Column(
            "body",
            sa.LargeBinary(),
            nullable=True,
            comment="of the first answer; null where it held a secret, which is shown once",
        ),
        sa.PrimaryKeyConstraint("caller", "route", "key", name=op.f("pk_idempotency")),
        comment="The first answers to requests with an Idempotency-Key, for a day",
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"], unique=False)


def downgrade() -> None:
    op.drop_table("idempotency")
    connection = op.get_bind()
    keys = [row._asdict() for row in connection.execute(sa.text("SELECT * FROM api_key"))]
    op.drop_table("api_key")
    table = op.create_table(
        "api_key",
        sa.Column("name", _bytewise(128), nullable=False, comment="the source of what is posted with it"),
        sa.Column("prefix", _bytewise(16), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the whole key"),
        sa.Column("scopes", sa.Text(), nullable=False, comment="separated by spaces"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_api_key")),
    )
    op.create_index(op.f("ix_api_key_hash"), "api_key", ["hash"], unique=True)
    known = ("hash", "created_at", "expires_at", "revoked_at")
    # A name was the source, and one key's only: of several keys of a source the newest stays.
    newest = {key["source"]: key for key in sorted(keys, key=lambda key: key["created_at"])}
    for source, key in newest.items():
        scopes = " ".join(sorted(_EVERY)) if key["scopes"] == "admin" else key["scopes"]
        kept = {name: key[name] for name in known}
        op.bulk_insert(table, [{"name": source, "prefix": key["id"], "scopes": scopes, **kept}])
