"""Secrets and signatures by the Standard Webhooks specification. Pure; whoever sends brings the time along.

What is signed is `id.timestamp.body`, byte for byte. `v1` is HMAC-SHA256 under a secret that both sides know
(`whsec_`), `v1a` is ed25519 under a key (`whsk_`) of which the receiver has the public half (`whpk_`).
Source: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook

Kind = Literal["v1", "v1a"]
KINDS: tuple[Kind, ...] = ("v1", "v1a")
"""The schemes, in the order in which signatures stand in a header: libraries that know only `v1` find it first."""

SYMMETRIC, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"
SECRET_BYTES = 32
"""Of a secret that is made here; one that comes from elsewhere has 24 to 64."""
_SEED_BYTES = 32


class SecretError(ValueError):
    """A text that is no secret; says why, and never repeats it."""


@dataclass(frozen=True, slots=True)
class Symmetric:
    """A secret of scheme `v1`."""

    _webhook: Webhook
    kind: Kind = "v1"

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """One signature; `timestamp` in seconds since the epoch, `body` in UTF-8."""
        return self._webhook.sign(message_id, datetime.fromtimestamp(timestamp, UTC), body.decode())


@dataclass(frozen=True, slots=True)
class Asymmetric:
    """A key pair of scheme `v1a`."""

    _key: Ed25519PrivateKey
    kind: Kind = "v1a"

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """One signature; `timestamp` in seconds since the epoch."""
        signature = self._key.sign(b"%b.%d.%b" % (message_id.encode(), timestamp, body))
        return f"v1a,{base64.b64encode(signature).decode()}"

    @property
    def public(self) -> str:
        """What the receiver verifies with."""
        return PUBLIC + base64.b64encode(self._key.public_key().public_bytes_raw()).decode()


Secret = Symmetric | Asymmetric


def parse_secret(text: str) -> Secret:
    """A secret from its text: `whsec_` and 24 to 64 bytes, or `whsk_` and a seed of 32, with or without its public key.

    Raises SecretError.
    """
    if text.startswith(SYMMETRIC):
        key = _decoded(text.removeprefix(SYMMETRIC))
        if not 24 <= len(key) <= 64:
            raise SecretError(f"{SYMMETRIC} is followed by 24 to 64 bytes in base64, not by {len(key)}")
        return Symmetric(Webhook(key))
    if text.startswith(PRIVATE):
        pair = _decoded(text.removeprefix(PRIVATE))
        if len(pair) not in (_SEED_BYTES, 2 * _SEED_BYTES):
            raise SecretError(f"{PRIVATE} is followed by 32 or 64 bytes in base64, not by {len(pair)}")
        private = Ed25519PrivateKey.from_private_bytes(pair[:_SEED_BYTES])
        if pair[_SEED_BYTES:] not in (b"", private.public_key().public_bytes_raw()):
            raise SecretError(f"the two halves behind {PRIVATE} are not of one key pair")
        return Asymmetric(private)
    raise SecretError(f"a secret begins with {SYMMETRIC} or {PRIVATE}")


def generate_secret(kind: Kind) -> str:
    """The text of a new secret of a scheme."""
    if kind == "v1":
        return SYMMETRIC + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    key = Ed25519PrivateKey.generate()
    pair = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    return PRIVATE + base64.b64encode(pair).decode()


def sign(using: Iterable[Secret], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of the header `webhook-signature`: `using` are the newest secret first, then older ones still accepted.

    `timestamp` is in seconds since the epoch; `body` is JSON in UTF-8. All `v1` come before all `v1a`.
    """
    ordered = sorted(using, key=lambda secret: KINDS.index(secret.kind))
    return " ".join(secret.sign(message_id, timestamp, body) for secret in ordered)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SecretError("what follows the prefix of a secret is not base64") from None
