"""The service's own command line, in a process that sends itself a signal, such as SIGKILL, at a chosen point.

    python -m tests.faults.killing SIGNAL POINT HIT ARGUMENT …

It does so when it comes to POINT for the HIT-th time:

    W2  the touchpoints of a batch are inserted, and their transaction is open
    W3  everything is written, and COMMIT is not sent
    W4  COMMIT is sent, and its answer is not read (PostgreSQL only)
    W5  COMMIT was answered
    W6  the group takes partitions away, and the reader has not heard of it

W3, W4 and W5 are those of a worker's batch, and of the timers' in which a customer is folded on.

    D1  the COMMIT was answered with which a dispatcher has claimed deliveries, and none of them is sent
    D2  a request is sent, and not answered
    D3  a request was answered with 2xx, and that is not written down
    D4  the COMMIT is sent that writes down what came of deliveries, and its answer is not read (PostgreSQL only)

POINT may be `never`. The service has no hooks for this: its statements and the Kafka client are listened to. What the
service waits for takes less time here: a group gives up a member after 6 s (the least that a broker allows), not after
45 s, and PostgreSQL ends a transaction that stands still after 3 s, not after 30 s. Webhooks that failed are sent again
after tenths of seconds, not after minutes and hours, and what a dead dispatcher had claimed after 6 s, not after 23 s.
"""

from __future__ import annotations

import asyncio
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

from lifecycle_engine import cli
from lifecycle_engine.log.kafka import KafkaReader
from lifecycle_engine.outbox.breaker import Limits
from lifecycle_engine.outbox.policy import Policy
from lifecycle_engine.outbox.retry import SECOND, Schedule
from lifecycle_engine.roles import parts, process
from lifecycle_engine.webhook.dispatch import Dispatcher
from lifecycle_engine.webhook.exchange import Exchange
from lifecycle_engine.webhook.sender import Sender
from tests.statements import listen

SESSION_SECONDS = 6.0
STALLED_MS = 3_000
SENT_SECONDS = 0.02

_COMMIT = b"Q" + struct.pack("!i", 11) + b"COMMIT\0"
"""The message of PostgreSQL's protocol."""
_WRITTEN = "effects were written"

HOOKS = Policy(
    schedule=Schedule(delays=(0, *[SECOND // 10] * 5, *[SECOND // 2] * 14), least=SECOND // 5, most=SECOND),
    limits=Limits(probe=SECOND // 2, longest=SECOND),
    deadline=3 * SECOND,
    margin=3 * SECOND,
)
"""Enough attempts that who fails half of the time is certain to take one."""

_EFFECTS = ("INSERT INTO touchpoint ", "UPDATE customer SET definitions = ")
_CLAIM, _RESULT = "UPDATE webhook_delivery SET lease=", "UPDATE webhook_delivery SET status = given."


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
    def hear(info: dict[Any, Any], statement: str) -> None:
        if statement.startswith(_EFFECTS[0]):
            strike.point()

    listen(hear)


def before_commit(strike: Strike) -> None:
    def commit(connection: Any, proceed: Callable[[], None]) -> None:
        strike.point()
        proceed()

    _replace_commit(commit)


def within_commit(strike: Strike, written: tuple[str, ...] = _EFFECTS) -> None:
    def commit(connection: Any, proceed: Callable[[], None]) -> None:
        # Past the client, which is between two statements, so that it is on its way for certain.
        socket = connection.driver_connection._transport.get_extra_info("socket")
        strike.point(lambda: os.write(socket.fileno(), _COMMIT))
        proceed()

    _replace_commit(commit, written)


def after_commit(strike: Strike, written: tuple[str, ...] = _EFFECTS) -> None:
    def commit(connection: Any, proceed: Callable[[], None]) -> None:
        proceed()
        strike.point()

    _replace_commit(commit, written)


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


def after_request(strike: Strike) -> None:
    send = Sender.send

    async def send_and_strike(sender: Sender, *arguments: Any, **options: Any) -> Exchange:
        exchange = asyncio.create_task(send(sender, *arguments, **options))
        # On loopback it is sent by then, and answered only by who takes no time for it.
        if not (await asyncio.wait({exchange}, timeout=SENT_SECONDS))[0]:
            strike.point()
        return await exchange

    Sender.send = send_and_strike  # type: ignore[assignment, method-assign]


def after_answer(strike: Strike) -> None:
    send = Sender.send

    async def send_and_strike(sender: Sender, *arguments: Any, **options: Any) -> Exchange:
        exchange = await send(sender, *arguments, **options)
        if exchange.status is not None and 200 <= exchange.status < 300:
            strike.point()
        return exchange

    Sender.send = send_and_strike  # type: ignore[assignment, method-assign]


POINTS: dict[str, Callable[[Strike], None]] = {
    "W2": in_transaction,
    "W3": before_commit,
    "W4": within_commit,
    "W5": after_commit,
    "W6": at_revocation,
    "D1": functools.partial(after_commit, written=(_CLAIM,)),
    "D2": after_request,
    "D3": after_answer,
    "D4": functools.partial(within_commit, written=(_RESULT,)),
    "never": lambda strike: None,
}


def _replace_commit(commit: Callable[[Any, Callable[[], None]], None], statements: tuple[str, ...] = _EFFECTS) -> None:
    """Lets `commit` decide over the commits of transactions with a statement that begins like one of these."""
    do_commit: Callable[[Any, Any], None] = DefaultDialect.do_commit

    def hear(info: dict[Any, Any], statement: str) -> None:
        if statement.startswith(statements):
            info[_WRITTEN] = True

    listen(hear)

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
    vars(parts)["KafkaReader"] = functools.partial(KafkaReader, session_timeout=SESSION_SECONDS)
    vars(process)["Dispatcher"] = functools.partial(Dispatcher, policy=HOOKS)

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
