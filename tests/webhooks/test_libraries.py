"""Whatever is sent verifies with the libraries that subscribers use, in Python and in JavaScript, at any time."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from tests.clients.packages import PROGRAMS, node
from tests.integration.whole import Whole
from tests.receiver import Request
from tests.webhooks.telling import ENDPOINTS, SHOP, Told, receiving, telling


async def by_npm(cases: list[tuple[str, Request]]) -> list[bool | str]:
    binary, environment = await asyncio.to_thread(node)
    told = [
        {"secret": secret, "headers": dict(request.headers), "body": request.body.decode()} for secret, request in cases
    ]
    running = await asyncio.create_subprocess_exec(
        binary, PROGRAMS / "standardwebhooks_node.js", env=environment,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await asyncio.wait_for(running.communicate(json.dumps(told).encode()), 60)
    assert running.returncode == 0, error.decode()
    verified: list[bool | str] = json.loads(out)
    return verified


def by_python(secret: str, request: Request) -> bool | str:
    try:
        Webhook(secret).verify(request.body, dict(request.headers))
    except WebhookVerificationError as error:
        return str(error)
    return True


def by_hand(public_key: str, request: Request) -> bool:
    """No library verifies `v1a`; the specification says how."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    head = request.headers
    signed = f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + request.body
    for signature in head["webhook-signature"].split(" "):
        scheme, _, value = signature.partition(",")
        if scheme == "v1a":
            try:
                key.verify(base64.b64decode(value), signed)
            except InvalidSignature:
                continue
            return True
    return False


async def told_once_more(hooks: Whole, told: Told) -> Request:
    number = len(told.requests) + 1
    await hooks.post(f"t{number}", "buy" if number % 2 else "leave", number, customer_id="Åsa 日本")
    await told.count(number)
    return told.requests[-1]


async def test_every_signature_verifies_during_a_rotation_too(sqlite_url: str) -> None:
    async with telling(sqlite_url, SHOP) as hooks, receiving() as (told, receiver):
        fields = {"url": receiver.url(), "signatures": ["v1", "v1a"]}
        first: dict[str, Any] = await hooks.ask("POST", ENDPOINTS, 201, fields)
        rotation = f"{ENDPOINTS}/{first['id']}/secret/rotate"
        before = await told_once_more(hooks, told)
        second = await hooks.ask("POST", rotation, 200, {"grace_seconds": 600})
        pair = await hooks.ask("POST", rotation, 200, {"grace_seconds": 600, "kind": "v1a"})
        during = await told_once_more(hooks, told)
        third = await hooks.ask("POST", rotation, 200, {"grace_seconds": 600})
        later = await told_once_more(hooks, told)
        fourth = await hooks.ask("POST", rotation, 200, {"grace_seconds": 0})
        after = await told_once_more(hooks, told)
        tested = await hooks.ask("POST", f"{ENDPOINTS}/{first['id']}/test", 200)
        (test,) = [one for one in told.requests if one.headers["webhook-id"] == tested["message_id"]]
    one, two, three, four = (made["secret"] for made in (first, second, third, fourth))
    good = [
        (one, before),
        *((secret, during) for secret in (one, two)),
        *((secret, later) for secret in (one, two, three)),
        (four, after),
        (four, test),
    ]
    changed = after._replace(body=after.body.replace(b"shop", b"shot"))
    renamed = after._replace(headers={**after.headers, "webhook-id": before.headers["webhook-id"]})
    bad = [(two, before), (three, during), (three, after), (one, test), (four, changed), (four, renamed)]
    schemes = [
        [part.partition(",")[0] for part in request.headers["webhook-signature"].split(" ")] for _, request in good
    ]
    assert schemes[1] == ["v1", "v1", "v1a", "v1a"]
    assert schemes[3] == ["v1", "v1", "v1", "v1a", "v1a"]
    assert [by_python(*case) for case in good] == [True] * len(good)
    assert True not in [by_python(*case) for case in bad]
    found = await by_npm(good + bad)
    assert found[: len(good)] == [True] * len(good)
    assert found[len(good) :] == ["No matching signature found"] * len(bad)
    for request in (before, during, later, after):
        assert by_hand(first["public_key"], request)
        assert by_hand(pair["public_key"], request) is (request is not before)
