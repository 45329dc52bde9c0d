"""The worked customers through the whole service, on both sets of parts: the history that the pages show."""

from __future__ import annotations

import httpx
import pytest

from tests.conformance.playing import activate, assert_played, post, url_and_headers
from tests.lifecycles.customers import CUSTOMERS

__all__ = ["url_and_headers"]


@pytest.mark.parametrize("key", CUSTOMERS)
async def test_worked_customer(url_and_headers: tuple[str, dict[str, str]], key: str) -> None:
    """Every other lifecycle is activated only after its touchpoints have been applied: they are history by then."""
    url, headers = url_and_headers
    case, number = CUSTOMERS[key], list(CUSTOMERS).index(key)
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        if number % 2:
            await activate(client, key, 1)
        await post(client, case, key, key, number)
        if not number % 2:
            await activate(client, key, 1)
        await assert_played(client, case, key, key, 30)
