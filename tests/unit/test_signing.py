"""Signatures: the specification's own vectors, and what verifies them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from lifecycle_engine.webhook.signing import Asymmetric, SecretError, generate_secret, parse_secret, sign

MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PAIR = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
SEED = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="


@pytest.mark.parametrize(
    ("secret", "signature"),
    [
        (SECRET, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        (
            PAIR,
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
        ),
        (
            SEED,
            "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==",
        ),
    ],
)
def test_the_vectors_of_the_specification(secret: str, signature: str) -> None:
    assert sign([parse_secret(secret)], MESSAGE, TIMESTAMP, BODY) == signature


def test_the_public_key_is_of_the_pair() -> None:
    for text in (PAIR, "whsk_" + base64.b64encode(base64.b64decode(PAIR.removeprefix("whsk_"))[:32]).decode()):
        secret = parse_secret(text)
        assert isinstance(secret, Asymmetric)
        assert secret.public == PUBLIC


def test_the_symmetric_ones_come_first() -> None:
    new, old = generate_secret("v1"), generate_secret("v1")
    newer, older = generate_secret("v1a"), generate_secret("v1a")
    using = [parse_secret(text) for text in (newer, new, older, old)]
    signatures = sign(using, MESSAGE, TIMESTAMP, BODY).split(" ")
    expected = [sign([parse_secret(text)], MESSAGE, TIMESTAMP, BODY) for text in (new, old, newer, older)]
    assert signatures == expected
    assert [one.partition(",")[0] for one in signatures] == ["v1", "v1", "v1a", "v1a"]


@pytest.mark.parametrize("kind", ["v1", "v1a"])
def test_each_new_secret_is_another(kind: str) -> None:
    assert len({generate_secret(kind) for _ in range(100)}) == 100  # type: ignore[arg-type]


@given(st.binary(min_size=24, max_size=64), st.integers(0, 2**33), st.text())
def test_v1_is_the_hmac_of_the_specification(key: bytes, timestamp: int, text: str) -> None:
    body = text.encode(errors="replace")
    secret = parse_secret("whsec_" + base64.b64encode(key).decode())
    signed = b"%b.%d.%b" % (MESSAGE.encode(), timestamp, body)
    digest = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert sign([secret], MESSAGE, timestamp, body) == f"v1,{digest}"


def test_v1a_verifies_and_nothing_else_does() -> None:
    secret = parse_secret(generate_secret("v1a"))
    assert isinstance(secret, Asymmetric)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(secret.public.removeprefix("whpk_")))
    signature = base64.b64decode(sign([secret], MESSAGE, TIMESTAMP, BODY).removeprefix("v1a,"))
    key.verify(signature, b"%b.%d.%b" % (MESSAGE.encode(), TIMESTAMP, BODY))
    with pytest.raises(InvalidSignature):
        key.verify(signature, b"%b.%d.%b" % (MESSAGE.encode(), TIMESTAMP + 1, BODY))


def test_a_receiver_verifies_during_a_rotation() -> None:
    old, new, pair = generate_secret("v1"), generate_secret("v1"), generate_secret("v1a")
    now = int(datetime.now(UTC).timestamp())
    body = '{"type":"stage.changed","data":{"to":"Осведомлённость"}}'.encode()

    def headers(*using: str) -> dict[str, str]:
        signature = sign([parse_secret(text) for text in using], MESSAGE, now, body)
        return {"webhook-id": MESSAGE, "webhook-timestamp": str(now), "webhook-signature": signature}

    for text in (old, new):
        assert Webhook(text).verify(body, headers(new, old, pair))["type"] == "stage.changed"
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(body, headers(new, pair))
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body + b" ", headers(new, old, pair))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begins with whsec_ or whsk_"),
        (PUBLIC, "begins with whsec_ or whsk_"),
        ("whsec_%%%", "not base64"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), "24 to 64 bytes in base64, not by 23"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "not by 65"),
        ("whsk_" + base64.b64encode(b"x" * 33).decode(), "32 or 64 bytes in base64, not by 33"),
        ("whsk_" + base64.b64encode(b"x" * 64).decode(), "not of one key pair"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_repeated(text: str, says: str) -> None:
    with pytest.raises(SecretError, match=says) as caught:
        parse_secret(text)
    assert len(text) < 12 or text[8:] not in str(caught.value)
