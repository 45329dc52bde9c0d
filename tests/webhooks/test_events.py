"""What is said of events beforehand: by `/v1/webhooks/event-types`, and by the `webhooks` of the OpenAPI document."""

from __future__ import annotations

import jsonschema_rs
import pytest

from lifecycle_engine.api.app import document
from lifecycle_engine.api.webhooks.events import MODELS, schema_of
from lifecycle_engine.api.webhooks.examples import examples
from lifecycle_engine.outbox.events import TEST
from lifecycle_engine.outbox.filters import EVENT_TYPES
from tests.record import record
from tests.service import service


def test_every_type_is_described() -> None:
    assert set(MODELS) == set(examples()) == {*EVENT_TYPES, TEST}
    described = document()
    assert set(described["webhooks"]) == set(MODELS)
    schemas = described["components"]["schemas"]
    for type_, operations in described["webhooks"].items():
        operation = operations["post"]
        assert operation["summary"]
        assert operation["description"]
        names = {parameter["name"] for parameter in operation["parameters"]}
        assert names == {"webhook-id", "webhook-timestamp", "webhook-signature"}
        assert list(operation["responses"]) == ["204"]
        content = operation["requestBody"]["content"]["application/json"]
        validator = jsonschema_rs.validator_for({**content["schema"], "components": {"schemas": schemas}})
        assert content["examples"]
        for example in content["examples"].values():
            validator.validate(example["value"])
            assert example["value"]["type"] == type_


@pytest.mark.parametrize("type_", sorted(MODELS))
def test_a_schema_refuses_what_is_another_event(type_: str) -> None:
    validator = jsonschema_rs.validator_for(schema_of(type_))
    for other, shown in examples().items():
        for example in shown.values():
            assert validator.is_valid(example) is (other == type_)
    for example in examples()[type_].values():
        for name in example["data"]:
            less = {**example, "data": {key: value for key, value in example["data"].items() if key != name}}
            assert not validator.is_valid(less), name


def test_the_examples_tell_one_story() -> None:
    shown = examples()
    assert [shown["stage.changed"][name]["data"]["sequence"] for name in ("began", "advanced", "lapsed")] == [1, 3, 4]
    announced, withdrawn = (shown["stage.expiring"][name]["data"] for name in ("announced", "withdrawn"))
    assert (announced["withdrawn"], withdrawn["withdrawn"]) == (False, True)
    assert announced["due_at"] == withdrawn["due_at"] == shown["stage.changed"]["lapsed"]["data"]["occurred_at"]
    assert shown["stage.changed"]["visitor"]["data"]["anonymous_id"]


async def test_they_can_be_asked_for(sqlite_url: str) -> None:
    async with record(sqlite_url) as database, service(database) as client:
        items = (await client.get("/v1/webhooks/event-types")).json()["items"]
    assert [one["type"] for one in items] == list(MODELS)
    for one in items:
        validator = jsonschema_rs.validator_for(one["schema"])
        for example in one["examples"]:
            validator.validate(example)
