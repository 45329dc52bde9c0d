"""How endpoints do. The row's lock is the right to claim an endpoint's deliveries and to write their results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.endpoints import EndpointRow
from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.tables import webhook_delivery, webhook_endpoint, webhook_health


class Tally(NamedTuple):
    """Attempts that ended within some span of time from `since` (microseconds since the epoch) on."""

    since: int
    attempts: int
    failed: int


class Health(NamedTuple):
    """What is known of an endpoint; times are in microseconds since the epoch.

    Before `parked_until` no attempt is made; after it one, as a probe, of which `probes` have failed. `failing_since`
    is the first failed attempt after the last that succeeded, `first_exhausted_at` the first message given up after
    that. `announced`: others know that it fails. `throttled_until` is when what has been claimed so far will have been
    sent, at `throttle_rate`.
    """

    endpoint: str
    parked_until: int | None = None
    probes: int = 0
    outcomes: tuple[Tally, ...] = ()
    failing_since: int | None = None
    last_success_at: int | None = None
    first_exhausted_at: int | None = None
    announced: bool = False
    throttled_until: int | None = None


class Claimable(NamedTuple):
    """An endpoint that something is due for, and its health, the row of which is locked."""

    endpoint: EndpointRow
    health: Health


_HEALTH = [webhook_health.c[name] for name in Health._fields]
_ENDPOINT = [webhook_endpoint.c[name] for name in EndpointRow._fields]
_LOCK = Statement(
    f"SELECT {', '.join(f'locked.{name}' for name in Health._fields)} "
    "FROM {given} JOIN webhook_health AS locked ON locked.endpoint = given.endpoint ORDER BY locked.endpoint {lock}",
    webhook_health,
    ["endpoint"],
)
_SET = Statement(
    f"UPDATE webhook_health SET {', '.join(f'{name} = given.{name}' for name in Health._fields[1:])} "
    "FROM {given} WHERE webhook_health.endpoint = given.endpoint",
    webhook_health,
    Health._fields,
)


async def find_health(connection: AsyncConnection, endpoint: str) -> Health:
    """How an endpoint does; of one that was removed meanwhile nothing is known."""
    row = (await connection.execute(select(*_HEALTH).where(webhook_health.c.endpoint == endpoint))).first()
    return Health(endpoint) if row is None else _read(row)


async def lock_health(connection: AsyncConnection, endpoints: Iterable[str]) -> dict[str, Health]:
    """Locks the rows of these endpoints in one order, waiting where it must; those that were removed are missing."""
    rows = await _LOCK(connection, [(endpoint,) for endpoint in sorted(set(endpoints))])
    return {row[0]: _read(row) for row in rows}


async def lock_claimable(connection: AsyncConnection, now: int) -> list[Claimable]:
    """Locks the enabled endpoints that something is due for and that may be tried now, but for what others hold."""
    is_due = (
        select(webhook_delivery.c.id)
        .where(
            webhook_delivery.c.endpoint == webhook_health.c.endpoint,
            webhook_delivery.c.status == "pending",
            webhook_delivery.c.due_at <= now,
            (webhook_delivery.c.leased_until.is_(None)) | (webhook_delivery.c.leased_until <= now),
        )
        .exists()
    )
    query = (
        select(*_ENDPOINT, *_HEALTH)
        .join_from(webhook_health, webhook_endpoint, webhook_endpoint.c.id == webhook_health.c.endpoint)
        .where(
            webhook_endpoint.c.disabled_at.is_(None),
            (webhook_health.c.parked_until.is_(None)) | (webhook_health.c.parked_until <= now),
            is_due,
        )
        .with_for_update(of=webhook_health, skip_locked=True)
    )
    width = len(_ENDPOINT)
    return [Claimable(EndpointRow(*row[:width]), _read(row[width:])) for row in await connection.execute(query)]


async def parked_endpoints(connection: AsyncConnection) -> list[str]:
    """The endpoints that are tried with probes only."""
    query = select(webhook_health.c.endpoint).where(webhook_health.c.parked_until.is_not(None))
    return [endpoint for (endpoint,) in await connection.execute(query.order_by(webhook_health.c.endpoint))]


async def set_health(connection: AsyncConnection, healths: Sequence[Health]) -> None:
    """Writes rows that this transaction has locked."""
    rows = [(*health[:3], _written(health.outcomes), *health[4:]) for health in healths]
    await _SET(connection, rows)


async def reset_health(connection: AsyncConnection, endpoint: str) -> None:
    """Forgets what was known of an endpoint, as it is enabled again."""
    fresh = {**Health(endpoint)._asdict(), "outcomes": ""}
    fresh.pop("throttled_until")
    await connection.execute(update(webhook_health).where(webhook_health.c.endpoint == endpoint).values(fresh))


def _read(row: Sequence[object]) -> Health:
    health = Health(*row)  # type: ignore[arg-type]
    return health._replace(outcomes=tuple(_tally(part) for part in str(row[3]).split()))


def _tally(part: str) -> Tally:
    since, attempts, failed = part.split("/")
    return Tally(int(since), int(attempts), int(failed))


def _written(outcomes: Iterable[Tally]) -> str:
    return " ".join(f"{since}/{attempts}/{failed}" for since, attempts, failed in outcomes)
