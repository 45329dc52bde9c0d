"""The endpoints that may be told, each with its filter ready for use."""

from __future__ import annotations

import logging
from typing import NamedTuple

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.outbox.filters import Filter, FilterError, parse_filter
from lifecycle_engine.store.endpoints import EndpointRow, enabled_endpoints

logger = logging.getLogger(__name__)


class Subscription(NamedTuple):
    """An endpoint and what it wants."""

    endpoint: EndpointRow
    filter: Filter


class Subscriptions:
    """Reads the enabled endpoints, and parses a filter again only when it has changed."""

    def __init__(self) -> None:
        self._parsed: dict[str, tuple[str | None, Filter]] = {}

    async def read(self, connection: AsyncConnection) -> list[Subscription]:
        """The endpoints that are enabled now."""
        found, parsed = [], {}
        for endpoint in await enabled_endpoints(connection):
            known = self._parsed.get(endpoint.id)
            try:
                filter_ = known[1] if known and known[0] == endpoint.filter else _parse(endpoint.filter)
            except (FilterError, msgspec.DecodeError) as error:
                # Filters are checked before they are stored: another version of the program knew what this one doesn't.
                logger.error("the endpoint %s gets nothing, since its filter cannot be read: %s", endpoint.id, error)
                continue
            parsed[endpoint.id] = (endpoint.filter, filter_)
            found.append(Subscription(endpoint, filter_))
        self._parsed = parsed
        return found


def _parse(document: str | None) -> Filter:
    return parse_filter({} if document is None else msgspec.json.decode(document))
