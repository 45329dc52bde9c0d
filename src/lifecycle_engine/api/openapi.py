"""The OpenAPI document: what FastAPI knows of its routes, and the rest of what is served."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from lifecycle_engine.api.problems import MEDIA_TYPE, Problem
from lifecycle_engine.api.touchpoints import ingest_openapi
from lifecycle_engine.api.webhooks.examples import examples

_KEY = "key"
_DESCRIPTION = """\
Every error is a problem (RFC 9457) with a `code` and a `message` beside its standard members.

What cannot be read as a request is answered at the door, before any route is looked for, and the connection is then
closed: 400 (`malformed_http`, `ambiguous_host`), 408 (`too_slow`: a head that is not complete within 10 s, or a body
that does not go on), 414 and 431 (`too_large`: an address of more than 60 KiB, a head of more than 32 KiB or 100
fields), 503 (`too_many_connections`). Routes name what they answer themselves.
"""
_TAGS = [
    {"name": "touchpoints", "description": "Post what happened, and ask what became of it."},
    {"name": "customers", "description": "Where a customer stands, stood, and why."},
    {"name": "identities", "description": "Who is who: links, merges, and what is known of somebody."},
    {"name": "lifecycles", "description": "Definitions: posted, numbered, activated."},
    {"name": "changes", "description": "Every change, in an order that never changes."},
    {"name": "keys", "description": "Who may ask, and what for."},
    {"name": "webhooks", "description": "Who is told of changes, how that goes, and what there is to be told."},
    {"name": "operate", "description": "Is the process alive, can it do its work, and how far has that come?"},
]


def install(app: FastAPI) -> None:
    """Makes the app serve the whole document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    openapi_version=app.openapi_version,
                    summary=app.summary,
                    description=_DESCRIPTION,
                    routes=app.routes,
                    webhooks=app.webhooks.routes,
                    tags=_TAGS,
                )
            )
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    paths, found = ingest_openapi.described()
    schemas.update(found)
    for path, operation in paths.items():
        document["paths"].setdefault(path, {})["post"] = operation
    schemas["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        _KEY: {"type": "http", "scheme": "bearer", "description": "An API key; each has scopes."}
    }
    for type_, operations in document.get("webhooks", {}).items():
        for operation in operations.values():
            # Here, since FastAPI leaves out whatever is null.
            body = operation["requestBody"]["content"]["application/json"]
            body["examples"] = {name: {"value": value} for name, value in examples()[type_].items()}
            # It is the receiver who answers, and nobody tells it how to refuse.
            operation["responses"].pop("422")
    for operations in document["paths"].values():
        for operation in operations.values():
            _complete(operation)
    document["components"] = {name: dict(sorted(part.items())) for name, part in sorted(components.items())}
    return document


def _complete(operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    # `requires` of authentication.py names its scheme after its scopes.
    scopes = [scope for scheme in operation.get("security", ()) for name in scheme for scope in name.split()]
    if scopes:
        operation["security"] = [{_KEY: [scope]} for scope in scopes]
        answers["429"] = ingest_openapi.problem("The key has made as many requests as it may")
        answers["500"] = ingest_openapi.problem("Something went wrong on our side")
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
    for status, answer in answers.items():
        headers = answer.setdefault("headers", {})
        headers["Request-Id"] = {"schema": {"type": "string"}, "description": "As sent, or made by the server."}
        if status in ("429", "503") and scopes:
            headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds."}
        content = answer.get("content", {})
        if status == "422" and content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("Error"):
            answers[status] = {
                **ingest_openapi.problem("Something in the request is not as it must be"),
                "headers": headers,
            }
        elif MEDIA_TYPE in content:
            content.pop("application/json", None)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """What may be absent is null for FastAPI, for which neither an address nor a header has a word."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if not choices:
        return schema
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**choices[0], **rest} if len(choices) == 1 else {**rest, "anyOf": choices}
