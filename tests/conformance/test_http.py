"""The worked examples through the whole service, on both sets of parts."""

from __future__ import annotations

import httpx
import pytest

from tests.conformance.examples import CASES, OWN_CASES, Case
from tests.conformance.playing import activate, assert_played, post, url_and_headers

__all__ = ["url_and_headers"]


EVERY = tuple(
    case
    for case in (*CASES, *OWN_CASES)
    # No switch lies in the past, and the door refuses a stage that isn't there: these are played by fold and oracle.
    if not case.later and all(refusal.rule is not None for refusal in case.refusals)
)


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
async def test_example(url_and_headers: tuple[str, dict[str, str]], case: Case) -> None:
    """Every other example is activated only after its touchpoints have been applied: they are history by then."""
    url, headers = url_and_headers
    number = EVERY.index(case)
    lifecycle, customer_id = f"example-{number}", f"customer-{number}"
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        posted = await client.post("/v1/lifecycles", json={**case.definition, "lifecycle": lifecycle})
        assert posted.status_code == 201, posted.text
        is_early = number % 2 == 1 or any(fact["type"] == "$override" for fact in case.touchpoints)
        if is_early:
            await activate(client, lifecycle, posted.json()["version"])
        await post(client, case, customer_id, lifecycle, number)
        if not is_early:
            await activate(client, lifecycle, posted.json()["version"])
        await assert_played(client, case, customer_id, lifecycle, 20)
