"""The worked examples through the whole service, on both sets of parts."""

from __future__ import annotations

import httpx
import pytest

from tests.conformance.examples import CASES, Case
from tests.conformance.playing import activate, assert_played, post, url_and_headers

__all__ = ["url_and_headers"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_example(url_and_headers: tuple[str, dict[str, str]], case: Case) -> None:
    """Every other example is activated only after its touchpoints have been applied: they are history by then."""
    url, headers = url_and_headers
    number = CASES.index(case)
    lifecycle, customer_id = f"example-{number}", f"customer-{number}"
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        posted = await client.post("/v1/lifecycles", json={**case.definition, "lifecycle": lifecycle})
        assert posted.status_code == 201, posted.text
        if number % 2:
            await activate(client, lifecycle, posted.json()["version"])
        await post(client, case, customer_id, number)
        if not number % 2:
            await activate(client, lifecycle, posted.json()["version"])
        await assert_played(client, case, customer_id, lifecycle, 20)
