"""Overrides and retractions over HTTP, down to what the service then answers, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle_engine.engine.batch import apply_batch
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.touchpoints import OVERRIDE, RETRACT
from tests.integration.whole import AUDIT, START, Whole, day, now, soon, whole
from tests.record import deliveries, message

SHOP: dict[str, Any] = {
    "lifecycle": "shop",
    "initial": "new",
    "stages": [{"key": "new"}, {"key": "bought"}, {"key": "loyal", "requires": ["measures.n >= 2"]}],
    "measures": {"n": {"count": "buy"}},
    "rules": [
        {"on": "buy", "when": ["measures.n >= 2"], "to": "loyal"},
        {"on": "buy", "to": "bought"},
        {"on": "leave", "to": "new"},
    ],
}
LINES: dict[str, Any] = {
    "lifecycle": "lines",
    "initial": "new",
    "opens": ["buy"],
    "per": "properties.line",
    "stages": [{"key": "new"}, {"key": "known"}],
    "rules": [{"on": "buy", "to": "known"}],
}
STAGE = "/v1/customers/c/journeys/shop/stage"


@pytest.fixture(params=["sqlite", "postgres"])
async def shop(request: pytest.FixtureRequest) -> AsyncIterator[Whole]:
    async with whole(str(request.getfixturevalue(f"{request.param}_url")), SHOP, LINES) as started:
        yield started


# -- overrides -------------------------------------------------------------------------------------------------------


async def test_an_override_sets_the_stage_past_all_guards_and_the_rules_go_on(shop: Whole) -> None:
    await shop.post("t1", "buy", 1, customer_id="c")
    await shop.post("t4", "leave", 4, customer_id="c")
    id_ = await shop.do("PUT", STAGE, {"stage": "loyal", "occurred_at": day(2), **AUDIT})
    assert await shop.history(lifecycle="shop") == [
        ("bought", day(1), day(2), "touchpoint"),
        ("loyal", day(2), day(4), "override"),
        ("new", day(4), None, "touchpoint"),
    ]
    receipt = await shop.get(f"/v1/touchpoints/{id_}")
    assert (receipt["status"], receipt["type"], receipt["retracted_at"]) == ("late", "$override", None)
    (stay,) = receipt["transitions"]
    assert (stay["stage"], stay["cause"]["touchpoint"], stay["cause"]["rule"]) == ("loyal", id_, None)
    customer = await shop.get("/v1/customers/c")
    assert (customer["first_touchpoint_at"], customer["last_touchpoint_at"]) == (day(1), day(4))
    assert customer["journeys"][0]["measures"] == {"n": 1}, "it enters no measure"
    posted = (await shop.get("/v1/customers/c/touchpoints"))["items"]
    assert [one["id"] for one in posted] == ["t4", "t1"]
    (fact,) = [one for one in await facts(shop) if one["id"] == id_]
    assert fact["properties"] == {"lifecycle": "shop", "stage": "loyal", **AUDIT}


async def facts(shop: Whole, customer_id: str = "c", **parameters: Any) -> list[dict[str, Any]]:
    path = f"/v1/customers/{customer_id}/touchpoints"
    items: list[dict[str, Any]] = (await shop.get(path, include="facts", **parameters))["items"]
    return items


async def test_a_pin_ends_where_the_rules_have_got_to(shop: Whole) -> None:
    await shop.post("t1", "buy", 1, customer_id="c")
    id_ = await shop.do("PUT", STAGE, {"id": "pin", "stage": "new", "expires_at": (end := soon(2.0)), **AUDIT})
    path = "/v1/customers/c/journeys/shop"
    assert (await shop.get(path))["stage"] == "new"
    await shop.do("POST", "/v1/touchpoints", {"type": "buy", "customer_id": "c"})
    assert (await shop.get(path))["stage"] == "new", "the fold goes on beneath, unseen"
    moment = await shop.until(path, "stage", "loyal")
    assert (moment["entered_at"], moment["move"], moment["skipped"]) == (end, "skip", ["bought"])
    assert (moment["cause"]["kind"], moment["cause"]["touchpoint"]) == ("override", "pin")
    receipt = await shop.get(f"/v1/touchpoints/{id_}")
    assert [stay["stage"] for stay in receipt["transitions"]] == ["new", "loyal"]
    (journey,) = (await shop.get("/v1/customers/c"))["journeys"]
    assert (journey["stage"], journey["sequence"]) == ("loyal", 3)


async def test_a_pin_is_ended_by_an_override_and_undone_by_a_retraction(shop: Whole) -> None:
    await shop.post("t1", "buy", 1, customer_id="c")
    pin = {"stage": "new", "occurred_at": day(2), "expires_at": "2999-01-01T00:00:00Z", **AUDIT}
    await shop.do("PUT", STAGE, {"id": "pin", **pin})
    await shop.post("t3", "buy", 3, customer_id="c")
    assert [line[0] for line in await shop.history()] == ["bought", "new"]
    await shop.do("PUT", STAGE, {"id": "end", "stage": "bought", "occurred_at": day(4), **AUDIT})
    assert [line[0] for line in await shop.history()] == ["bought", "new", "bought"]
    await shop.do("DELETE", "/v1/touchpoints/pin", **AUDIT)
    assert [line[0] for line in await shop.history()] == ["bought", "loyal", "bought"]
    await shop.do("DELETE", "/v1/touchpoints/end", **AUDIT)
    assert [line[0] for line in await shop.history()] == ["bought", "loyal"]


async def test_an_override_opens_a_journey_of_anybody(shop: Whole) -> None:
    await shop.do("PUT", STAGE, {"stage": "bought", **AUDIT})
    answer = await shop.get("/v1/customers/c")
    assert (answer["first_touchpoint_at"], answer["last_touchpoint_at"]) == (None, None)
    assert [(one["lifecycle"], one["stage"]) for one in answer["journeys"]] == [("shop", "bought")]
    path = "/v1/customers/cookie/journeys/lines"
    body = {"stage": "known", "subject": "shoes", **AUDIT}
    await shop.do("PUT", f"{path}/stage", body, kind="anonymous_id")
    moment = await shop.get(path, kind="anonymous_id", subject="shoes")
    assert (moment["customer_id"], moment["stage"], moment["skipped"]) == (None, "known", ["new"])


async def test_an_override_that_cannot_be_meant_is_refused(shop: Whole) -> None:
    async def refused(status: int, lifecycle: str = "shop", **body: Any) -> tuple[str, str]:
        path = f"/v1/customers/c/journeys/{lifecycle}/stage"
        problem = await shop.ask("PUT", path, status, {"stage": "new", **AUDIT, **body})
        return problem["code"], problem["detail"]

    assert (await refused(404, "nothing"))[0] == "lifecycle_not_found"
    code, detail = await refused(422, stage="bougt")
    assert (code, "did you mean 'bought'?" in detail) == ("unknown_stage", True)
    code, detail = await refused(422, stage="x")
    assert (code, "there are new, bought, loyal" in detail) == ("unknown_stage", True)
    assert (await refused(422, subject="shoes"))[0] == "superfluous_subject"
    assert (await refused(422, "lines"))[0] == "missing_subject"
    assert (await refused(422, expires_at=soon(-1)))[0] == "invalid_time"
    assert (await refused(422, occurred_at=day(2), expires_at=day(2)))[0] == "invalid_time"
    assert (await refused(422, occurred_at="2999-01-01T00:00:00Z"))[0] == "in_the_future"
    assert (await refused(422, occurred_at="1066-10-14T00:00:00Z"))[0] == "invalid_time"
    assert (await refused(422, reason=""))[0] == "invalid_request"
    assert (await refused(422, actor=None))[0] == "invalid_request"
    assert (await refused(422, until=day(2)))[0] == "invalid_request"
    draft = {**SHOP, "lifecycle": "draft"}
    await shop.ask("POST", "/v1/lifecycles", 201, draft)
    assert (await refused(409, "draft"))[0] == "lifecycle_not_active"


async def test_the_same_override_again_is_a_duplicate(shop: Whole) -> None:
    body = {"id": "o1", "stage": "new", "expires_at": "2999-01-01T00:00:00Z", **AUDIT}
    await shop.do("PUT", STAGE, body)
    await shop.do("PUT", STAGE, body)
    await shop.until("/v1/touchpoints/o1", "duplicates", 1)
    assert (await shop.get("/v1/touchpoints/o1"))["conflicts"] == 0
    body = {"id": "o2", "stage": "bought", "expires_at": soon(0.5), **AUDIT}
    await shop.do("PUT", STAGE, body)
    await asyncio.sleep(0.6)
    await shop.do("PUT", STAGE, body)
    assert (await shop.ask("PUT", STAGE, 422, {**body, "id": "o3"}))["code"] == "invalid_time"


async def test_a_pin_that_ends_before_it_came_is_set_aside(shop: Whole) -> None:
    """On the topic its instant may be left out; then the one at which it was taken in counts."""
    properties = {"lifecycle": "shop", "stage": "new", "expires_at": day(0), **AUDIT}
    definitions = await Definitions(shop.database, Cel()).reload()
    override = message("o1", OVERRIDE, START, occurred_at=None, properties=properties)
    assert (await apply_batch(shop.database, definitions, "test", deliveries([override]))).dead == 1
    override = message("o1", OVERRIDE, START, occurred_at=None, properties={**properties, "expires_at": day(1)})
    assert (await apply_batch(shop.database, definitions, "test", deliveries([override], 1))).accepted == 1
    assert [line[:3] for line in await shop.history()] == [("new", day(0), None)]


# -- retractions -----------------------------------------------------------------------------------------------------


async def test_a_retracted_touchpoint_counts_as_never_accepted(shop: Whole) -> None:
    await shop.post("t1", "buy", 1, customer_id="c")
    await shop.post("t2", "buy", 2, customer_id="c")
    await shop.post("t3", "look", 3, customer_id="c")
    known, before = now(), await shop.history()
    assert [line[0] for line in before] == ["bought", "loyal"]
    id_ = await shop.do("DELETE", "/v1/touchpoints/t1", **AUDIT, retraction_id="r1")
    assert id_ == "r1"
    assert await shop.history() == [("bought", day(2), None, "touchpoint")]
    assert await shop.history(known_at=known) == before
    customer = await shop.get("/v1/customers/c")
    assert (customer["first_touchpoint_at"], customer["last_touchpoint_at"]) == (day(2), day(3))
    assert customer["journeys"][0]["measures"] == {"n": 1}
    receipt = await shop.get("/v1/touchpoints/t1")
    assert (receipt["status"], receipt["type"], receipt["transitions"]) == ("retracted", "buy", [])
    assert receipt["retracted_at"] > known
    posted = (await shop.get("/v1/customers/c/touchpoints"))["items"]
    assert [(one["id"], one["retracted_at"]) for one in posted] == [
        ("t3", None),
        ("t2", None),
        ("t1", receipt["retracted_at"]),
    ]
    of_it = await shop.get("/v1/touchpoints/r1")
    assert (of_it["status"], of_it["type"], of_it["customer"]) == ("applied", RETRACT, None)
    # Its id stays taken.
    await shop.post("t1", "buy", 1, customer_id="c")
    await shop.until("/v1/touchpoints/t1", "duplicates", 1)
    assert await shop.history() == [("bought", day(2), None, "touchpoint")]


async def test_a_customer_of_whom_all_was_retracted_has_no_stage(shop: Whole) -> None:
    await shop.post("t1", "buy", 1, customer_id="c")
    known = now()
    await shop.do("DELETE", "/v1/touchpoints/t1", **AUDIT)
    customer = await shop.get("/v1/customers/c")
    assert (customer["journeys"], customer["first_touchpoint_at"]) == ([], None)
    assert (await shop.get("/v1/customers/c/journeys/shop"))["stage"] is None
    assert (await shop.get("/v1/customers/c/journeys/shop", known_at=known))["stage"] == "bought"
    assert [one["id"] for one in (await shop.get("/v1/customers/c/touchpoints"))["items"]] == ["t1"]


async def test_whatever_decides_whose_it_is_can_be_retracted(shop: Whole) -> None:
    await shop.post("t1", "buy", 1, customer_id="a")
    await shop.post("t2", "buy", 2, anonymous_id="cookie")
    await shop.do("POST", "/v1/customers/a/identities", {"id": "link", "anonymous_id": "cookie"})
    await shop.do("POST", "/v1/customers/a/merge", {"id": "merge", "into": "b", **AUDIT})
    assert [line[0] for line in await shop.history("b")] == ["bought", "loyal"]
    await shop.do("DELETE", "/v1/touchpoints/link", **AUDIT)
    assert [line[0] for line in await shop.history("b")] == ["bought"]
    await shop.do("DELETE", "/v1/touchpoints/merge", **AUDIT)
    assert (await shop.get("/v1/customers/a"))["customer_id"] == "a"
    assert (await shop.get("/v1/customers/cookie", kind="anonymous_id"))["customer_id"] is None


async def test_what_cannot_be_retracted_is_refused(shop: Whole) -> None:
    await shop.post("t1", "buy", 1, customer_id="c")
    problem = await shop.ask("DELETE", "/v1/touchpoints/t2", 404, **AUDIT)
    assert problem["code"] == "touchpoint_not_found"
    assert (await shop.ask("DELETE", "/v1/touchpoints/t1", 404, source="elsewhere", **AUDIT))["code"] == (
        "touchpoint_not_found"
    )
    for parameters in ({}, {"reason": "a test"}, {"actor": "ada"}, {**AUDIT, "reason": ""}, {**AUDIT, "why": "x"}):
        assert (await shop.ask("DELETE", "/v1/touchpoints/t1", 422, **parameters))["code"] == "invalid_request"
    await shop.do("DELETE", "/v1/touchpoints/t1", retraction_id="r1", **AUDIT)
    problem = await shop.ask("DELETE", "/v1/touchpoints/r1", 409, **AUDIT)
    assert problem["code"] == "is_a_retraction"
    # Once more is no harm.
    await shop.do("DELETE", "/v1/touchpoints/t1", retraction_id="r1", **AUDIT)
    await shop.do("DELETE", "/v1/touchpoints/t1", **AUDIT)
    assert (await shop.get("/v1/touchpoints/t1"))["status"] == "retracted"


async def test_what_is_retracted_before_it_comes_has_a_receipt(shop: Whole) -> None:
    """The log's partitions are read apart, so a retraction can be faster."""
    definitions = await Definitions(shop.database, Cel()).reload()
    named = {"source": "test", "id": "t1"}
    retraction = message("r1", RETRACT, START, None, properties=named)  # type: ignore[arg-type]
    await apply_batch(shop.database, definitions, "test", deliveries([retraction]))
    receipt = await shop.get("/v1/touchpoints/t1", source="test")
    assert (receipt["status"], receipt["type"], receipt["occurred_at"]) == ("retracted", None, None)
    await apply_batch(shop.database, definitions, "test", deliveries([message("t1", "buy", START)], 1))
    receipt = await shop.get("/v1/touchpoints/t1", source="test")
    assert (receipt["status"], receipt["type"], receipt["occurred_at"]) == ("retracted", "buy", day(0))
    assert (await shop.get("/v1/customers/c"))["journeys"] == []


# -- traits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["1e999", "NaN", "-Infinity", "[1e400, 2]", "9223372036854775808"])
async def test_a_trait_that_no_store_takes_is_refused(shop: Whole, score: str) -> None:
    """And never becomes null, which would take the trait away."""
    refused = await shop.client.post(
        "/v1/customers/c/traits",
        content=f'{{"traits": {{"score": {score}}}}}',
        headers={"Content-Type": "application/json"},
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "number_out_of_range")
