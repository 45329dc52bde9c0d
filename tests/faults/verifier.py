"""Compares what a driver journalled with what the service has: a program of its own, sharing no code with the service.

Once every position has reached the end of its log, all that was sent is folded again by the plain oracle of
tests/oracle.py, and compared with what the service answers over HTTP and with what stands in its tables and its log:

    lost          accepted, and not in the log or not applied
    phantom       in the log or applied, and never sent, refused, or sent with another content
    duplicate     an effect that is there twice: a line of the history, a number of a sequence, a record of the log
    sequence_gap  a sequence that is not 1, 2, 3 …, or does not lead from one stage to the next
    diverged      a journey whose history, measures, refusals or told changes are not what the fold says
    miscounted    a receipt that counts other duplicates than there were

Where the journal names receivers of webhooks, their journal is compared with what was to be told:

    missing_hook      a change that did not come to a receiver that wants it and takes what it gets
    unexplained_hook  what came to a receiver that does not want it, was muted, never happened, or is signed wrongly
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer

from tests import oracle
from tests.faults.driver import SOURCE
from tests.faults.hooks import Hooks, Told, compare, read_arrivals
from tests.faults.journal import HTTP, OK, REFUSED, TOPIC, UNKNOWN, Record, Sending, Target, read_journal
from tests.faults.stream import Touchpoint, is_acceptable, is_muted

QUIET_SECONDS = 60.0
"""From the end of the driver until everything must be applied."""
SETTLED_SECONDS = 0.3
SHOWN = 5
SAMPLED = 40
"""One receipt of so many is asked for over HTTP; the tables are looked at as a whole."""


class VerifierError(Exception):
    """The comparison could not be made."""


class Who(NamedTuple):
    """An identity: its kind and its value."""

    kind: str
    value: str


class Journey(NamedTuple):
    """One journey of a customer."""

    who: Who
    lifecycle: str
    subject: str | None


class Stay(NamedTuple):
    """A stay as the fold says it, whoever tells it; times in microseconds since the epoch."""

    stage: str
    entered_at: int
    origin: str | None
    move: str
    skipped: tuple[str, ...]
    rule: int | None
    cause: str
    touchpoint: str | None


@dataclass
class Report:
    """What was found, in words, by kind; and figures that tell how hard the run was."""

    lost: list[str] = field(default_factory=list)
    phantom: list[str] = field(default_factory=list)
    duplicate: list[str] = field(default_factory=list)
    sequence_gap: list[str] = field(default_factory=list)
    diverged: list[str] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)
    missing_hook: list[str] = field(default_factory=list)
    unexplained_hook: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def findings(self) -> dict[str, list[str]]:
        """The kinds of findings that there are."""
        return {kind: found for kind, found in asdict(self).items() if kind != "figures" and found}

    def as_json(self) -> str:
        """How many of each kind, the figures, and the first findings of each kind."""
        counts = {kind: len(found) for kind, found in asdict(self).items() if kind != "figures"}
        examples = {kind: found[:SHOWN] for kind, found in self.findings().items()}
        return json.dumps({**counts, "figures": self.figures, "examples": examples}, indent=2)


async def verify(record: Record, key: str, quiet_seconds: float = QUIET_SECONDS) -> Report:
    """Waits until all is applied, then compares. Raises VerifierError where it does not come to rest."""
    target = record.target
    await _quiescence(target, quiet_seconds)
    report = Report()
    logged = await _logged(target) if target.bootstrap_servers else None
    stored = await _stored(target)
    _compare_log(report, record, logged)
    _compare_touchpoints(report, record, stored, logged)
    await _compare_dead_letters(report, target)
    expected = _expected(record)
    stories = await _told(target)
    _compare_sequences(report, stories)
    _compare_stories(report, expected, stories)
    await _compare_refusals(report, target, expected)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=target.url, headers=headers, timeout=30, trust_env=False) as client:
        await _compare_answers(report, client, record, expected, stories)
        await _compare_receipts(report, client, stored)
    report.figures = {
        "touchpoints": len(record.sendings),
        "late": sum(row.late for row in stored.values()),
        "repeated": sum(row.duplicates for row in stored.values()),
        **{answer: record.count(answer) for answer in (OK, UNKNOWN, REFUSED)},
        "slowest_answer_seconds": record.slowest,
    }
    if target.hooks:
        await _compare_hooks(report, record, quiet_seconds)
    return report


# -- what there is -------------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    source: str
    id: str
    who: Who
    type: str
    occurred_at: int
    body: dict[str, Any]
    duplicates: int
    conflicts: int
    late: bool


class _Change(NamedTuple):
    type: str
    sequence: int | None
    body: dict[str, Any]


async def _query(target: Target, query: str) -> list[tuple[Any, ...]]:
    if target.database_url.startswith("sqlite"):
        return await asyncio.to_thread(_query_sqlite, target.database_url.partition("///")[2], query)
    connection = await asyncpg.connect(target.database_url.replace("+asyncpg", "", 1))
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


def _query_sqlite(path: str, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path, timeout=10)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


async def _quiescence(target: Target, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    before: dict[int, int] | None = None
    while True:
        ends = await _ends(target)
        log = target.topic or "database"
        rows = await _query(target, f"SELECT partition, next FROM log_position WHERE log = '{log}'")
        if ends == {partition: next_ for partition, next_ in rows if partition in ends}:
            if ends == before:
                return
            before = ends
        elif time.monotonic() > deadline:
            raise VerifierError(f"not applied within {seconds:g} s: the log ends at {ends}, the positions are {rows}")
        await asyncio.sleep(SETTLED_SECONDS)


async def _ends(target: Target) -> dict[int, int]:
    """The end of each partition that has any record."""
    if not target.bootstrap_servers:
        ((last,),) = await _query(target, "SELECT max(position) FROM log_record")
        return {} if last is None else {0: last + 1}
    async with _consumer(target) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
    return {partition.partition: end for partition, end in ends.items() if end}


async def _logged(target: Target) -> Counter[str]:
    """How many records the topic has of each id."""
    found: Counter[str] = Counter()
    async with _consumer(target) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        while [partition for partition, end in ends.items() if await consumer.position(partition) < end]:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found.update(json.loads(record.value)["id"] for record in records)
    return found


def _consumer(target: Target) -> AIOKafkaConsumer:
    """Reads all partitions from their beginning, as nobody's member."""
    return AIOKafkaConsumer(target.topic, bootstrap_servers=target.bootstrap_servers, auto_offset_reset="earliest")


async def _stored(target: Target) -> dict[str, _Row]:
    rows = await _query(
        target,
        "SELECT t.source, t.id, c.kind, c.value, t.type, t.occurred_at, t.body, t.duplicates, t.conflicts, t.late "
        "FROM touchpoint AS t JOIN customer AS c ON c.id = t.customer",
    )
    return {
        id_: _Row(source, id_, Who(kind, value), type_, at, json.loads(body), duplicates, conflicts, late)
        for source, id_, kind, value, type_, at, body, duplicates, conflicts, late in rows
    }


async def _told(target: Target) -> dict[Journey, list[_Change]]:
    rows = await _query(
        target,
        "SELECT c.kind, c.value, change.lifecycle, change.subject, change.type, change.sequence, change.body "
        "FROM change JOIN customer AS c ON c.id = change.customer ORDER BY change.id",
    )
    stories = defaultdict(list)
    for kind, value, lifecycle, subject, type_, sequence, body in rows:
        stories[Journey(Who(kind, value), lifecycle, subject)].append(_Change(type_, sequence, json.loads(body)))
    return stories


def _expected(record: Record) -> dict[Journey, oracle.Passage]:
    by_customer: dict[Who, list[dict[str, Any]]] = defaultdict(list)
    for sending in record.sendings.values():
        if is_acceptable(sending.touchpoint):
            by_customer[_who(sending.touchpoint)].append(_fact(sending.touchpoint))
    return {
        Journey(who, *journey): passage
        for who, facts in by_customer.items()
        for document in record.lifecycles
        for journey, passage in oracle.replay(document, facts).items()
    }


async def _delivered(target: Target, hooks: Hooks, seconds: float) -> None:
    """Waits until nothing is pending for whoever takes what it gets. Raises VerifierError."""
    taking = ", ".join(f"'{hook.id}'" for hook in hooks.hooks if hook.kind.gets_everything)
    deadline = time.monotonic() + seconds
    while True:
        ((unsequenced,),) = await _query(target, "SELECT count(*) FROM change WHERE position IS NULL")
        pending = await _query(
            target,
            "SELECT endpoint, count(*) FROM webhook_delivery "
            f"WHERE status = 'pending' AND endpoint IN ({taking}) GROUP BY endpoint",
        )
        if not unsequenced and not pending:
            return
        if time.monotonic() > deadline:
            raise VerifierError(f"not delivered within {seconds:g} s: {unsequenced} without position, {pending}")
        await asyncio.sleep(SETTLED_SECONDS)


# -- how it compares -----------------------------------------------------------------------------------------------


def _compare_log(report: Report, record: Record, logged: Counter[str] | None) -> None:
    if logged is None:
        return
    for id_, count in logged.items():
        sending = record.sendings.get(id_)
        if sending is None or sending.sent == sending.answers[REFUSED]:
            report.phantom.append(f"{id_} is in the log, and was {'refused' if sending else 'never sent'}")
        elif sending.way == HTTP and count > sending.sent - sending.answers[REFUSED]:
            report.duplicate.append(f"{id_} is in the log {count} times, and was sent {sending.sent} times")
    for id_, sending in record.sendings.items():
        if logged[id_] < sending.answers[OK]:
            report.lost.append(f"{id_} was accepted {sending.answers[OK]} times, and is in the log {logged[id_]} times")


def _compare_touchpoints(
    report: Report, record: Record, stored: Mapping[str, _Row], logged: Counter[str] | None
) -> None:
    for id_, sending in record.sendings.items():
        if id_ not in stored:
            if sending.answers[OK]:
                report.lost.append(f"{id_} was accepted, and is not applied")
            continue
        row, fact = stored[id_], _fact(sending.touchpoint)
        if not sending.answers[OK] and not sending.answers[UNKNOWN]:
            report.phantom.append(f"{id_} was refused, and is applied")
        sent = (_who(sending.touchpoint), fact["type"], fact["occurred_at"], fact["properties"], sending.way == TOPIC)
        if (row.who, row.type, row.occurred_at, row.body["properties"], row.source == SOURCE) != sent:
            report.phantom.append(f"{id_} is not applied as it was sent: {row}")
        least, most = _records(sending) if logged is None else (logged[id_], logged[id_])
        if not least <= row.duplicates + 1 <= most or row.conflicts:
            report.miscounted.append(
                f"{id_} has {row.duplicates} duplicates and {row.conflicts} conflicts, and {least} to {most} records"
            )
    report.phantom += [f"{id_} is applied, and was never sent" for id_ in stored.keys() - record.sendings.keys()]


def _records(sending: Sending) -> tuple[int, int]:
    """How many records of a touchpoint there must and may be in a log that cannot be read any more."""
    return sending.answers[OK], sending.sent - sending.answers[REFUSED]


async def _compare_dead_letters(report: Report, target: Target) -> None:
    for id_, code, reason in await _query(target, "SELECT id, code, reason FROM dead_letter"):
        report.lost.append(f"{id_} was set aside: {code}, {reason}")


def _compare_sequences(report: Report, stories: Mapping[Journey, Sequence[_Change]]) -> None:
    for journey, changes in stories.items():
        moves = [change for change in changes if change.type == "stage.changed"]
        numbers = [change.sequence for change in moves]
        if repeated := [number for number, count in Counter(numbers).items() if count > 1]:
            report.duplicate.append(f"{journey} has these numbers more than once: {repeated}")
        elif numbers != list(range(1, len(numbers) + 1)):
            report.sequence_gap.append(f"{journey} has the numbers {numbers}")
        stage = None
        for change in moves:
            if change.body["from"] != stage:
                report.sequence_gap.append(f"{journey} was told to leave {change.body['from']}, and was in {stage}")
            stage = change.body["to"]


def _compare_stories(
    report: Report, expected: Mapping[Journey, oracle.Passage], stories: Mapping[Journey, Sequence[_Change]]
) -> None:
    """Who follows the changes as they are told must arrive at the same history."""
    lifecycles = {journey.lifecycle for journey in expected}
    for journey in expected.keys() | {journey for journey in stories if journey.lifecycle in lifecycles}:
        stays: Counter[Stay] = Counter()
        stage = None
        for change in stories.get(journey, ()):
            if change.type == "stage.changed":
                stage = change.body["to"]
                if change.body["cause"]["kind"] != "correction":
                    stays[_stay(change.body, "to", "occurred_at")] += 1
            else:
                stays.subtract(_stay(stay, "stage", "entered_at") for stay in change.body["replaced"])
                stays.update(_stay(stay, "stage", "entered_at") for stay in change.body["by"])
        right = _stays(expected.get(journey))
        if stays != Counter(right) or stage != (right[-1].stage if right else None):
            report.diverged.append(f"{journey}: what was told is not the history: {_difference(right, +stays)}")


async def _compare_refusals(report: Report, target: Target, expected: Mapping[Journey, oracle.Passage]) -> None:
    rows = await _query(
        target,
        "SELECT c.kind, c.value, h.lifecycle, h.subject, h.at, h.rule, h.stage, h.reason, h.touchpoint "
        "FROM history AS h JOIN customer AS c ON c.id = h.customer "
        "WHERE h.move = 'refused' AND h.superseded_at IS NULL",
    )
    found = defaultdict(list)
    for kind, value, lifecycle, subject, *refusal in rows:
        found[Journey(Who(kind, value), lifecycle, subject)].append(tuple(refusal))
    for journey, passage in expected.items():
        right = [tuple(refusal[:5]) for refusal in passage.refusals]
        if Counter(found.get(journey, ())) != Counter(right):
            report.diverged.append(f"{journey}: refusals: {_difference(right, found.get(journey, ()))}")
    ((backwards,),) = await _query(target, "SELECT count(*) FROM history WHERE superseded_at <= recorded_at")
    if backwards:
        report.diverged.append(f"{backwards} lines of the history were superseded before they were recorded")


async def _compare_answers(
    report: Report,
    client: httpx.AsyncClient,
    record: Record,
    expected: Mapping[Journey, oracle.Passage],
    stories: Mapping[Journey, Sequence[_Change]],
) -> None:
    keys = [document["lifecycle"] for document in record.lifecycles]
    everybody = sorted({_who(one.touchpoint) for one in record.sendings.values() if is_acceptable(one.touchpoint)})
    answers = await _gathered(_asked(client, who) for who in everybody)
    for who, (overview, history) in zip(everybody, answers, strict=True):
        stays = defaultdict(list)
        for item in history:
            stays[Journey(who, item["lifecycle"], item["subject"])].append(item)
        current = {Journey(who, one["lifecycle"], one["subject"]): one for one in overview["journeys"]}
        known = {journey for journey in expected if journey.who == who}
        for journey in known | {one for one in {**stays, **current} if one.lifecycle in keys}:
            _compare_journey(
                report, journey, expected.get(journey), stays[journey], current.get(journey), stories.get(journey, ())
            )


def _compare_journey(
    report: Report,
    journey: Journey,
    passage: oracle.Passage | None,
    items: Sequence[Mapping[str, Any]],
    current: Mapping[str, Any] | None,
    story: Sequence[_Change],
) -> None:
    right, found = _stays(passage), [_stay(item, "stage", "entered_at") for item in items]
    if doubled := [stay for stay, count in Counter(found).items() if count > 1]:
        report.duplicate.append(f"{journey} has these stays more than once: {doubled}")
    elif found != right:
        report.diverged.append(f"{journey}: the history: {_difference(right, found)}")
    elif [_instant(item["left_at"]) for item in items] != [*(stay.entered_at for stay in right[1:]), None]:
        report.diverged.append(f"{journey}: the stays do not end where the next ones begin")
    if passage is None or current is None:
        report.diverged.append(f"{journey} is {'not known' if passage else 'not expected'}")
        return
    sequence = max((change.sequence or 0 for change in story), default=0)
    if current["sequence"] != sequence:
        report.sequence_gap.append(f"{journey} answers with sequence {current['sequence']}, and was told {sequence}")
    measures = {name: value for name, value in current["measures"].items() if value is not None}
    answer = (current["stage"], _instant(current["entered_at"]), measures)
    if answer != (right[-1].stage, right[-1].entered_at, passage.measures):
        report.diverged.append(f"{journey}: the answer is {answer}, the fold says {right[-1]}, {passage.measures}")


async def _compare_receipts(report: Report, client: httpx.AsyncClient, stored: Mapping[str, _Row]) -> None:
    sample = sorted(stored.values(), key=lambda row: row.id)[::SAMPLED]
    receipts = await _gathered(_receipt(client, row) for row in sample)
    for row, receipt in zip(sample, receipts, strict=True):
        told = tuple(receipt.get(name) for name in ("status", "duplicates", "conflicts"))
        if told != ("late" if row.late else "applied", row.duplicates, row.conflicts):
            report.miscounted.append(f"{row.id} has the receipt {receipt}, and stands as {row}")


async def _compare_hooks(report: Report, record: Record, seconds: float) -> None:
    target = record.target
    hooks = Hooks.read(Path(target.hooks))
    await _delivered(target, hooks, seconds)
    silent = {_who(one.touchpoint) for one in record.sendings.values() if is_muted(one.touchpoint)}
    rows = await _query(
        target,
        "SELECT c.kind, c.value, change.customer, change.lifecycle, change.subject, change.type, change.sequence, "
        "change.body FROM change JOIN customer AS c ON c.id = change.customer ORDER BY change.position",
    )
    changes = [
        Told(type_, lane, lifecycle, subject, sequence, Who(kind, value) in silent, json.loads(body))
        for kind, value, lane, lifecycle, subject, type_, sequence, body in rows
    ]
    arrivals = read_arrivals(Path(hooks.journal))
    found = compare(hooks, arrivals, changes)
    report.missing_hook += found.missing
    report.unexplained_hook += found.unexplained
    report.duplicate += found.duplicate
    report.sequence_gap += found.gaps
    await _compare_failures(report, target, hooks)
    report.figures |= {
        "changes": len(changes),
        "told": sum(not change.muted for change in changes),
        "requests": len(arrivals),
        "repeated_requests": found.repeated,
        "failed_requests": found.failed,
    }


async def _compare_failures(report: Report, target: Target, hooks: Hooks) -> None:
    """What could not be delivered is visible: pending, or failed with its reason."""
    rows = await _query(target, "SELECT endpoint, status, count(*) FROM webhook_delivery GROUP BY endpoint, status")
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for endpoint, status, count in rows:
        counts[endpoint][status] = count
    for hook in hooks.hooks:
        found = counts[hook.id]
        if hook.kind.gets_everything and found.keys() - {"delivered"}:
            report.missing_hook.append(f"{hook.path} has deliveries that did not arrive: {found}")
        if not hook.kind.gets_everything and (found.keys() - {"pending", "failed"} or not found):
            report.unexplained_hook.append(f"{hook.path}, which takes nothing, has {found}")


async def _asked(client: httpx.AsyncClient, who: Who) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = f"/v1/customers/{who.value}"
    overview = await _get(client, path, kind=who.kind)
    items, cursor = [], None
    while True:
        page = await _get(client, f"{path}/history", kind=who.kind, limit=250, **({"cursor": cursor} if cursor else {}))
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return overview, items


async def _receipt(client: httpx.AsyncClient, row: _Row) -> dict[str, Any]:
    return await _get(client, f"/v1/touchpoints/{row.id}", **({"source": row.source} if row.source == SOURCE else {}))


async def _get(client: httpx.AsyncClient, path: str, **parameters: str | int) -> dict[str, Any]:
    answer = await client.get(path, params=parameters)
    if answer.status_code == 404:
        return {"journeys": [], "items": [], "next_cursor": None}
    if answer.status_code != 200:
        raise VerifierError(f"GET {answer.request.url} was answered with {answer.status_code}: {answer.text[:300]}")
    return dict(answer.json())


async def _gathered(questions: Iterable[Any]) -> list[Any]:
    """Asks a few at a time."""
    room = asyncio.Semaphore(8)

    async def ask(question: Any) -> Any:
        async with room:
            return await question

    return await asyncio.gather(*map(ask, questions))


# -- one form for what is told in several --------------------------------------------------------------------------


def _who(touchpoint: Touchpoint) -> Who:
    kind = "customer_id" if "customer_id" in touchpoint else "anonymous_id"
    return Who(kind, touchpoint[kind])


def _fact(touchpoint: Touchpoint) -> dict[str, Any]:
    """As the oracle reads it. No two sources share an id here, so that the source decides nothing."""
    return {
        "id": touchpoint["id"],
        "source": "",
        "type": touchpoint["type"],
        "occurred_at": _instant(touchpoint["occurred_at"]),
        "properties": touchpoint.get("properties", {}),
        "context": {},
    }


def _stays(passage: oracle.Passage | None) -> list[Stay]:
    return [Stay(*stay[:8]) for stay in passage.stays] if passage else []


def _stay(told: Mapping[str, Any], stage: str, at: str) -> Stay:
    cause = told["cause"]
    entered_at = _instant(told[at])
    assert entered_at is not None
    return Stay(
        told[stage], entered_at, told["from"], told["move"], tuple(told["skipped"]),
        cause["rule"], cause["kind"], cause["touchpoint"],
    )  # fmt: skip


def _instant(text: str | None) -> int | None:
    if text is None:
        return None
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _difference(right: Iterable[Any], found: Iterable[Any]) -> str:
    expected, there = Counter(right), Counter(found)
    missing, extra = list((expected - there).elements()), list((there - expected).elements())
    if not missing and not extra:
        return "the same, in another order"
    return f"missing {missing[:3]}, too much {extra[:3]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.verifier", description="Verify a driver's journal.")
    parser.add_argument("journal", type=Path)
    record = read_journal(parser.parse_args().journal)
    if record is None:
        parser.error("the journal is empty")
    try:
        report = asyncio.run(verify(record, os.environ["LIFECYCLE_API_KEY"]))
    except VerifierError as error:
        sys.stderr.write(f"verifier: {error}\n")
        return 2
    sys.stdout.write(report.as_json() + "\n")
    return 1 if report.findings() else 0


if __name__ == "__main__":
    sys.exit(main())
