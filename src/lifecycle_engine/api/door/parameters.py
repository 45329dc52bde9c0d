"""Parameters of addresses: one that is there twice could mean two things, and is refused where it is no list."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError


async def asked_once(request: Request) -> None:
    """What every route depends on: FastAPI would take the last, and drop the others. Raises RequestValidationError."""
    sent = request.query_params
    if len(sent) == len(sent.multi_items()):
        return
    lists = _lists(request)
    repeated = [name for name in sent if len(sent.getlist(name)) > 1 and name not in lists]
    if repeated:
        raise RequestValidationError(
            [{"type": "repeated", "loc": ("query", name), "msg": "is there more than once"} for name in repeated]
        )


def _lists(request: Request) -> set[str]:
    """The parameters of the route that may have several values."""
    paths: dict[str, Any] = request.app.openapi()["paths"]
    operation = paths[request.scope["route"].path_format][request.method.lower()]
    return {
        parameter["name"]
        for parameter in operation.get("parameters", ())
        if any(schema.get("type") == "array" for schema in (parameter["schema"], *parameter["schema"].get("anyOf", ())))
    }
