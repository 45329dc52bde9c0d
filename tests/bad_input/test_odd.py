"""What is odd and yet right: taken, stored and given back as it was, on each database, and never more than it seems."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bad_input.door import Door
from tests.bad_input.format_cases import LINES
from tests.bad_input.requests import ONE, get, post
from tests.bad_input.test_decoders import TOUCHPOINTS, altered
from tests.bad_input.test_table import check_output

WAIT = [(b"Prefer", b"wait=20")]
NAMES = {
    "a line separator": "a\u2028b\u2029c",
    "a change of direction": "\u202egnp.exe\u2066",
    "nothing that is seen": "\u200b\ufeff",
    "a combining mark alone": "\u0301",
    "letters of four bytes": "\U0001f600" * 128,
    "the last character of all": "\U0010ffff\ufffe",
    "spaces": "  ",
    "SQL": "'; DROP TABLE touchpoint; --",
    "a format": "{0.__class__}%s%n${jndi:ldap://x}",
    "a path": "../../etc/passwd",
    "null": "null",
    "a percent sign": "%00%ff",
    "quotes": "\"'`\\",
    "markup": "<script>alert(1)</script>",
}
PROPERTIES: dict[str, Any] = {
    "numbers": [2**63 - 1, -(2**63), 5e-324, 1.7976931348623157e308, -0.0, 0.1 + 0.2, 2**53 + 1],
    "texts": ["", "\x01\x1f\x7f\x9b", "\u2028", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")],
    "names": {"": 1, "__proto__": {"a": 1}, "a.b": 1, "$ref": "#", "é": 1, "e\u0301": 2, " ": 1},
    "deep": json.loads('{"x":' * 30 + "1" + "}" * 30),
}


@pytest.fixture(params=["sqlite_door", "production_door"])
def door(request: pytest.FixtureRequest) -> Door:
    door: Door = request.getfixturevalue(request.param)
    return door


def test_odd_names_come_back(door: Door) -> None:
    raw = [{"id": name, "type": name, "customer_id": name, "properties": PROPERTIES} for name in NAMES.values()]
    answer = door.send(post(ONE, json.dumps(raw).encode(), headers=WAIT))
    assert answer.json()["summary"] == {"accepted": len(NAMES), "rejected": 0, "unknown": 0}, answer.body[:2000]
    for name in NAMES.values():
        quoted = "".join(f"%{byte:02x}" for byte in name.encode())
        (found,) = door.send(get(f"/v1/customers/{quoted}/touchpoints")).json()["items"]
        assert (found["id"], found["type"], found["customer_id"]) == (name, name, name)
        assert found["properties"] == PROPERTIES
        assert door.send(get(f"{ONE}/{quoted}")).json()["status"] == "applied"
    no_dead_letters(door)


def test_what_is_accepted_is_stored(door: Door) -> None:
    """Touchpoints with a few wrong bytes: whichever of them is accepted, the worker sets none aside."""

    @settings(max_examples=6, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(altered(TOUCHPOINTS).map(lambda raw: raw.replace(b"\n", b" ")), min_size=20, max_size=60))
    def stored(lines: list[bytes]) -> None:
        answer = door.send(post(ONE, b"\n".join(lines), media_type=LINES, headers=WAIT))
        assert answer.status == 207, answer.body[:2000]
        for item in answer.json()["items"]:
            assert item["status"] in ("accepted", "rejected"), item

    stored()
    no_dead_letters(door)


def no_dead_letters(door: Door) -> None:
    assert door.send(get("/v1/dead-letters")).json()["items"] == []
    check_output(door)
