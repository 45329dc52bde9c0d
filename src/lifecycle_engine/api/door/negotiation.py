"""What a caller would rather have: media types by `Accept`, languages by `Accept-Language` (RFC 9110, section 12).

What cannot be read in these headers is passed over; they are wishes, and no reason to refuse an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Annotated

from fastapi import Header

from lifecycle_engine.lifecycle.definitions import Definition
from lifecycle_engine.lifecycle.labels import Range, label

MAX_WISHES = 32
"""More of them in one header are not looked at, since each costs time for each label."""

_LANGUAGE = re.compile(r"\*|[a-z]{1,8}(-[a-z0-9]{1,8})*")
_MEDIA_TYPE = re.compile(r"\*/\*|[a-z0-9!#$&^_.+-]+/(\*|[a-z0-9!#$&^_.+-]+)")
_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")

AcceptLanguage = Annotated[
    str | None,
    Header(
        alias="Accept-Language",
        description="In which language labels are wanted. Where there is none in it: English, else the first.",
        examples=["nl-BE, nl;q=0.9, en;q=0.5"],
    ),
]


@lru_cache(maxsize=128)
def languages(accept_language: str | None) -> tuple[Range, ...]:
    """The language ranges of the header's value that can be read."""
    wishes = _wishes(accept_language or "")
    return tuple(Range(value, weight) for value, weight in wishes if _LANGUAGE.fullmatch(value))


def label_of(definition: Definition, stage: str, accept_language: str | None) -> str:
    """The label of a stage in the language asked for; the name itself of a stage that this version lacks."""
    found = definition.stages.get(stage)
    return stage if found is None else label(found.labels, stage, languages(accept_language)).text


def media_type(accept: str | None, offered: Sequence[str]) -> str | None:
    """The type that is wanted most, the first of equals; None where none will do. Whoever asks for none gets the first.

    What is offered is in lower case and without parameters.
    """
    wishes = [(value, weight) for value, weight in _wishes(accept or "*/*") if _MEDIA_TYPE.fullmatch(value)]
    if not wishes:
        return offered[0]
    weights = {one: _weight(one, wishes) for one in offered}
    best = max(offered, key=weights.__getitem__)
    return best if weights[best] > 0 else None


def _weight(offered: str, wishes: Sequence[tuple[str, float]]) -> float:
    """That of the most precise range that the type is in."""
    weights = dict(reversed(wishes))
    for covering in (offered, f"{offered.partition('/')[0]}/*", "*/*"):
        if covering in weights:
            return weights[covering]
    return 0.0


def _wishes(header: str) -> Iterator[tuple[str, float]]:
    """The values of a header with their weights, both as far as they can be read, in lower case."""
    for item in header.lower().split(",", MAX_WISHES)[:MAX_WISHES]:
        value, *parameters = (part.strip(" \t") for part in item.split(";"))
        weights = [parameter[2:] for parameter in parameters if parameter.startswith("q=")] or ["1"]
        if value and _WEIGHT.fullmatch(weights[0]):
            yield value, float(weights[0])
