"""The AsyncAPI document: the topic and its message, for whoever writes to it; docs/message.md says it in words."""

from __future__ import annotations

from typing import Any

from lifecycle_engine.log.kafka.connection import RETENTION_MS
from lifecycle_engine.log.message import message_schema

_DESCRIPTIONS = {
    "id": "Within its source it takes effect once, for ever; the same id with other content is recorded as a conflict.",
    "source": "Who says so. Over HTTP, what the API key carries.",
    "type": "What happened. Types that begin with `$` are reserved for facts that are not touchpoints.",
    "customer_id": "Whom it is about. At least one of `customer_id` and `anonymous_id` is needed.",
    "anonymous_id": "Whom it is about, as long as it is not known who that is.",
    "occurred_at": "RFC 3339 with an offset, from 1900 on. Absent: `received_at` counts.",
    "received_at": "RFC 3339 with an offset: when the writer took it in. Not part of the content.",
    "corrected_at": "RFC 3339 with an offset: when it occurred by the writer's clock, where the poster's is wrong. "
    "Counts in the place of `occurred_at`, and is not part of the content.",
    "properties": "What guards and measures read: finite numbers, integers within 64 bits, no NUL, at most 32 levels.",
    "context": "Where it came from: channel, campaign, source …; the same limits.",
    "muted": "It makes history, but nobody is told of what it alone causes (an import).",
}
_EXAMPLE = {
    "id": "order-1001",
    "source": "webshop",
    "type": "purchase",
    "customer_id": "42",
    "occurred_at": "2026-03-01T12:30:00+01:00",
    "received_at": "2026-03-01T11:30:00.218Z",
    "properties": {"amount": 49.9, "product_line": "shoes"},
    "context": {"channel": "web", "campaign": "spring-2026"},
}


def document(version: str, topic: str, partitions: int) -> dict[str, Any]:
    """AsyncAPI 3.0, for a topic of this name that the service creates."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Lifecycle Engine",
            "version": version,
            "description": "The log of touchpoints. The service writes it and reads it, and others may write to it.",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "touchpoints": {
                "address": topic,
                "description": "Append-only. Named by LIFECYCLE_KAFKA_TOPIC; created with these settings where it is "
                "missing, and with `message.timestamp.type=LogAppendTime`.",
                "messages": {"touchpoint": {"$ref": "#/components/messages/touchpoint"}},
                "bindings": {
                    "kafka": {
                        "topic": topic,
                        "partitions": partitions,
                        "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": RETENTION_MS},
                        "bindingVersion": "0.5.0",
                    }
                },
            }
        },
        "operations": {
            "applyTouchpoint": {
                "action": "receive",
                "channel": {"$ref": "#/channels/touchpoints"},
                "summary": "Each message takes effect once; what cannot be read is set aside with its reason.",
                "messages": [{"$ref": "#/channels/touchpoints/messages/touchpoint"}],
            }
        },
        "components": {
            "messages": {
                "touchpoint": {
                    "name": "touchpoint",
                    "title": "A touchpoint",
                    "summary": "One immutable fact about a customer. Write with acks=all and an idempotent producer.",
                    "contentType": "application/json",
                    "payload": {"$ref": "#/components/schemas/Touchpoint"},
                    "bindings": {
                        "kafka": {
                            "key": {
                                "type": "string",
                                "description": "`customer_id:` and the customer_id, or else `anonymous_id:` and "
                                "that. It decides the order in which a customer's touchpoints are read.",
                                "examples": ["customer_id:42"],
                            },
                            "bindingVersion": "0.5.0",
                        }
                    },
                    "examples": [{"name": "purchase", "payload": _EXAMPLE}],
                }
            },
            "schemas": {"Touchpoint": _touchpoint()},
        },
    }


def _touchpoint() -> dict[str, Any]:
    schema = message_schema()
    for name, description in _DESCRIPTIONS.items():
        schema["properties"][name]["description"] = description
    for name in ("occurred_at", "corrected_at"):
        schema["properties"][name]["anyOf"][0]["format"] = "date-time"
    schema["properties"]["received_at"]["format"] = "date-time"
    schema["title"] = "Touchpoint"
    schema["description"] = "Null counts as absent, and an unknown field is an error."
    return schema
