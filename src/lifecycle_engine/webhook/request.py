"""What goes with a message's body: the headers of one attempt, by the Standard Webhooks specification."""

from __future__ import annotations

from collections.abc import Iterable

from lifecycle_engine.webhook.signing import Secret, sign


def headers(secrets: Iterable[Secret], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of an attempt; `timestamp` is that of the attempt, in seconds since the epoch."""
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, message_id, timestamp, body),
    }
