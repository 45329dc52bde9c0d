"""Examples of what is told: each made by the code that tells it, from a few facts about a customer and the fold.

So an example can't say what no event ever says. Pure; computed once, when somebody first asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from lifecycle_engine.engine.announcements import to_announce, to_withdraw
from lifecycle_engine.engine.notices import customer_merged, history_corrected, stage_changed, stage_expiring
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import ActiveDefinition, compile_definition
from lifecycle_engine.lifecycle.fold import fold
from lifecycle_engine.lifecycle.instants import parse_instant
from lifecycle_engine.lifecycle.journeys import CustomerState, Event
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from lifecycle_engine.outbox.events import TEST, Alert, Cause, alert_body, body, test_body
from lifecycle_engine.store.changes import ChangeRow
from lifecycle_engine.store.customers import CustomerRow, Identity, IdentityKind
from lifecycle_engine.store.states import Announced, Sequences

_DEFINITION: Mapping[str, Any] = {
    "lifecycle": "retail",
    "initial": "awareness",
    "stages": [{"key": key} for key in ("awareness", "consideration", "purchase", "retention", "advocacy")],
    "measures": {"purchases": {"count": "purchase"}},
    "rules": [
        {"on": "purchase", "when": ["measures.purchases >= 2"], "to": "retention"},
        {"on": "purchase", "to": "purchase"},
        {"on": ["signup", "product_view"], "from": ["awareness"], "to": "consideration"},
        {
            "after": "180d",
            "without": "purchase",
            "from": ["purchase", "retention"],
            "to": "consideration",
            "warn": "14d",
        },
    ],
}
_LIFECYCLE = "retail"
_MINUTE = 60_000_000
_ENDPOINT = "ep_01M0PF1C00R5W3Q0X8M4T6B2ZD"
_MESSAGE = "msg_01M0PF1C00J6K8N2P4R6T8V0XA"


@lru_cache(1)
def examples() -> Mapping[str, Mapping[str, dict[str, Any]]]:
    """Type of event -> what an example shows -> the whole body as it is sent."""
    definitions = {_LIFECYCLE: (ActiveDefinition(1, compile_definition(_DEFINITION, Cel())),)}

    def told(facts: Iterable[Touchpoint], until: int | None = None) -> tuple[list[Event], CustomerState]:
        events: list[Event] = []
        return events, fold(definitions, facts, tell=events.append, until=until)

    signup, first = _fact("t1", "signup", "2026-03-02T10:30:00Z"), _fact("t2", "purchase", "2026-03-05T18:00:00Z")
    second = _fact("t3", "purchase", "2026-04-11T08:15:00Z")
    events, state = told([signup, first, second])
    sequences: Sequences = {}
    changed = [stage_changed(_ADA, event, event.origin, sequences, event.at + _MINUTE, muted=False) for event in events]
    # The visit comes in a month late, and was before all else.
    late = _fact("t0", "product_view", "2026-03-01T12:00:00Z")
    corrected, _ = told([late, signup, first, second])
    replaced = [event for event in events if event not in corrected]
    by = [event for event in corrected if event not in events]
    at = second.occurred_at + _MINUTE
    # Half a year without a purchase, and then one just before its end.
    (announced_at, announcement), *_ = to_announce(definitions, state, {}, second.occurred_at + 170 * 1440 * _MINUTE)
    announced: Announced = {_LIFECYCLE: {None: {announcement.rule: announcement.told}}}
    third = _fact("t4", "purchase", "2026-10-05T16:40:00Z")
    more, after = told([signup, first, second, third])
    (withdrawn,) = to_withdraw(definitions, after, announced, more[len(events) :])
    lapsed, _ = told([signup, first, second], announcement.told.due)
    # A visitor whom nobody knows yet.
    (visit,), _ = told([_fact("v1", "product_view", "2026-03-01T12:00:00Z")])
    cause = Cause(_MESSAGE, "stage.changed", 3, 503, None)
    return {
        "stage.changed": {
            "advanced": _body(changed[-1]),
            "began": _body(changed[0]),
            "lapsed": _body(_changed(lapsed[-1], 4)),
            "visitor": _body(stage_changed(_VISITOR, visit, None, {}, visit.at + _MINUTE, muted=False)),
        },
        "stage.expiring": {
            "announced": _body(stage_expiring(_ADA, announcement, announced_at + _MINUTE, muted=False)),
            "withdrawn": _body(
                stage_expiring(_ADA, withdrawn, third.occurred_at + _MINUTE, muted=False, withdrawn=True)
            ),
        },
        "history.corrected": {"late": _body(history_corrected(_ADA, replaced, by, at, muted=False))},
        "customer.merged": {
            "merged": _body(customer_merged(_customer(3, "customer_id", "ada-2"), _ADA, at, muted=False))
        },
        "endpoint.disabled": {
            "gone": _alert(Alert("endpoint.disabled", _ENDPOINT, at, cause._replace(status_code=410), "gone"))
        },
        "endpoint.failing": {"failing": _alert(Alert("endpoint.failing", _ENDPOINT, at, cause))},
        "endpoint.exhausted": {
            "exhausted": _alert(
                Alert("endpoint.exhausted", _ENDPOINT, at, Cause(_MESSAGE, "stage.changed", 10, None, "timeout"))
            )
        },
        "endpoint.recovered": {
            "recovered": _alert(Alert("endpoint.recovered", _ENDPOINT, at, cause._replace(status_code=204)))
        },
        TEST: {"test": _read(test_body(_ENDPOINT, at))},
    }


def example(type_: str) -> dict[str, Any]:
    """One example of a type, as it is sent."""
    return next(iter(examples()[type_].values()))


def _fact(id_: str, type_: str, at: str) -> Touchpoint:
    return Touchpoint(id_, "shop", type_, parse_instant(at), "ada", None, {}, {})


def _customer(id_: int, kind: IdentityKind, value: str) -> CustomerRow:
    return CustomerRow(id_, Identity(kind, value), 1, None, {}, {}, 0, False, None, None)


_ADA = _customer(1, "customer_id", "ada")
_VISITOR = _customer(2, "anonymous_id", "3f1c")


def _changed(event: Event, sequence: int) -> ChangeRow:
    sequences: Sequences = {_LIFECYCLE: {None: sequence - 1}}
    return stage_changed(_ADA, event, event.origin, sequences, event.at + _MINUTE, muted=False)


def _body(change: ChangeRow) -> dict[str, Any]:
    return _read(body(change.type, change.recorded_at, change.body))


def _alert(alert: Alert) -> dict[str, Any]:
    return _read(alert_body(alert))


def _read(sent: bytes) -> dict[str, Any]:
    read: dict[str, Any] = msgspec.json.decode(sent)
    return read
