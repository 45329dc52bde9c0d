"""The comparison of what came to receivers finds what it is there to find."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.faults.hooks import Arrival, Findings, Hook, Hooks, Kind, Told, compare

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_700_000_000
PLAIN = Hook("ep_1", "/plain", Kind.HEALTHY, SECRET, {})
CHANGES = [
    Told("stage.changed", 1, "shop", None, number, False, {"sequence": number, "to": "b" if number == 2 else "a"})
    for number in (1, 2, 3)
]
SILENT = Told("stage.changed", 9, "shop", None, 1, True, {"sequence": 1, "to": "silent"})


def arrival(change: Told, status: int = 204, **fields: Any) -> Arrival:
    body = json.dumps({"type": change.type, "timestamp": "…", "data": change.data})
    id_ = fields.pop("id", f"msg_{change.sequence}")
    signature = Webhook(SECRET).sign(id_, datetime.fromtimestamp(NOW, UTC), body)
    return Arrival("/plain", id_, str(NOW), signature, body, status, NOW)._replace(**fields)


def found(arrivals: Sequence[Arrival], hook: Hook = PLAIN) -> Findings:
    return compare(Hooks(0, "", (hook,)), arrivals, [*CHANGES, SILENT])


def kinds(findings: Findings) -> list[str]:
    return [name for name, value in vars(findings).items() if isinstance(value, list) and value]


def test_nothing_is_wrong_where_all_came_some_of_it_twice() -> None:
    came = [arrival(one) for one in CHANGES]
    findings = found([arrival(CHANGES[0], 500), *came, came[1]])
    assert kinds(findings) == []
    assert (findings.repeated, findings.failed) == (1, 1)


@pytest.mark.parametrize(
    ("arrivals", "wrong"),
    [
        ([arrival(CHANGES[0]), arrival(CHANGES[1])], ["missing"]),
        ([arrival(CHANGES[0]), arrival(CHANGES[1]), arrival(CHANGES[2], 500)], ["missing"]),
        ([arrival(CHANGES[0]), arrival(CHANGES[2])], ["missing", "gaps"]),
        ([*map(arrival, CHANGES), arrival(SILENT, id="msg_9")], ["unexplained"]),
        ([*map(arrival, CHANGES), arrival(CHANGES[0], id="msg_8")], ["duplicate"]),
        ([*map(arrival, CHANGES[:2]), arrival(CHANGES[2], id="msg_1")], ["duplicate"]),
        ([*map(arrival, CHANGES[:2]), arrival(CHANGES[2], signature="v1,AAAA")], ["unexplained"]),
        ([*map(arrival, CHANGES[:2]), arrival(CHANGES[2], at=NOW + 100)], ["unexplained"]),
        ([*map(arrival, CHANGES), arrival(CHANGES[0], path="/nobody")], ["unexplained"]),
    ],
)
def test_what_is_wrong_is_found(arrivals: list[Arrival], wrong: list[str]) -> None:
    assert kinds(found(arrivals)) == wrong


@pytest.mark.parametrize(("wants", "missing"), [({"to": ["b"]}, 1), ({"event_types": ["history.*"]}, 0)])
def test_only_what_is_wanted_is_missed(wants: Mapping[str, Sequence[str]], missing: int) -> None:
    hook = Hook("ep_1", "/plain", Kind.HEALTHY, SECRET, wants)
    assert len(found([], hook).missing) == missing
    assert kinds(found([arrival(CHANGES[0])], hook))[-1:] == ["unexplained"]


def test_an_ordered_receiver_sees_the_order() -> None:
    hook = Hook("ep_1", "/plain", Kind.HEALTHY, SECRET, {}, ordered=True)
    came = [arrival(one) for one in CHANGES]
    assert kinds(found([came[0], came[1], came[0], came[2]], hook)) == []
    assert kinds(found([came[1], came[0], came[2]], hook)) == ["gaps"]
