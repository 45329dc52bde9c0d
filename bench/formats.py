"""What each format of the way in costs: the same touchpoints in all of them, beside the day-one service."""

from __future__ import annotations

import gzip
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import uvloop

from bench.load import Address, Figures, Format, Load, Native, drive
from bench.processes import BenchError, Servers
from bench.progress import Progress
from bench.report import Section, milliseconds, rate, ratio
from bench.targets import Target, day_one, engine

_encode = msgspec.json.Encoder().encode
_EVENTS = {
    "ad_click": "Promotion Clicked",
    "signup": "Signed Up",
    "purchase": "Order Completed",
    "review": "Product Reviewed",
}


class Lines(Native):
    """Newline-delimited JSON."""

    encoding: Sequence[str] = ()

    def request(self, address: Address, touchpoints: Sequence[Mapping[str, Any]]) -> bytes:
        headers = ["Content-Type: application/x-ndjson", *self.encoding]
        return address.request("POST", "/v1/touchpoints", self.body(touchpoints), headers)

    def body(self, touchpoints: Sequence[Mapping[str, Any]]) -> bytes:
        return b"".join(_encode(one) + b"\n" for one in touchpoints)


class EncodedLines(Lines):
    """The same, gzipped."""

    encoding = ("Content-Encoding: gzip",)

    def body(self, touchpoints: Sequence[Mapping[str, Any]]) -> bytes:
        return gzip.compress(super().body(touchpoints), 6)


class Structured(Native):
    """CloudEvents as JSON: one structured, several batched."""

    def request(self, address: Address, touchpoints: Sequence[Mapping[str, Any]]) -> bytes:
        events = [{**attributes(one), "data": one["properties"]} for one in touchpoints]
        if len(events) == 1:
            return address.request(
                "POST", "/v1/events", _encode(events[0]), ["Content-Type: application/cloudevents+json"]
            )
        return address.request(
            "POST", "/v1/events", _encode(events), ["Content-Type: application/cloudevents-batch+json"]
        )


class Binary(Native):
    """A CloudEvent in its headers."""

    def request(self, address: Address, touchpoints: Sequence[Mapping[str, Any]]) -> bytes:
        (one,) = touchpoints
        headers = [f"ce-{name}: {value}" for name, value in attributes(one).items()]
        return address.request(
            "POST", "/v1/events", _encode(one["properties"]), ["Content-Type: application/json", *headers]
        )


class Tracking:
    """Segment's tracking API: one as a track, several as a batch, each to be corrected by `sentAt`."""

    def request(self, address: Address, touchpoints: Sequence[Mapping[str, Any]]) -> bytes:
        now = datetime.now(UTC).isoformat()
        calls = [_call(one) for one in touchpoints]
        if len(calls) == 1:
            return address.request("POST", "/v1/track", _encode({**calls[0], "sentAt": now}))
        return address.request("POST", "/v1/batch", _encode({"batch": calls, "sentAt": now}))

    def accepted(self, count: int, answer: bytes) -> int:
        return count - len(msgspec.json.decode(answer).get("errors", ()))


def attributes(touchpoint: Mapping[str, Any]) -> dict[str, str]:
    """Of a CloudEvent that says the same."""
    return {
        "specversion": "1.0",
        "id": touchpoint["id"],
        "source": "/bench",
        "type": _EVENTS[touchpoint["type"]],
        "time": touchpoint["occurred_at"],
        "subject": touchpoint["customer_id"],
    }


def _call(touchpoint: Mapping[str, Any]) -> dict[str, Any]:
    properties = dict(touchpoint["properties"])
    if "amount" in properties:
        properties["revenue"] = properties.pop("amount")
    return {
        "type": "track",
        "messageId": touchpoint["id"],
        "userId": touchpoint["customer_id"],
        "event": _EVENTS[touchpoint["type"]],
        "timestamp": touchpoint["occurred_at"],
        "properties": properties,
        "context": {"library": {"name": "bench", "version": "1"}},
        "integrations": {},
    }


class Kind(NamedTuple):
    """A format, and how many touchpoints go into a request."""

    name: str
    format: Format
    per_request: int


KINDS = (
    Kind("touchpoint", Native(), 1),
    Kind("a line", Lines(), 1),
    Kind("CloudEvent, binary", Binary(), 1),
    Kind("CloudEvent, structured", Structured(), 1),
    Kind("Segment's track", Tracking(), 1),
    Kind("array", Native(), 100),
    Kind("lines", Lines(), 100),
    Kind("lines, gzipped", EncodedLines(), 100),
    Kind("CloudEvents, batched", Structured(), 100),
    Kind("Segment's batch", Tracking(), 100),
)
WANTED = {"lines": 1.0, "Segment's batch": 0.5}
"""Of the array's rate."""


class Formats:
    """Each round puts every format on one running engine, in another order, and the day-one service beside it."""

    def __init__(self, servers: Servers, template: str, *, rounds: int, quick: bool) -> None:
        self._servers = servers
        self._template = template
        self._rounds = rounds
        self._touchpoints = {1: 3_000, 100: 20_000} if quick else {1: 10_000, 100: 40_000}
        self._day_one = Load(1_000 if quick else 3_000)
        self._figures: dict[str, list[Figures]] = defaultdict(list)

    @property
    def steps(self) -> int:
        return self._rounds * (len(KINDS) + 1)

    def run(self, progress: Progress) -> list[Section]:
        """Raises BenchError if a format loses a touchpoint."""
        for number in range(self._rounds):
            with day_one(self._servers, self._template) as target:
                self._drive("day-one service", Native(), target, Load(200), progress)
                self._measure("day-one service", Native(), target, self._day_one, progress)
            with engine(self._servers, self._template) as target:
                for each in (100, 1):
                    self._drive("warm-up", Native(), target, Load(5_000, each), progress)
                first = number % len(KINDS)
                for kind in KINDS[first:] + KINDS[:first]:
                    load = Load(self._touchpoints[kind.per_request], kind.per_request)
                    self._measure(kind.name, kind.format, target, load, progress)
        header = [
            *("format", "a request", "accepted/s", "queryable/s", "p50 ms"),
            *("accepted, of the plain one's", "queryable, of the plain one's", "wanted", "times day-one"),
        ]
        return [Section("The formats of the way in", header, [self._row(kind) for kind in KINDS])]

    def _measure(self, name: str, format: Format, target: Target, load: Load, progress: Progress) -> None:
        self._servers.settle()
        figures = self._drive(name, format, target, load, progress)
        self._figures[name].append(figures)
        progress.done(f"{name}: {figures.queryable_rate:,.0f}/s to queryable")

    def _drive(self, name: str, format: Format, target: Target, load: Load, progress: Progress) -> Figures:
        progress.doing(f"{name}: {load}", load.touchpoints)
        before = target.stored()
        try:
            figures = uvloop.run(drive(target.address, load, progress.advance, format))
        except ConnectionError as error:
            target.check()
            raise BenchError(f"{name}, {load}: {error}") from error
        failures = figures.failures(load)
        if (stored := target.stored() - before) != load.touchpoints:
            failures.append(f"{stored} of {load.touchpoints} touchpoints are in the database")
        if failures:
            said = [process.said() for process in target.processes.values()]
            raise BenchError("\n".join([f"{name}, {load}: {'; '.join(failures)}", *said]))
        return figures

    def _row(self, kind: Kind) -> list[str]:
        plain = self._figures["touchpoint" if kind.per_request == 1 else "array"]
        figures = self._figures[kind.name]
        queryable = [one.queryable_rate for one in figures]
        return [
            kind.name,
            str(kind.per_request),
            rate([one.accepted_rate for one in figures]),
            rate(queryable),
            milliseconds([statistics.median([one.p50 for one in figures])]),
            ratio([one.accepted_rate for one in figures], [one.accepted_rate for one in plain]),
            ratio(queryable, [one.queryable_rate for one in plain]),
            f"{WANTED[kind.name]:.1f}" if kind.name in WANTED else "",
            ratio(queryable, [one.queryable_rate for one in self._figures["day-one service"]]),
        ]
