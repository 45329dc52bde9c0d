"""The service's own command line, in a process that sends itself a signal, such as SIGKILL, at a chosen point.

    python -P killing.py SIGNAL POINT HIT ARGUMENT …

It does so when it comes to POINT for the HIT-th time:

    W2  the touchpoints of a batch are inserted, and their transaction is open
    W3  everything is written, and COMMIT is not sent
    W4  COMMIT is sent, and its answer is not read (PostgreSQL only)
    W5  COMMIT was answered
    W6  the group takes partitions away, and the reader has not heard of it

W3, W4 and W5 are those of a worker's batch, and of the timers' in which others are told of something.

POINT may be `never`. The service has no hooks for this: SQLAlchemy and the Kafka client are listened to. What the
service waits for takes less time here: a group gives up a member after 6 s (the least that a broker allows), not after
45 s, and PostgreSQL ends a transaction that stands still after 3 s, not after 30 s.
"""

from __future__ import annotations

import functools
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer
from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

from lifecycle_engine import cli, roles
from lifecycle_engine.log.kafka import KafkaReader

SESSION_SECONDS = 6.0
STALLED_MS = 3_000

_COMMIT = b"Q" + struct.pack("!i", 11) + b"COMMIT\0"
"""The message of PostgreSQL's protocol."""
_WRITTEN = "effects were written"

_TOUCHPOINTS, _CHANGES = "INSERT INTO touchpoint ", "INSERT INTO change "


class Strike:
    """The signal, and how often the process has still to come to its point before it is sent."""

    def __init__(self, number: signal.Signals, hit: int) -> None:
        self._number = number
        self._left = hit

    def point(self, at_last: Callable[[], object] = lambda: None) -> None:
        """The process is at its point: the last time, it does `at_last` and is struck."""
        self._left -= 1
        if self._left == 0:
            at_last()
            os.kill(os.getpid(), self._number)


def in_transaction(strike: Strike) -> None:
    @event.listens_for(Engine, "after_cursor_execute")
    def _(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(_TOUCHPOINTS):
            strike.point()


def before_commit(strike: Strike) -> None:
    def commit(connection: Any, proceed: Callable[[], None]) -> None:
        strike.point()
        proceed()

    _replace_commit(commit)


def within_commit(strike: Strike) -> None:
    def commit(connection: Any, proceed: Callable[[], None]) -> None:
        # Past the client, which is between two statements, so that it is on its way for certain.
        socket = connection.driver_connection._transport.get_extra_info("socket")
        strike.point(lambda: os.write(socket.fileno(), _COMMIT))
        proceed()

    _replace_commit(commit)


def after_commit(strike: Strike) -> None:
    def commit(connection: Any, proceed: Callable[[], None]) -> None:
        proceed()
        strike.point()

    _replace_commit(commit)


def at_revocation(strike: Strike) -> None:
    subscribe = AIOKafkaConsumer.subscribe

    def subscribe_listening(consumer: Any, topics: Any, *, listener: Any) -> None:
        revoked = listener.on_partitions_revoked

        async def on_partitions_revoked(partitions: Any) -> None:
            if partitions:
                strike.point()
            await revoked(partitions)

        listener.on_partitions_revoked = on_partitions_revoked
        subscribe(consumer, topics, listener=listener)

    AIOKafkaConsumer.subscribe = subscribe_listening


POINTS: dict[str, Callable[[Strike], None]] = {
    "W2": in_transaction,
    "W3": before_commit,
    "W4": within_commit,
    "W5": after_commit,
    "W6": at_revocation,
    "never": lambda strike: None,
}


def _replace_commit(commit: Callable[[Any, Callable[[], None]], None]) -> None:
    """Lets `commit` decide over the commits of transactions in which effects were written."""
    do_commit: Callable[[Any, Any], None] = DefaultDialect.do_commit

    @event.listens_for(Engine, "after_cursor_execute")
    def _(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith((_TOUCHPOINTS, _CHANGES)):
            connection.info[_WRITTEN] = True

    def do_commit_with_effects(dialect: Any, connection: Any) -> None:
        if connection.info.pop(_WRITTEN, False):
            commit(connection, lambda: do_commit(dialect, connection))
        else:
            do_commit(dialect, connection)

    @event.listens_for(Engine, "rollback")
    def _(connection: Any) -> None:
        connection.info.pop(_WRITTEN, False)

    DefaultDialect.do_commit = do_commit_with_effects  # type: ignore[method-assign]


def hurry() -> None:
    """Shortens what the service waits for where a process is gone or stands still."""
    vars(roles)["KafkaReader"] = functools.partial(KafkaReader, session_timeout=SESSION_SECONDS)

    @event.listens_for(Engine, "do_connect")
    def _(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        settings = options.get("server_settings", {})
        if "idle_in_transaction_session_timeout" in settings:
            settings["idle_in_transaction_session_timeout"] = str(STALLED_MS)


def main() -> int:
    number, point, hit, *arguments = sys.argv[1:]
    POINTS[point](Strike(signal.Signals(int(number)), int(hit)))
    hurry()
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
