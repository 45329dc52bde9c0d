"""The role `api`, and what a process without it tells of its health: all that serves HTTP."""

from __future__ import annotations

import ipaddress
import logging
import resource
import socket
import sys
import time
from collections.abc import Iterable, Mapping

from lifecycle_engine.api.app import create_app, create_health_app
from lifecycle_engine.api.door.load import Load
from lifecycle_engine.api.door.protocol import Limits
from lifecycle_engine.api.door.server import HttpServer, bind
from lifecycle_engine.api.health import Health
from lifecycle_engine.api.keys.authentication import Keys
from lifecycle_engine.api.keys.rates import parse_rate
from lifecycle_engine.api.metrics import Metrics
from lifecycle_engine.api.services import Services
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.ingest.formats.event_types import EventTypes, EventTypesError, load_event_types
from lifecycle_engine.ingest.intake import Intake
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.outbox.retention import DAY
from lifecycle_engine.roles import StartError
from lifecycle_engine.roles.parts import Parts, log_name
from lifecycle_engine.runners import Check, Gather
from lifecycle_engine.settings import Settings, host_and_port

_OTHER_DESCRIPTORS = 200
"""Files and connections of a process beside those of its clients."""

logger = logging.getLogger("lifecycle_engine")


async def api(parts: Parts, checks: Mapping[str, Check], gathers: Iterable[Gather]) -> HttpServer:
    """The role `api`; `checks` and `gathers` are those of the other roles of the process. Raises StartError."""
    settings = parts.settings
    appender = parts.appender()
    keys = Keys(
        parts.database,
        settings.api_key.get_secret_value() if settings.api_key else None,
        parse_rate(settings.rate_limit),
    )
    bound = _bound("LIFECYCLE_LISTEN", settings.listen)
    first_key = await _first_key(settings, keys)
    services = Services(
        appender=appender,
        intake=Intake(appender, _clock, settings.future_skew_seconds * 1_000_000),
        keys=keys,
        database=parts.database,
        definitions=Definitions(parts.database, Cel()),
        health=Health({"log": appender.ready, "keys": keys.ready, **checks}),
        log=log_name(settings),
        clock=_clock,
        event_types=_event_types(settings),
        vault=parts.vault(),
        sender=parts.sender(),
        webhook_retention=settings.webhook_retention_days * DAY,
        load=Load(settings.max_in_flight, settings.max_body_memory_mib * 1024**2),
    )
    _allow_descriptors(settings.max_connections + _OTHER_DESCRIPTORS)
    return HttpServer(
        create_app(services, Metrics(gathers)),
        services.health,
        bound,
        lambda address: _announce(address, first_key),
        Limits(connections=settings.max_connections, keep_alive_seconds=settings.keep_alive_seconds),
    )


def health_page(address: str, checks: Mapping[str, Check], gathers: Iterable[Gather]) -> HttpServer:
    """What a process without the role `api` tells of itself. Raises StartError."""
    health = Health(checks)
    bound = _bound("LIFECYCLE_HEALTH_LISTEN", address)
    return HttpServer(create_health_app(health, Metrics(gathers)), health, bound, lambda _: None)


async def _first_key(settings: Settings, keys: Keys) -> str | None:
    """Without any key, a server that listens on loopback only makes one; any other refuses to start."""
    if settings.api_key is not None or await keys.exist():
        return None
    if not _is_loopback(host_and_port(settings.listen)[0]):
        raise StartError(
            f"LIFECYCLE_API_KEY: there is no key yet, and {settings.listen} can be reached from elsewhere; "
            "set a first key (16 to 256 characters)"
        )
    return await keys.make_first()


def _event_types(settings: Settings) -> EventTypes:
    try:
        return load_event_types(settings.event_types)
    except EventTypesError as error:
        raise StartError(f"LIFECYCLE_EVENT_TYPES: {error}") from None


def _bound(setting: str, address: str) -> socket.socket:
    try:
        return bind(*host_and_port(address))
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"{setting}: {address} cannot be listened on: {reason}") from None


def _allow_descriptors(wanted: int) -> None:
    """Lets this process have so many files and connections open, as far as it may raise that itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft != resource.RLIM_INFINITY and soft < wanted:
        logger.warning(
            "LIFECYCLE_MAX_CONNECTIONS needs %d open files, and %d are allowed; raise ulimit -n", wanted, soft
        )


def _announce(address: str, first_key: str | None) -> None:
    lines = [f"Lifecycle Engine listens on {address}", f"Documentation: {address}/docs"]
    if first_key:
        lines.append(f"First API key (shown once): {first_key}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _clock() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
