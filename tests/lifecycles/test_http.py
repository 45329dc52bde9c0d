"""The worked customers through the whole service, on both sets of parts: the history that the pages show."""

from __future__ import annotations

import httpx
import pytest

from tests.conformance.test_http import (
    _activate,
    _assert_as_of,
    _history,
    _post,
    url_and_headers,
)
from tests.lifecycles.customers import CUSTOMERS
from tests.processes import wait_until

__all__ = ["url_and_headers"]


@pytest.mark.parametrize("key", CUSTOMERS)
async def test_worked_customer(url_and_headers: tuple[str, dict[str, str]], key: str) -> None:
    """Every other lifecycle is activated only after its touchpoints have been applied: they are history by then."""
    url, headers = url_and_headers
    case, number = CUSTOMERS[key], list(CUSTOMERS).index(key)
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        if number % 2:
            await _activate(client, key, 1)
        await _post(client, case, key, number)
        if not number % 2:
            await _activate(client, key, 1)

        async def is_there() -> bool:
            return await _history(client, key, key) == (case.journeys, case.refusals)

        try:
            await wait_until(is_there, "the history of the worked customer, its timers fired", 30)
        except TimeoutError:
            assert await _history(client, key, key) == (case.journeys, case.refusals)
        await _assert_as_of(client, key, key, case)
