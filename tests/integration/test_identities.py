"""Links, unlinks, traits, merges and unmerges over HTTP, down to what the service then answers, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.whole import AUDIT, Whole, day, now, whole
from tests.record import changes

SHOP: dict[str, Any] = {
    "lifecycle": "shop",
    "initial": "new",
    "stages": [{"key": "new"}, {"key": "bought"}, {"key": "loyal"}, {"key": "gold"}],
    "measures": {"n": {"count": "buy"}},
    "rules": [
        {"when": ["has(traits.tier) && traits.tier == 'gold'"], "to": "gold"},
        {"on": "buy", "when": ["measures.n >= 2"], "to": "loyal"},
        {"on": "buy", "to": "bought"},
        {"from": ["gold"], "when": ["!has(traits.tier)"], "to": "loyal"},
    ],
}


@pytest.fixture(params=["sqlite", "postgres"])
async def shop(request: pytest.FixtureRequest) -> AsyncIterator[Whole]:
    async with whole(str(request.getfixturevalue(f"{request.param}_url")), SHOP) as started:
        yield started


async def stage(shop: Whole, customer_id: str, **parameters: Any) -> str | None:
    answer = await shop.get(f"/v1/customers/{customer_id}/journeys/shop", **parameters)
    return str(answer["stage"]) if answer["stage"] is not None else None


async def test_a_link_brings_the_past_along_and_an_unlink_takes_it_away(shop: Whole) -> None:
    await shop.post("t1", "buy", 1, anonymous_id="cookie")
    await shop.post("t2", "buy", 2, customer_id="42")
    apart, ago = await shop.get("/v1/customers/42"), now()
    alone = await shop.get("/v1/customers/cookie", kind="anonymous_id")
    link = await shop.do("POST", "/v1/customers/42/identities", {"anonymous_id": "cookie", "occurred_at": day(9)})
    linked, then = await shop.get("/v1/customers/42"), now()
    assert linked["identities"] == [
        {"kind": "anonymous_id", "value": "cookie"},
        {"kind": "customer_id", "value": "42"},
    ]
    (journey,) = linked["journeys"]
    assert (journey["stage"], journey["sequence"], journey["measures"]) == ("loyal", 2, {"n": 2})
    assert (linked["first_touchpoint_at"], linked["last_touchpoint_at"]) == (day(1), day(2)), "a link is none"
    for path in ("", "/journeys/shop", "/history", "/touchpoints", "/identities"):
        by_id = await shop.get(f"/v1/customers/42{path}")
        assert await shop.get(f"/v1/customers/cookie{path}", kind="anonymous_id") == by_id
    assert await shop.history("42") == [
        ("bought", day(1), day(2), "touchpoint"),
        ("loyal", day(2), None, "touchpoint"),
    ]
    posted = (await shop.get("/v1/customers/42/touchpoints"))["items"]
    assert [one["id"] for one in posted] == ["t2", "t1"]
    facts = (await shop.get("/v1/customers/42/touchpoints", include="facts"))["items"]
    assert [(one["id"], one["type"], one["anonymous_id"]) for one in facts] == [
        (link, "$link", "cookie"),
        ("t2", "buy", None),
        ("t1", "buy", "cookie"),
    ]
    # What was known before is answered as before.
    assert await stage(shop, "42", known_at=ago) == "bought"
    assert await shop.history("42", known_at=ago) == [("bought", day(2), None, "touchpoint")]
    assert await shop.history("cookie", kind="anonymous_id", known_at=ago) == [("bought", day(1), None, "touchpoint")]
    answer = await shop.get("/v1/customers/cookie/journeys/shop", kind="anonymous_id", known_at=ago)
    assert (answer["customer_id"], answer["stage"]) == (None, "bought")
    (own,) = (await shop.get("/v1/customers/42/identities", known_at=ago))["items"]
    assert own == {"kind": "customer_id", "value": "42", "recorded_at": None}
    cookie, own = (await shop.get("/v1/customers/42/identities"))["items"]
    assert (cookie["value"], own["value"]) == ("cookie", "42")
    assert ago < cookie["recorded_at"] <= then
    assert {"customer.merged"} <= {told["type"] for told in await changes(shop.database, "42")}

    await shop.do("DELETE", "/v1/customers/42/identities/cookie", **AUDIT)
    parted = await shop.get("/v1/customers/42")
    assert (parted["journeys"][0].pop("sequence"), apart["journeys"][0].pop("sequence")) == (3, 1)
    assert parted == apart
    again = await shop.get("/v1/customers/cookie", kind="anonymous_id")
    assert (again["customer_id"], again["journeys"][0]["stage"]) == (None, alone["journeys"][0]["stage"])
    assert await stage(shop, "42", known_at=then) == "loyal", "it was known then"
    assert await stage(shop, "cookie", kind="anonymous_id", known_at=then) == "loyal"

    # After an unlink only an operator's link counts.
    await shop.post("t3", "look", 3, customer_id="42", anonymous_id="cookie")
    assert await stage(shop, "42") == "bought"
    parted_at = now()
    await shop.do("POST", "/v1/customers/42/identities", {"anonymous_id": "cookie", **AUDIT})
    assert await stage(shop, "42") == "loyal"
    cookie, own = (await shop.get("/v1/customers/42/identities"))["items"]
    assert (cookie["recorded_at"] > parted_at, own["value"]) == (True, "42")


async def test_identities_come_in_pages(shop: Whole) -> None:
    cookies = [f"a{number}" for number in range(5)]
    ids = [(await shop.ask("POST", "/v1/customers/42/identities", 202, {"anonymous_id": one}))["id"] for one in cookies]
    await asyncio.gather(*(shop.applied(id_) for id_ in ids))
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await shop.get("/v1/customers/42/identities", limit=2, **cursor)
        seen += [one["value"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [*cookies, "42"]
    assert (await shop.get("/v1/customers/43/identities", 404))["code"] == "customer_not_found"
    assert (await shop.get("/v1/customers/a1/identities", 400, kind="anonymous_id", **cursor))["code"] == (
        "invalid_cursor"
    )


async def test_traits_decide_by_event_time(shop: Whole) -> None:
    await shop.post("t1", "buy", 1, customer_id="c")
    await shop.do("POST", "/v1/customers/c/traits", {"traits": {"tier": "gold", "seats": 3}, "occurred_at": day(5)})
    answer = await shop.get("/v1/customers/c")
    assert (answer["traits"], answer["journeys"][0]["stage"]) == ({"tier": "gold", "seats": 3}, "gold")
    assert answer["last_touchpoint_at"] == day(1), "no touchpoint"
    late = await shop.do("POST", "/v1/customers/c/traits", {"traits": {"tier": "gold"}, "occurred_at": day(2)})
    assert await shop.history() == [("bought", day(1), day(2), "touchpoint"), ("gold", day(2), None, "condition")]
    receipt = await shop.get(f"/v1/touchpoints/{late}")
    assert (receipt["status"], receipt["type"]) == ("late", "$identify")
    assert [one["stage"] for one in receipt["transitions"]] == ["gold"]
    await shop.do("POST", "/v1/customers/c/traits", {"traits": {"tier": None}, "anonymous_id": "cookie"})
    answer = await shop.get("/v1/customers/cookie", kind="anonymous_id")
    assert (answer["customer_id"], answer["traits"], answer["journeys"][0]["stage"]) == ("c", {"seats": 3}, "loyal")


async def test_a_merge_makes_two_customers_one_and_an_unmerge_two_again(shop: Whole) -> None:
    await shop.post("t1", "buy", 1, customer_id="old", anonymous_id="cookie")
    await shop.post("t2", "buy", 2, customer_id="new")
    ago = now()
    merge = {"into": "new", **AUDIT}
    id_ = await shop.do("POST", "/v1/customers/old/merge", {"id": "m1", **merge})
    then = now()
    one = await shop.get("/v1/customers/new")
    assert one["customer_id"] == "new"
    assert [identity["value"] for identity in one["identities"]] == ["cookie", "new", "old"]
    assert one["journeys"][0]["stage"] == "loyal"
    for path in ("", "/journeys/shop", "/history", "/touchpoints", "/identities"):
        by_name = await shop.get(f"/v1/customers/new{path}")
        assert await shop.get(f"/v1/customers/old{path}") == by_name
        assert await shop.get(f"/v1/customers/cookie{path}", kind="anonymous_id") == by_name
    assert [item["id"] for item in (await shop.get("/v1/customers/old/touchpoints"))["items"]] == ["t2", "t1"]
    assert (await stage(shop, "old", known_at=ago), await stage(shop, "new", known_at=ago)) == ("bought", "bought")
    (told,) = [told for told in await changes(shop.database, "new") if told["type"] == "customer.merged"]
    assert (told["customer_id"], told["merged"]) == ("new", {"kind": "customer_id", "value": "old"})
    receipt = await shop.get(f"/v1/touchpoints/{id_}")
    assert (receipt["status"], receipt["type"], receipt["transitions"]) == ("applied", "$merge", [])
    assert receipt["customer"] == {"kind": "customer_id", "value": "old"}
    (fact,) = [item for item in (await facts(shop, "new")) if item["type"] == "$merge"]
    assert fact["properties"] == merge

    linked = await shop.ask("DELETE", "/v1/customers/new/identities/cookie", 409)
    assert linked["code"] == "linked_to_another"
    assert "part it from 'old'" in linked["detail"]

    await shop.do("POST", "/v1/customers/old/unmerge", AUDIT)
    assert await shop.history("old") == [("bought", day(1), None, "touchpoint")]
    assert await shop.history("new") == [("bought", day(2), None, "touchpoint")]
    assert (await shop.get("/v1/customers/cookie", kind="anonymous_id"))["customer_id"] == "old"
    assert await stage(shop, "old", known_at=then) == "loyal"


async def facts(shop: Whole, customer_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await shop.get(f"/v1/customers/{customer_id}/touchpoints", include="facts"))["items"]
    return items


async def test_a_merge_that_cannot_be_meant_is_refused(shop: Whole) -> None:
    await shop.do("POST", "/v1/customers/a/merge", {"into": "b", "id": "ab", "occurred_at": day(5), **AUDIT})
    await shop.do("POST", "/v1/customers/b/merge", {"into": "c", **AUDIT})
    await shop.post("t1", "look", 1, customer_id="c")

    async def refused(customer_id: str, status: int, **body: Any) -> str:
        return str((await shop.ask("POST", f"/v1/customers/{customer_id}/merge", status, {**AUDIT, **body}))["code"])

    assert await refused("a", 422, into="a") == "merged_into_itself"
    assert await refused("a", 409, into="d") == "already_merged"
    assert await refused("c", 409, into="a") == "circular_merge"
    assert await refused("c", 409, into="b") == "circular_merge"
    assert await refused("a", 409, into="b", occurred_at=day(4)) == "decided_later"
    for path in ("merge", "unmerge"):
        problem = await shop.ask("POST", f"/v1/customers/d/{path}", 422, {"into": "a"} if path == "merge" else {})
        assert {one["pointer"] for one in problem["problems"]} == {"/reason", "/actor"}
    problem = await shop.ask("POST", "/v1/customers/d/unmerge", 409, AUDIT)
    assert problem["code"] == "not_merged"
    problem = await shop.ask("POST", "/v1/customers/a/unmerge", 409, {"occurred_at": day(4), **AUDIT})
    assert problem["code"] == "decided_later"
    await shop.do("POST", "/v1/customers/a/unmerge", AUDIT)
    assert (await shop.ask("POST", "/v1/customers/a/unmerge", 409, AUDIT))["code"] == "not_merged"
    # The same entry again is a duplicate, whatever has become of it.
    await shop.do("POST", "/v1/customers/a/merge", {"into": "b", "id": "ab", "occurred_at": day(5), **AUDIT})
    await shop.until("/v1/touchpoints/ab", "duplicates", 1)
    await shop.do("POST", "/v1/customers/c/merge", {"into": "a", **AUDIT})
    assert (await shop.get("/v1/customers/c/identities"))["items"][0]["value"] == "a"


async def test_an_unmerge_may_follow_on_the_heels_of_its_merge(shop: Whole) -> None:
    await shop.post("t1", "look", 1, customer_id="a")
    for number in range(3):
        await shop.ask("POST", "/v1/customers/a/merge", 202, {"into": f"b{number}", **AUDIT})
        await shop.do("POST", "/v1/customers/a/unmerge", AUDIT)
    assert [one["value"] for one in (await shop.get("/v1/customers/a"))["identities"]] == ["a"]


async def test_an_entry_sent_twice_takes_effect_once(shop: Whole) -> None:
    body = {"id": "l1", "anonymous_id": "cookie", "reason": "they told us"}
    for _ in range(2):
        await shop.do("POST", "/v1/customers/42/identities", body)
    await shop.do("POST", "/v1/customers/43/identities", body)
    receipt = await shop.until("/v1/touchpoints/l1", "conflicts", 1)
    assert receipt["duplicates"] == 1
    assert (await shop.get("/v1/customers/42"))["identities"][0]["value"] == "cookie"


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("identities", {}, "/anonymous_id"),
        ("identities", {"anonymous_id": ""}, "/anonymous_id"),
        ("identities", {"anonymous_id": "a" * 257}, "/anonymous_id"),
        ("identities", {"anonymous_id": "a", "customer_id": "b"}, "/customer_id"),
        ("identities", {"anonymous_id": "a", "id": "i" * 129}, "/id"),
        ("identities", {"anonymous_id": "a", "occurred_at": "yesterday"}, "/occurred_at"),
        ("identities", {"anonymous_id": "a", "occurred_at": 1767225600000000}, "/occurred_at"),
        ("identities", {"anonymous_id": "a", "reason": ""}, "/reason"),
        ("identities", {"anonymous_id": "a", "reason": "r" * 501}, "/reason"),
        ("traits", {"traits": []}, "/traits"),
        ("traits", {"plan": "pro"}, "/traits"),
        ("merge", {"into": 43, **AUDIT}, "/into"),
    ],
)
async def test_what_is_wrong_with_an_entry_is_told(
    sqlite_url: str, path: str, body: dict[str, Any], pointer: str
) -> None:
    async with whole(sqlite_url, SHOP) as shop:
        problem = await shop.ask("POST", f"/v1/customers/42/{path}", 422, body)
        assert problem["code"] == "invalid_request"
        assert pointer in {one["pointer"] for one in problem["problems"]}


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"anonymous_id": "a\u0000"}, "invalid_character", "/anonymous_id"),
        ({"anonymous_id": "a\u0007"}, "control_character", "/anonymous_id"),
        ({"anonymous_id": "a", "id": "a\n"}, "control_character", "/id"),
        ({"anonymous_id": "a", "occurred_at": "1899-01-01T00:00:00Z"}, "invalid_time", "/occurred_at"),
        ({"anonymous_id": "a", "occurred_at": "2999-01-01T00:00:00Z"}, "in_the_future", "/occurred_at"),
        ({"traits": {"x": 2**63}}, "number_out_of_range", "/traits/x"),
        ({"traits": {"x": "\u0000"}}, "invalid_character", "/traits/x"),
    ],
)
async def test_the_way_in_refuses_what_no_store_takes(
    sqlite_url: str, body: dict[str, Any], code: str, pointer: str
) -> None:
    async with whole(sqlite_url, SHOP) as shop:
        path = "traits" if "traits" in body else "identities"
        problem = await shop.ask("POST", f"/v1/customers/42/{path}", 422, body)
        assert (problem["code"], problem["pointer"]) == (code, pointer)


async def test_a_parameter_that_would_be_misunderstood_is_refused(sqlite_url: str) -> None:
    async with whole(sqlite_url, SHOP) as shop:
        for path, body in (("identities", {"anonymous_id": "a"}), ("traits", {"traits": {}})):
            problem = await shop.ask("POST", f"/v1/customers/42/{path}", 422, body, kind="anonymous_id")
            assert "kind" in problem["detail"]
        problem = await shop.ask("DELETE", "/v1/customers/42/identities/a", 422, kind="anonymous_id")
        assert "kind" in problem["detail"]


async def test_the_worked_example_of_the_documentation(shop: Whole) -> None:
    """docs/identity.md, "A visitor signs up, and was somebody else"."""

    async def owner() -> str | None:
        customer_id = (await shop.get("/v1/customers/3f1c", kind="anonymous_id"))["customer_id"]
        return str(customer_id) if customer_id is not None else None

    await shop.post("click", "ad_click", 1, anonymous_id="3f1c")
    assert await owner() is None
    await shop.post("signup", "signup", 3, anonymous_id="3f1c", customer_id="42")
    assert await owner() == "42"
    assert (await shop.history("42"))[0][:2] == ("new", day(1))
    await shop.post("purchase", "buy", 5, anonymous_id="3f1c", customer_id="99")
    assert await owner() == "42"
    assert await shop.history("99") == [("bought", day(5), None, "touchpoint")]
    await shop.do("DELETE", "/v1/customers/42/identities/3f1c", occurred_at=day(6))
    assert await owner() == "99"
    assert (await shop.history("99"))[0][:2] == ("new", day(1))
    await shop.do("DELETE", "/v1/customers/99/identities/3f1c", occurred_at=day(7))
    assert await owner() is None
    assert await shop.history("3f1c", kind="anonymous_id") == [("new", day(1), None, "touchpoint")]
    await shop.do("POST", "/v1/customers/42/identities", {"anonymous_id": "3f1c", "occurred_at": day(8)})
    assert await owner() == "42"
