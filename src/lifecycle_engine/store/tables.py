"""The tables. Times are bigint microseconds since 1970-01-01T00:00:00Z (docs/adr/0002-instants.md).

Texts that are compared or sorted use the bytes' order on both databases, which is the order of the fold.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Instant = BigInteger
_Serial = BigInteger().with_variant(Integer, "sqlite")


def _bytewise(length: int | None = None) -> TypeEngine[str]:
    """Text in the order of its UTF-8 bytes: PostgreSQL's "C", SQLite's own order."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


customer = Table(
    "customer",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("kind", _bytewise(16), nullable=False, comment="customer_id | anonymous_id"),
    Column("value", _bytewise(), nullable=False),
    Column("definitions", Integer, nullable=False, comment="the set of definitions that `state` was folded under"),
    Column("state", LargeBinary, comment="the fold's state after the last fact; derived, read by store/states.py"),
    Column("sequences", LargeBinary, comment="the last sequence of each journey; read by store/states.py"),
    Column("announced", LargeBinary, comment="timers that others were told of; read by store/states.py"),
    Column("recorded_at", Instant, nullable=False, comment="of the last transaction; strictly increasing"),
    Column("muted", Boolean, nullable=False, server_default=text("false"), comment="what was accepted last was muted"),
    Column("owner", BigInteger, comment="customer.id of whom it belongs to now, never itself owned; null: nobody"),
    Column("wake", Instant, comment="as in the table wake"),
    UniqueConstraint("kind", "value"),
    Index(None, "definitions"),
    Index(None, "owner", sqlite_where=text("owner IS NOT NULL"), postgresql_where=text("owner IS NOT NULL")),
    comment="One row for each identity that touchpoints were stored under: lock, state and sequences of a customer",
    postgresql_with={"fillfactor": "60"},
)

ownership = Table(
    "ownership",
    metadata,
    Column("identity", BigInteger, primary_key=True, comment="customer.id of the anonymous id or merged customer"),
    Column("recorded_at", Instant, primary_key=True),
    Column("owner", BigInteger, nullable=False, comment="customer.id that it belongs to"),
    Column("superseded_at", Instant),
    Index(None, "owner"),
    comment="Who belongs to a customer, as it was known. An identity without a row here is a customer of its own",
)

wake = Table(
    "wake",
    metadata,
    Column("customer", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False, comment="never later than what is due; it may prove to be too early"),
    Index(None, "at", "customer"),
    comment="When a customer has to be looked at though no fact comes: deadlines, windows' ends, announcements",
)

touchpoint = Table(
    "touchpoint",
    metadata,
    Column("source", _bytewise(128), primary_key=True),
    Column("id", _bytewise(128), primary_key=True),
    Column("customer", BigInteger, nullable=False, comment="customer.id of the identity that it named first"),
    Column("anonymous_id", _bytewise(), comment="also named, beside a customer_id"),
    Column("type", _bytewise(128), nullable=False),
    Column("occurred_at", Instant, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("content", LargeBinary, nullable=False, comment="16 bytes of BLAKE2b over what the poster sent"),
    Column("body", LargeBinary, comment='canonical JSON {"context":…,"properties":…}; null once pruned'),
    Column("muted", Boolean, nullable=False),
    Column("late", Boolean, nullable=False, server_default=text("false"), comment="it changed what was already told"),
    Column("duplicates", Integer, nullable=False, server_default=text("0")),
    Column("conflicts", Integer, nullable=False, server_default=text("0")),
    Column("retracted_at", Instant, comment="since when it counts as never accepted"),
    Index(None, "customer", "occurred_at"),
    Index(
        None,
        "anonymous_id",
        "customer",
        "occurred_at",
        sqlite_where=text("anonymous_id IS NOT NULL"),
        postgresql_where=text("anonymous_id IS NOT NULL"),
    ),
    Index(
        "ix_touchpoint_merge",
        "customer",
        sqlite_where=text("type IN ('$merge', '$unmerge')"),
        postgresql_where=text("type IN ('$merge', '$unmerge')"),
    ),
    comment="Every accepted fact. The row outlives its body, so that an id never takes effect twice",
)

conflict = Table(
    "conflict",
    metadata,
    Column("source", _bytewise(128), primary_key=True),
    Column("id", _bytewise(128), primary_key=True),
    Column("content", LargeBinary, primary_key=True),
    Column("message", LargeBinary, nullable=False, comment="the message that was not taken"),
    Column("recorded_at", Instant, nullable=False),
    comment="The same id posted with other content: the first one stands",
)

history = Table(
    "history",
    metadata,
    Column("customer", BigInteger, primary_key=True),
    Column("at", Instant, primary_key=True, comment="entered_at of the stay, or the instant of the refusal"),
    Column("recorded_at", Instant, primary_key=True),
    Column("number", Integer, primary_key=True, comment="tells lines of one transaction apart"),
    Column("lifecycle", _bytewise(64), nullable=False),
    Column("subject", _bytewise()),
    Column("stage", _bytewise(64), nullable=False, comment="entered, or aimed at by the refused rule"),
    Column("origin", _bytewise(64)),
    Column("move", _bytewise(8), nullable=False, comment="start | advance | skip | back | reenter | refused"),
    Column("skipped", Text, nullable=False, comment="stage keys, separated by spaces"),
    Column("cause", _bytewise(12), nullable=False),
    Column("rule", SmallInteger),
    Column("touchpoint", _bytewise(128)),
    Column("source", _bytewise(128)),
    Column("definition_version", Integer, nullable=False),
    Column("reason", Text),
    Column("phase", SmallInteger, nullable=False, server_default=text("5"), comment="orders what is at one instant"),
    Column("superseded_at", Instant),
    comment="Append-only: a correction sets superseded_at once; left_at is the next stay's at, as known then",
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("customer", BigInteger, primary_key=True),
    Column("occurred_at", Instant, primary_key=True),
    Column("id", _bytewise(128), primary_key=True),
    Column("source", _bytewise(128), primary_key=True),
    Column("state", LargeBinary, nullable=False),
    comment="The fold's state after the fact named: where a re-fold can begin. Disposable",
)

change = Table(
    "change",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("customer", BigInteger, nullable=False),
    Column("type", _bytewise(32), nullable=False, comment="stage.changed | stage.expiring | …"),
    Column("lifecycle", _bytewise(64), comment="null for what is about the customer as a whole"),
    Column("subject", _bytewise()),
    Column("sequence", Integer, comment="of the journey; null on corrections"),
    Column("muted", Boolean, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("body", LargeBinary, nullable=False, comment="JSON: the data of the event"),
    Column("position", BigInteger, comment="in the feed; given after the commit, null until then"),
    Index(None, "position", unique=True),
    Index(
        "ix_change_without_position",
        "id",
        sqlite_where=text("position IS NULL"),
        postgresql_where=text("position IS NULL"),
    ),
    comment="What others are told, written in the transaction of the fact",
)

feed = Table(
    "feed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="always 1"),
    Column("next", BigInteger, nullable=False, comment="the position that the next change gets"),
    comment="Where the feed ends. Whoever holds the row's lock gives the positions",
)

webhook_endpoint = Table(
    "webhook_endpoint",
    metadata,
    Column("id", _bytewise(32), primary_key=True, comment="ep_ and a ULID"),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=text("''")),
    Column("filter", Text, comment="JSON, read by outbox/filters.py; null: everything about customers"),
    Column("throttle_rate", Integer, comment="attempts a second at most; null: no limit"),
    Column("max_in_flight", Integer, comment="attempts at a time at most, of all replicas; null: no limit"),
    Column("ordering", _bytewise(16), nullable=False, server_default=text("'none'"), comment="none | per_customer"),
    Column("signatures", _bytewise(16), nullable=False, server_default=text("'v1'"), comment="separated by spaces"),
    Column("disabled_at", Instant),
    Column("disabled_reason", _bytewise(32), comment="by_request | gone | asked_to_stop | failing"),
    Column("version", Integer, nullable=False, server_default=text("1"), comment="grows with each edit"),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    comment="Who is told of changes",
)

webhook_health = Table(
    "webhook_health",
    metadata,
    Column("endpoint", _bytewise(32), primary_key=True),
    Column("parked_until", Instant, comment="no attempt before; then one, as a probe"),
    Column("probes", Integer, nullable=False, server_default=text("0"), comment="that failed since it was parked"),
    Column("outcomes", Text, nullable=False, server_default=text("''"), comment="read by store/health.py"),
    Column("failing_since", Instant, comment="the first failed attempt after the last that succeeded"),
    Column("last_success_at", Instant),
    Column("first_exhausted_at", Instant, comment="the first message given up after the last success"),
    Column("announced", Boolean, nullable=False, server_default=text("false"), comment="others know that it fails"),
    Column("throttled_until", Instant, comment="when the attempts claimed so far are all due at throttle_rate"),
    comment="How an endpoint does; whoever claims its deliveries or writes their results locks this row first",
    postgresql_with={"fillfactor": "50"},
)

webhook_secret = Table(
    "webhook_secret",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("endpoint", _bytewise(32), nullable=False),
    Column("kind", _bytewise(4), nullable=False, comment="v1 | v1a"),
    Column("key_id", _bytewise(64), nullable=False, comment="of the master key that it is encrypted under"),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, comment="null: the current one"),
    Index(None, "endpoint"),
    comment="What deliveries are signed with",
)

webhook_message = Table(
    "webhook_message",
    metadata,
    Column("id", _bytewise(32), primary_key=True, comment="msg_ and a ULID: the webhook-id of every attempt"),
    Column("type", _bytewise(32), nullable=False),
    Column("change", BigInteger, comment="change.id; null where it tells of an endpoint, or is a test"),
    Column("customer", BigInteger),
    Column("lifecycle", _bytewise(64)),
    Column("subject", _bytewise()),
    Column("recorded_at", Instant, nullable=False, comment="of what it tells"),
    Column("created_at", Instant, nullable=False),
    Column("body", LargeBinary, comment="the bytes that are sent and signed; null once pruned"),
    Index(None, "change", unique=True),
    Index(None, "created_at"),
    comment="What is sent, serialised once",
)

webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True, comment="ascends along each customer's changes"),
    Column("endpoint", _bytewise(32), nullable=False),
    Column("message", _bytewise(32), nullable=False),
    Column("customer", BigInteger, comment="the lane where deliveries are ordered; null: not to be ordered"),
    Column("status", _bytewise(12), nullable=False, comment="pending | delivered | failed | dropped"),
    Column("trigger", _bytewise(12), nullable=False, comment="change | endpoint | test | resend | recover"),
    Column("attempts", Integer, nullable=False, server_default=text("0"), comment="of its schedule"),
    Column("due_at", Instant, nullable=False, comment="of the next attempt, or of the last"),
    Column("lease", BigInteger, comment="the token of whoever makes an attempt; a result without it is void"),
    Column("leased_until", Instant, comment="when somebody else may make the attempt"),
    Column("reason", _bytewise(32), comment="why it failed or was dropped: exhausted | aborted | disabled | …"),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Index(None, "message"),
    Index(None, "endpoint", "created_at"),
    Index(
        "ix_webhook_delivery_due",
        "endpoint",
        "due_at",
        "id",
        sqlite_where=text("status = 'pending'"),
        postgresql_where=text("status = 'pending'"),
    ),
    Index(
        "ix_webhook_delivery_lane",
        "endpoint",
        "customer",
        "id",
        sqlite_where=text("status = 'pending' AND customer IS NOT NULL"),
        postgresql_where=text("status = 'pending' AND customer IS NOT NULL"),
    ),
    Index(
        "ix_webhook_delivery_lease",
        "endpoint",
        "leased_until",
        sqlite_where=text("lease IS NOT NULL"),
        postgresql_where=text("lease IS NOT NULL"),
    ),
    comment="A message on its way to an endpoint",
)

webhook_attempt = Table(
    "webhook_attempt",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("delivery", BigInteger, nullable=False),
    Column("number", Integer, nullable=False, comment="from 1 within the delivery; 0: it counts for nothing"),
    Column("endpoint", _bytewise(32), nullable=False),
    Column("message", _bytewise(32), nullable=False),
    Column("type", _bytewise(32), nullable=False, comment="of the message"),
    Column("trigger", _bytewise(12), nullable=False),
    Column("at", Instant, nullable=False, comment="when it began"),
    Column("milliseconds", Integer, nullable=False),
    Column("status", _bytewise(12), nullable=False, comment="succeeded | failed"),
    Column("status_code", SmallInteger, comment="null: there was no answer"),
    Column("failure", _bytewise(32), comment="why there was none; the codes are those of webhook/sender.py"),
    Column("response", LargeBinary, comment="at most 16 KiB of the answer's body"),
    Index(None, "endpoint", "at"),
    Index(None, "delivery"),
    Index(None, "at"),
    comment="What was sent and what was answered; kept for 30 days",
)

webhook_job = Table(
    "webhook_job",
    metadata,
    Column("id", _bytewise(32), primary_key=True),
    Column("endpoint", _bytewise(32), nullable=False),
    Column("since", Instant, nullable=False),
    Column("until", Instant, nullable=False),
    Column("cursor", BigInteger, nullable=False, server_default=text("0"), comment="how far it has got"),
    Column("total", Integer, comment="null until that is counted"),
    Column("done", Integer, nullable=False, server_default=text("0")),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("queued", Integer, nullable=False, server_default=text("0"), comment="what it had to send again"),
    Index(None, "endpoint"),
    comment="Sending again what an endpoint has missed",
)

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("log", _bytewise(200), primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("source", _bytewise(128)),
    Column("id", _bytewise(128)),
    Column("code", _bytewise(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Index(None, "source", "id"),
    comment="Records that could not be processed, set aside in the transaction that moved the position past them",
)

halt = Table(
    "halt",
    metadata,
    Column("log", _bytewise(200), primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("code", _bytewise(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("halted_at", Instant, nullable=False),
    comment="A flood of dead letters: the workers of the log stand still before this record until the row is gone",
)

log_position = Table(
    "log_position",
    metadata,
    Column("log", _bytewise(200), primary_key=True, comment="the Kafka topic, or `database`"),
    Column("partition", Integer, primary_key=True),
    Column("next", BigInteger, nullable=False),
    comment="Where to go on reading; moved by compare-and-set in the transaction of the effects",
)

log_record = Table(
    "log_record",
    metadata,
    Column("position", _Serial, primary_key=True, autoincrement=True),
    Column("key", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("appended_at", Instant, nullable=False),
    comment="The log, where there is no Kafka",
    sqlite_autoincrement=True,
)

lifecycle = Table(
    "lifecycle",
    metadata,
    Column("key", _bytewise(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("document", Text, nullable=False, comment="as it was posted"),
    Column("media_type", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    comment="Every version of every definition. Immutable",
)

activation = Table(
    "activation",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False, comment="of the set of definitions it makes"),
    Column("key", _bytewise(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("since", Instant, comment="from when on it judges; null: from the beginning of time"),
    Column("activated_at", Instant, nullable=False),
    Column("customers", Integer, comment="how many had to be folded anew; null until that is counted"),
    Column("finished_at", Instant, comment="when all of them were"),
    comment="Which version takes effect from when on: append-only, and the job that brings customers up to it",
)

definition_set = Table(
    "definition_set",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="always 1"),
    Column("number", Integer, nullable=False, comment="grows with each activation"),
    comment="The number of the set of active definitions, which every transaction of the engine is begun under",
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", _bytewise(16), primary_key=True, comment="the eight characters of the key after le_"),
    Column("name", _bytewise(128), nullable=False, comment="for people: who has it, and for what"),
    Column(
        "source", _bytewise(128), nullable=False, comment="of what is posted with it; several keys may have the same"
    ),
    Column("hash", LargeBinary, nullable=False, comment="SHA-256 of the whole key"),
    Column("scopes", Text, nullable=False, comment="separated by spaces"),
    Column("rate_requests", Integer, comment="how many requests it may make in rate_seconds; null: the setting"),
    Column("rate_seconds", Integer),
    Column("replaces", _bytewise(16), comment="id of the key that it was rotated from"),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    Column("last_used_at", Instant, comment="to the minute; written behind the requests"),
    Index(None, "hash", unique=True),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("caller", _bytewise(16), primary_key=True, comment="api_key.id"),
    Column("route", _bytewise(256), primary_key=True, comment="method and path, its parts by their names"),
    Column("key", _bytewise(255), primary_key=True, comment="the Idempotency-Key"),
    Column("fingerprint", LargeBinary, nullable=False, comment="of the request"),
    Column("lease", BigInteger, nullable=False, comment="the token of whoever works on the first answer"),
    Column("leased_until", Instant, nullable=False, comment="when somebody else may take it over"),
    Column("created_at", Instant, nullable=False),
    Column("status", SmallInteger, comment="of the first answer; null while there is none"),
    Column("headers", LargeBinary, comment="of the first answer, as JSON"),
    Column("body", LargeBinary, comment="of the first answer; null where it held a secret, which is shown once"),
    Index(None, "created_at"),
    comment="The first answers to requests with an Idempotency-Key, for a day",
)
