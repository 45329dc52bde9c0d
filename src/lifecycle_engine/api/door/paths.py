"""Paths are matched as they were sent, and their parts decoded after that.

A customer may be called `a/b`, and is asked for as `a%2Fb`. A server that decodes the path first no longer sees where
a part ends.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, unquote_to_bytes

from fastapi import Path
from pydantic import AfterValidator, WithJsonSchema
from starlette.types import ASGIApp, Receive, Scope, Send


class SentPath:
    """Puts the path as it was sent in the place of the decoded one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw: bytes | None = scope.get("raw_path")
            scope["path"] = quote(scope["path"]) if raw is None else raw.decode("ascii", "replace")
        await self._app(scope, receive, send)


def _decoded(part: str) -> str:
    try:
        text = unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 once its percent signs are decoded") from None
    return without_nul(text)


def without_nul(text: str) -> str:
    """The text; ValueError if it contains NUL, which no database takes."""
    if "\0" in text:
        raise ValueError("contains NUL")
    return text


def _name(text: str) -> str:
    if len(text) > MAX_NAME:
        raise ValueError(f"has {len(text)} characters; no customer's name has more than {MAX_NAME}")
    return text


MAX_NAME = 256
"""Characters of a customer's name at most, as touchpoints may say it."""

PRINTABLE = r"^[^\u0000-\u001f\u007f-\u009f]*$"
"""What names that are given to touchpoints and customers look like, for OpenAPI: `log.message` checks them."""

WITHOUT_NUL = r"^[^\u0000]*$"
"""What text looks like that `without_nul` lets pass, for OpenAPI."""

Part = Annotated[
    str, AfterValidator(_decoded), WithJsonSchema({"type": "string", "minLength": 1, "pattern": WITHOUT_NUL})
]
"""One part of a path, percent-encoded UTF-8 on the way in."""
_Named = Annotated[
    Part,
    AfterValidator(_name),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": PRINTABLE}),
]

CustomerValue = Annotated[
    _Named,
    Path(
        description="The customer's id, percent-encoded (`a/b` is `a%2Fb`); with `kind=anonymous_id` an anonymous id.",
        examples=["42"],
    ),
]
CustomerId = Annotated[
    _Named,
    Path(description="The customer's id, percent-encoded (`a/b` is `a%2Fb`).", examples=["42"]),
]
AnonymousId = Annotated[_Named, Path(description="An anonymous id, percent-encoded.", examples=["3f1c"])]
LifecycleKey = Annotated[Part, Path(description="The key of a lifecycle.", examples=["five-stages"])]
TouchpointId = Annotated[
    Part,
    Path(description="The id of a touchpoint, percent-encoded.", examples=["0198c0de-7e57-7000-8000-000000000001"]),
]
VersionNumber = Annotated[
    int, Path(ge=1, le=2**31 - 1, description="The number that the server gave a version.", examples=[1])
]
