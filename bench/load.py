"""One load for every target: touchpoints over keep-alive connections, then questions until the last ones show.

The k-th touchpoint of a customer is the k-th of a cycle of five. A customer's touchpoints go in order over one
connection, as a careful service sends them; `racing`, every connection takes the next ones, as careless posters do,
and about a third arrive behind a later one of the same customer.

All requests are built before the clock starts: on shared cores, what the load costs is taken from what is measured.
By hand: `python -m bench.load http://127.0.0.1:8000 --header 'Authorization: Bearer …' -n 40000 --per-request 100`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, cast

import msgspec
import uvloop

CUSTOMERS = 1_000
CONNECTIONS = 32
SAMPLE = 50
"""Customers that are asked for at the end."""
CYCLE: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("ad_click", {}),
    ("signup", {}),
    ("purchase", {"amount": 20.0}),
    ("review", {"rating": 5}),
    ("review", {"rating": 1}),
)
START = datetime(2026, 1, 1, tzinfo=UTC)
POLL_SECONDS = 0.02
PATIENCE_SECONDS = 60.0
"""Without any further touchpoint showing, the rest counts as lost."""


@dataclass(frozen=True)
class Load:
    """What is posted."""

    touchpoints: int
    per_request: int = 1
    racing: bool = False

    def __str__(self) -> str:
        return f"{self.per_request} a request, {'racing' if self.racing else 'in order'}"


@dataclass(frozen=True)
class Address:
    """Where a target listens, and what every request to it carries."""

    port: int
    host: str = "127.0.0.1"
    headers: Sequence[str] = ()

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Sequence[str] = ("Content-Type: application/json",)
    ) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}", *self.headers]
        if body:
            lines += [*headers, f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True)
class Figures:
    """What a load came to. Rates are touchpoints a second, p50 and p99 seconds of a POST.

    `accepted` counts the touchpoints that were acknowledged, `missing` has the last answer of each sampled customer
    whose last touchpoint never showed.
    """

    accepted: int
    accepted_rate: float
    queryable_rate: float
    p50: float
    p99: float
    statuses: Mapping[int, int]
    missing: Mapping[str, str]

    def failures(self, load: Load) -> list[str]:
        """What went wrong, in words."""
        found = []
        if others := {status: count for status, count in self.statuses.items() if not 200 <= status < 300}:
            found.append("answers with status " + ", ".join(f"{s} ({n} times)" for s, n in sorted(others.items())))
        if self.accepted != load.touchpoints:
            found.append(f"{self.accepted} of {load.touchpoints} touchpoints accepted")
        for customer, answer in list(self.missing.items())[:1]:
            found.append(f"{len(self.missing)} of {SAMPLE} customers never showed their last; {customer}: {answer}")
        return found


class Summary(msgspec.Struct):
    accepted: int


class Acknowledgement(msgspec.Struct):
    """The part of an answer that counts the accepted; one touchpoint's answer has none."""

    summary: Summary | None = None


class Customer(msgspec.Struct):
    last_touchpoint_at: datetime | None = None


_encode = msgspec.json.Encoder().encode
_acknowledgement = msgspec.json.Decoder(Acknowledgement).decode
_customer = msgspec.json.Decoder(Customer).decode


class Format(Protocol):
    """How touchpoints are put into requests, and how many of them an answer acknowledges."""

    def request(self, address: Address, touchpoints: Sequence[Mapping[str, Any]]) -> bytes: ...

    def accepted(self, count: int, answer: bytes) -> int:
        """Of the `count` that a request carried that was answered with a 2xx."""


class Native:
    """One as an object, several as an array."""

    def request(self, address: Address, touchpoints: Sequence[Mapping[str, Any]]) -> bytes:
        body = _encode(touchpoints if len(touchpoints) > 1 else touchpoints[0])
        return address.request("POST", "/v1/touchpoints", body)

    def accepted(self, count: int, answer: bytes) -> int:
        summary = _acknowledgement(answer).summary
        return summary.accepted if summary else 1


async def drive(
    address: Address,
    load: Load,
    posted: Callable[[int], object] = lambda count: None,
    format: Format | None = None,
) -> Figures:
    """Posts the load and waits until it shows; `posted` hears of each answered request how many it carried."""
    run = uuid.uuid4().hex[:12]
    format = format or Native()
    lanes = _lanes(address, load, run, format)
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    accepted = 0

    async def post(lane: Iterator[tuple[int, bytes]], connection: Connection) -> None:
        nonlocal accepted
        for count, request in lane:
            began = time.perf_counter()
            status, body = await connection.call(request)
            latencies.append(time.perf_counter() - began)
            statuses[status] += 1
            if 200 <= status < 300:
                accepted += format.accepted(count, body)
            posted(count)

    connections = [await Connection.open(address) for _ in lanes]
    try:
        began = time.perf_counter()
        await asyncio.gather(*map(post, lanes, connections))
        answered = time.perf_counter() - began
        missing = await _missing(address, load, run, connections[0])
        shown = time.perf_counter() - began
    finally:
        for connection in connections:
            connection.close()
    latencies.sort()
    return Figures(
        accepted=accepted,
        accepted_rate=load.touchpoints / answered,
        queryable_rate=load.touchpoints / shown,
        p50=latencies[len(latencies) // 2],
        p99=latencies[len(latencies) * 99 // 100],
        statuses=statuses,
        missing=missing,
    )


def touchpoint(run: str, number: int) -> dict[str, Any]:
    """The touchpoint of a load with this number, from 0; one for each customer, then the next for each."""
    type_, properties = CYCLE[number // CUSTOMERS % len(CYCLE)]
    return {
        "id": f"{run}-{number}",
        "customer_id": _customer_id(run, number % CUSTOMERS),
        "type": type_,
        "occurred_at": _occurred_at(number).isoformat().replace("+00:00", "Z"),
        "properties": {
            **properties,
            "channel": "email",
            "campaign": "spring-2026",
            "sku": f"sku-{number % 97}",
            "page": "/p/12345",
        },
    }


def _lanes(address: Address, load: Load, run: str, format: Format) -> list[Iterator[tuple[int, bytes]]]:
    """For each connection the requests that it sends, each with the number of its touchpoints."""

    def requests(numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        built = []
        for start in range(0, len(numbers), load.per_request):
            some = [touchpoint(run, number) for number in numbers[start : start + load.per_request]]
            built.append((len(some), format.request(address, some)))
        return iter(built)

    everything = range(load.touchpoints)
    if load.racing:
        return [requests(everything)] * CONNECTIONS
    return [
        requests([number for number in everything if number % CUSTOMERS % CONNECTIONS == lane])
        for lane in range(CONNECTIONS)
    ]


async def _missing(address: Address, load: Load, run: str, connection: Connection) -> dict[str, str]:
    """Asks for one customer after the other until each shows its last touchpoint; gives the answers of the rest."""
    waiting = list(range(0, min(CUSTOMERS, load.touchpoints), max(1, CUSTOMERS // SAMPLE)))
    patience = time.monotonic() + PATIENCE_SECONDS
    answer = ""
    while waiting and time.monotonic() < patience:
        customer = waiting[0]
        last = customer + (load.touchpoints - 1 - customer) // CUSTOMERS * CUSTOMERS
        path = f"/v1/customers/{_customer_id(run, customer)}"
        status, body = await connection.call(address.request("GET", path))
        at = _customer(body).last_touchpoint_at if status == 200 else None
        if at is not None and at >= _occurred_at(last):
            waiting.pop(0)
            patience = time.monotonic() + PATIENCE_SECONDS
        else:
            answer = f"{status} {body.decode(errors='replace')[:500]}"
            await asyncio.sleep(POLL_SECONDS)
    return {_customer_id(run, customer): answer for customer in waiting}


def _customer_id(run: str, customer: int) -> str:
    return f"c{run}-{customer}"


def _occurred_at(number: int) -> datetime:
    return START + timedelta(seconds=number)


@dataclass
class Connection(asyncio.Protocol):
    """A keep-alive connection with one request on its way at a time; no more of HTTP/1.1 than answers here need."""

    _transport: asyncio.WriteTransport | None = None
    _buffer: bytearray = field(default_factory=bytearray)
    _waiter: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def open(cls, address: Address) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(cls, address.host, address.port)
        return connection

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """The answer's status and body. Raises ConnectionError."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the service closed the connection")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError(f"the service closed the connection: {error or 'no answer'}"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._waiter is None or self._waiter.done():
            return
        head = bytes(self._buffer[:end]).lower()
        before, found, after = head.partition(b"\r\ncontent-length:")
        if not found:
            self._waiter.set_exception(ConnectionError("an answer without a Content-Length"))
            return
        whole = end + 4 + int(after.partition(b"\r\n")[0])
        if len(self._buffer) >= whole:
            body = bytes(self._buffer[end + 4 : whole])
            del self._buffer[:whole]
            self._waiter.set_result((int(before[9:12]), body))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Drive one service and say what it did.")
    parser.add_argument("base", help="such as http://127.0.0.1:8000")
    parser.add_argument("-n", type=int, default=20_000, help="touchpoints (%(default)s)")
    parser.add_argument("--per-request", type=int, default=1)
    parser.add_argument("--racing", action="store_true")
    parser.add_argument("--header", action="append", default=[], help="of every request; may be repeated")
    options = parser.parse_args()
    url = urllib.parse.urlsplit(options.base)
    address = Address(url.port or 80, url.hostname or "", options.header)
    load = Load(options.n, options.per_request, options.racing)
    figures = uvloop.run(drive(address, load))
    print(
        f"{load}: accepted {figures.accepted_rate:,.0f}/s, queryable {figures.queryable_rate:,.0f}/s, "
        f"p50 {figures.p50 * 1e3:.1f} ms, p99 {figures.p99 * 1e3:.1f} ms, statuses {dict(figures.statuses)}"
    )
    for failure in figures.failures(load):
        print(f"error: {failure}", file=sys.stderr)
    return 1 if figures.failures(load) else 0


if __name__ == "__main__":
    sys.exit(main())
