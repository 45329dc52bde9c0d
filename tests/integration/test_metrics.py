"""The counters of a running process: what it has done, and the guards that erred on odd data."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from tests.processes import Service, settings_for, wait_until


async def counters(client: httpx.AsyncClient) -> dict[str, float]:
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return {name: float(value) for name, value in re.findall(r"(?m)^(lifecycle_engine_\S+) (\S+)$", answer.text)}


async def test_what_a_process_has_done(installed_sqlite_url: str, tmp_path: Path) -> None:
    settings = settings_for(installed_sqlite_url)
    service = Service(("api", "worker", "timers"), settings, tmp_path)
    await service.start()
    try:
        headers = {"Authorization": f"Bearer {service.settings['LIFECYCLE_API_KEY']}"}
        async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:
            assert (await client.get("/metrics")).status_code == 401
            client.headers.update(headers)
            before = await counters(client)
            # The first rating is a text: the guard that asks for a number errs on it, and that stops nothing.
            for number, rating in enumerate(("five", 5)):
                body = {"id": f"t{number}", "type": "review", "customer_id": "c", "properties": {"rating": rating}}
                assert (await client.post("/v1/touchpoints", json=body)).status_code == 202

            async def applied() -> bool:
                return (await counters(client))["lifecycle_engine_records_total"] == 2

            await wait_until(applied, "both are applied", 10)
            after = await counters(client)
    finally:
        assert await service.stop() == 0
    assert before["lifecycle_engine_records_total"] == 0
    assert after["lifecycle_engine_facts_accepted_total"] == 2
    assert after["lifecycle_engine_dead_letters_total"] == 0
    assert after['lifecycle_engine_guard_errors_total{lifecycle="five-stages",version="1"}'] == 1
