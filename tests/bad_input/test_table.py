"""Each row of the tables, put to a running service: refused as it says, nothing is taken, and the service goes on."""

from __future__ import annotations

import re

import pytest

from tests.bad_input import client_cases, format_cases, http_cases, operator_cases, question_cases, touchpoint_cases
from tests.bad_input.door import Answer, Door
from tests.bad_input.requests import CLOSED, Case
from tests.processes import API_KEY

CASES = [
    *touchpoint_cases.CASES,
    *format_cases.CASES,
    *client_cases.CASES,
    *http_cases.CASES,
    *question_cases.CASES,
    *operator_cases.CASES,
]
MEMBERS = {"type", "title", "status", "detail", "instance", "code", "message", "request_id"}
LONGEST_WAIT = 1.0
"""Seconds within which the next good request must be answered."""
_INSIDE = re.compile(
    rb"Traceback|File \"|\.py\b|sqlalchemy|asyncpg|sqlite|postgresql(\+asyncpg)?://|0x[0-9a-f]{8}|" + API_KEY.encode(),
    re.IGNORECASE,
)
_LINE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:,]{12} (INFO|WARNING) |Lifecycle Engine listens|Documentation: ")
"""How each line of the service's output begins."""


def test_there_are_enough_rows_and_each_has_a_name_of_its_own() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)
    assert not [case for case in CASES if case.status >= 500]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_wrong_is_refused_and_harms_nothing(sqlite_door: Door, case: Case) -> None:
    harms_nothing(sqlite_door, case)


@pytest.mark.parametrize("case", CASES[::7], ids=lambda case: case.name)
def test_so_it_is_on_postgresql_and_kafka(production_door: Door, case: Case) -> None:
    """Most is refused before it comes to a database or a log, so a seventh of the rows will do."""
    harms_nothing(production_door, case)


def harms_nothing(door: Door, case: Case) -> None:
    before = door.ends()
    answer = door.send(case.sent(), ends=case.ends)
    check(case, answer)
    # A machine under load may be slow once.
    taken = 1 if door.take() < LONGEST_WAIT else 2
    if taken == 2:
        assert door.take() < LONGEST_WAIT
    assert door.ends() - before == taken, "something was appended"
    check_output(door)


def check(case: Case, answer: Answer) -> None:
    told = answer.body[:2000]
    assert answer.status == case.status, told
    if case.status == CLOSED:
        return
    assert not _INSIDE.search(answer.body), told
    assert not re.search(rb"[\x00-\x1f]", answer.body), told
    body = answer.json()
    if case.status == 200 and "errors" in body:
        assert body["errors"][0]["code"] == case.code, told
        return
    if case.status in (200, 207):
        assert body["summary"] == {"accepted": 0, "rejected": len(body["items"]), "unknown": 0}, told
        assert body["items"][0]["problem"]["code"] == case.code, told
        return
    assert answer.headers["content-type"] == "application/problem+json"
    assert body.keys() >= MEMBERS, told
    assert body["code"] == case.code, told
    assert (body["status"], body["message"]) == (answer.status, body["detail"])
    assert body["request_id"] == answer.headers["request-id"]
    assert len(answer.body) < 20_000, told


def check_output(door: Door) -> None:
    """Whatever comes, the service writes a line an event, and none of it is a secret or a stack."""
    written = door.new_output()
    assert not _INSIDE.search(written.encode()), written
    for line in written.splitlines():
        assert _LINE.match(line), line
