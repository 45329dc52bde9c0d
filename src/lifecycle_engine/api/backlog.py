"""How far the log is applied, for answers that must not deny what is still on its way."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.api.services import Services
from lifecycle_engine.store.positions import read_positions


async def is_applied(services: Services, connection: AsyncConnection, bounds: Mapping[int, tuple[int, int]]) -> bool:
    """Whether everything is applied that the log held when it gave its `bounds`.

    What is looked up after this, and is not there, was never posted.
    """
    applied = await read_positions(connection, services.log, list(bounds))
    return all(applied.get(partition, first) >= end for partition, (first, end) in bounds.items())
