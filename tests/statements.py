"""Hears every statement that is put to a database, also those that go past SQLAlchemy and its events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store import rows


def listen(hear: Callable[[dict[Any, Any], str], object]) -> Callable[[], None]:
    """Tells `hear` each statement after it was executed, with the `info` of its connection; gives what ends that.

    What it raises is raised to whoever put the statement. COPY is not told.
    """
    ask = rows.ask

    def executed(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        hear(connection.info, statement)

    async def ask_and_tell(connection: AsyncConnection, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        goes_past = rows.driver_of(connection) is not None
        returned = await ask(connection, sql, parameters)
        if goes_past and connection.sync_connection is not None:
            hear(connection.sync_connection.info, sql)
        return returned

    def end() -> None:
        event.remove(Engine, "after_cursor_execute", executed)
        vars(rows)["ask"] = ask

    event.listen(Engine, "after_cursor_execute", executed)
    vars(rows)["ask"] = ask_and_tell
    return end
