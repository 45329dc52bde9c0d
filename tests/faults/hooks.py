"""Receivers of webhooks under faults: what each of them wants, and what must and must not have come to it.

`python -m tests.faults.hooks DESCRIPTION` is the program that receives. No test kills it, and its journal is all that
the verifier believes. It answers as each receiver's kind says, and writes down what came before it answers.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from standardwebhooks import Webhook

from tests.receiver import Receiver, Reply, Request

OLD_SECONDS = 60
"""A signature is made for each attempt; none is older than this when it arrives."""


class Kind(StrEnum):
    """How a receiver answers."""

    HEALTHY = "healthy"
    SLOW = "slow"
    HALF = "half"
    """Fails half of the time."""
    OVERLOADED = "overloaded"
    """Always 429."""
    GONE = "gone"
    """Always 410."""
    DEAD = "dead"
    """Nobody listens there."""

    @property
    def gets_everything(self) -> bool:
        return self in (Kind.HEALTHY, Kind.SLOW, Kind.HALF)


@dataclass(frozen=True)
class Hook:
    """An endpoint as the test has made it; `wants` has the members of a filter, each a list, without traits."""

    id: str
    path: str
    kind: Kind
    secret: str
    wants: Mapping[str, Sequence[str]]
    ordered: bool = False

    def takes(self, type_: str, data: Mapping[str, Any]) -> bool:
        """Whether it wants an event; written apart from the service's own filters."""
        types = self.wants.get("event_types", ["stage.*", "history.*", "customer.*"])
        if not any(type_ == one or (one.endswith(".*") and type_.startswith(one[:-1])) for one in types):
            return False
        members = [name for name in self.wants if name != "event_types"]
        return all(data.get(name) in self.wants[name] for name in members)


@dataclass(frozen=True)
class Hooks:
    """All endpoints of a test, where their receivers listen, and the journal of these."""

    port: int
    journal: str
    hooks: tuple[Hook, ...]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Hooks:
        read = json.loads(path.read_text(encoding="utf-8"))
        hooks = tuple(Hook(**{**hook, "kind": Kind(hook["kind"])}) for hook in read["hooks"])
        return Hooks(read["port"], read["journal"], hooks)


class Arrival(NamedTuple):
    """One request, the status that it was answered with, and when (seconds since the epoch)."""

    path: str
    id: str
    timestamp: str
    signature: str
    body: str
    status: int
    at: float


class Told(NamedTuple):
    """A change as its row has it; `muted` is what the test has made it."""

    type: str
    lane: int
    lifecycle: str | None
    subject: str | None
    sequence: int | None
    muted: bool
    data: Mapping[str, Any]


@dataclass
class Findings:
    """What is wrong, in words."""

    missing: list[str]
    unexplained: list[str]
    duplicate: list[str]
    gaps: list[str]
    repeated: int = 0
    """Requests beyond the first that was taken: allowed, and a measure of how hard the run was."""
    failed: int = 0
    """Requests that were not taken."""


def compare(hooks: Hooks, arrivals: Iterable[Arrival], changes: Sequence[Told]) -> Findings:
    """Compares what came with the changes, which are in the order of the feed."""
    findings = Findings([], [], [], [])
    by_path: dict[str, list[Arrival]] = defaultdict(list)
    identities: dict[str, str] = {}
    ids: dict[str, str] = {}
    for arrival in arrivals:
        by_path[arrival.path].append(arrival)
        event = _event(arrival.body)
        if identities.setdefault(arrival.id, arrival.body) != arrival.body:
            findings.duplicate.append(f"{arrival.id} came with two bodies")
        if ids.setdefault(event, arrival.id) != arrival.id:
            findings.duplicate.append(f"{event[:200]} came as {ids[event]} and as {arrival.id}")
    for hook in hooks.hooks:
        _compare(findings, hook, by_path.pop(hook.path, []), changes)
    findings.unexplained += [f"something came to {path}, where nobody is" for path in by_path]
    return findings


def _compare(findings: Findings, hook: Hook, arrivals: Sequence[Arrival], changes: Sequence[Told]) -> None:
    wanted = {_key(one.type, one.data): one for one in changes if not one.muted and hook.takes(one.type, one.data)}
    verifier = Webhook(hook.secret)
    taken: dict[str, Told] = {}
    for arrival in arrivals:
        event = _event(arrival.body)
        if event not in wanted:
            findings.unexplained.append(f"{hook.path} got what it did not want: {event[:300]}")
            continue
        if not _is_signed(verifier, arrival):
            findings.unexplained.append(f"{hook.path} got {arrival.id} with a wrong signature")
        if not 200 <= arrival.status < 300:
            findings.failed += 1
        elif event in taken:
            findings.repeated += 1
        else:
            taken[event] = wanted[event]
    if not hook.kind.gets_everything:
        return
    findings.missing += [f"{hook.path} did not get {event[:300]}" for event in wanted if event not in taken]
    if hook.ordered:
        _compare_order(findings, hook, list(taken.values()), changes)
    if not hook.wants:
        _compare_numbers(findings, hook, taken.values())


def _is_signed(verifier: Webhook, arrival: Arrival) -> bool:
    """Whether the request was signed when it was sent, and not before."""
    signed = datetime.fromtimestamp(int(arrival.timestamp), UTC)
    right = verifier.sign(arrival.id, signed, arrival.body)
    return right in arrival.signature.split(" ") and abs(signed.timestamp() - arrival.at) < OLD_SECONDS


def _compare_order(findings: Findings, hook: Hook, taken: Sequence[Told], changes: Sequence[Told]) -> None:
    places = {id(change): place for place, change in enumerate(changes)}
    last: dict[int, int] = {}
    for change in taken:
        place = places[id(change)]
        if place < last.get(change.lane, -1):
            findings.gaps.append(f"{hook.path} got {change.type} {change.sequence} of lane {change.lane} too late")
        last[change.lane] = place


def _compare_numbers(findings: Findings, hook: Hook, taken: Iterable[Told]) -> None:
    numbers: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for change in taken:
        if change.type == "stage.changed" and change.sequence is not None:
            numbers[change.lane, change.lifecycle, change.subject].append(change.sequence)
    for journey, found in numbers.items():
        if sorted(found) != list(range(1, len(found) + 1)):
            findings.gaps.append(f"{hook.path} has these numbers of {journey}: {sorted(found)}")


@lru_cache(1 << 16)
def _event(body: str) -> str:
    event = json.loads(body)
    return _key(event["type"], event["data"])


def _key(type_: str, data: Mapping[str, Any]) -> str:
    return f"{type_} {json.dumps(data, sort_keys=True)}"


def read_arrivals(path: Path) -> list[Arrival]:
    with path.open(encoding="utf-8") as file:
        return [Arrival(*json.loads(line)) for line in file]


# -- the program that receives ----


class _Receivers:
    def __init__(self, hooks: Hooks, journal: TextIO) -> None:
        self._kinds = {hook.path: hook.kind for hook in hooks.hooks}
        self._journal = journal
        self._chance = random.Random(7)

    def answer(self, request: Request) -> Reply:
        reply = self._reply(self._kinds.get(request.path, Kind.HEALTHY))
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        line = [
            request.path,
            *(request.headers.get(name, "") for name in names),
            request.body.decode(),
            reply.status,
            time.time(),
        ]
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()
        return reply

    def _reply(self, kind: Kind) -> Reply:
        if kind is Kind.SLOW:
            return Reply(204, seconds=self._chance.uniform(0.05, 0.3))
        if kind is Kind.HALF and self._chance.random() < 0.5:
            return Reply(self._chance.choice([500, 502, 301]))
        if kind is Kind.OVERLOADED:
            return Reply(429, headers=("retry-after: 1",))
        return Reply(410 if kind is Kind.GONE else 204)


async def _receive(hooks: Hooks, journal: TextIO) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Receiver(_Receivers(hooks, journal).answer, hooks.port):
        await stop.wait()


def main() -> None:
    hooks = Hooks.read(Path(sys.argv[1]))
    with Path(hooks.journal).open("x", encoding="utf-8") as journal:
        asyncio.run(_receive(hooks, journal))


if __name__ == "__main__":
    main()
