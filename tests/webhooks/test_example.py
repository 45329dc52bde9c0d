"""The example receiver: alone, and at the end of the way that the README shows."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lifecycle_engine.webhook.request import headers
from lifecycle_engine.webhook.signing import generate_secret, parse_secret
from tests.processes import API_KEY, Service, settings_for, wait_until
from tests.webhooks.telling import ENDPOINTS
from tools.services import free_port

ROOT = Path(__file__).parents[2]
SECRET = generate_secret("v1")


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    spec = importlib.util.spec_from_file_location("receiver", ROOT / "examples" / "receiver" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    transport = httpx.ASGITransport(module.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
        yield client


def changed(sequence: int, to: str, **fields: Any) -> bytes:
    data = {"customer_id": "ada", "lifecycle": "shop", "subject": None, "to": to, "sequence": sequence, **fields}
    return json.dumps({"type": "stage.changed", "timestamp": "2026-03-01T12:00:00Z", "data": data}).encode()


async def send(client: httpx.AsyncClient, id_: str, body: bytes, secret: str = SECRET) -> int:
    signed = headers([parse_secret(secret)], id_, int(time.time()), body)
    return (await client.post("/hook", content=body, headers=signed)).status_code


async def test_it_verifies_passes_over_and_orders(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await send(client, "msg_1", changed(1, "new")) == 204
    assert await send(client, "msg_3", changed(3, "loyal")) == 204
    assert await send(client, "msg_2", changed(2, "bought")) == 204
    assert await send(client, "msg_3", changed(3, "loyal")) == 204
    assert await send(client, "msg_4", changed(1, "new", customer_id="bob")) == 204
    assert await send(client, "msg_5", b'{"type": "customer.merged", "data": {}}') == 204
    assert capsys.readouterr().out.splitlines() == [
        "ada is in new, and was in nowhere",
        "ada is in loyal, and was in new",
        "change 2 of ada is old, 3 is known",
        "msg_3 again, passed over",
        "bob is in new, and was in nowhere",
    ]
    assert await send(client, "msg_6", changed(4, "new"), generate_secret("v1")) == 401
    assert (await client.post("/hook", content=changed(4, "new"))).status_code == 401
    signed = headers([parse_secret(SECRET)], "msg_7", int(time.time()), changed(4, "new"))
    for name, value in (("webhook-signature", "v1"), ("webhook-timestamp", "1"), ("webhook-id", "msg_8")):
        wrong = {**signed, name: value}
        assert (await client.post("/hook", content=changed(4, "new"), headers=wrong)).status_code == 401
    assert capsys.readouterr().out == ""


def test_it_is_as_short_as_it_says() -> None:
    assert len((ROOT / "examples" / "receiver" / "app.py").read_text().splitlines()) <= 35


async def test_a_change_arrives_at_it(installed_sqlite_url: str, tmp_path: Path) -> None:
    """The README's way, with processes of its own."""
    settings = settings_for(installed_sqlite_url) | {"LIFECYCLE_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8"}
    port = free_port()
    async with Service(["api", "worker", "dispatcher", "timers"], settings, tmp_path) as service:
        async with service.client() as client:
            created = await client.post(ENDPOINTS, json={"url": f"http://127.0.0.1:{port}/hook"})
            assert created.status_code == 201, created.text
            command = (sys.executable, "-m", "uvicorn", "examples.receiver.app:app", "--port", str(port))
            receiver = await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                env={**os.environ, "WEBHOOK_SECRET": created.json()["secret"]},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert receiver.stdout is not None
            try:
                await wait_until(lambda: _listens(port), "the receiver listens")
                body = {"id": "t1", "type": "purchase", "customer_id": "eva"}
                assert (await client.post("/v1/touchpoints", json=body)).status_code == 202
                async with asyncio.timeout(20):
                    line = await receiver.stdout.readuntil(b"nowhere\n")
                assert b"eva is in purchase, and was in nowhere" in line
            finally:
                receiver.terminate()
                await receiver.communicate()
    assert API_KEY not in line.decode()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
