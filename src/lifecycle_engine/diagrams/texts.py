"""Text of any kind made fit for a diagram: on one line, printable, not too long, and measured."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"
_WIDE = "WF"


def plain(text: str) -> str:
    """The text on one line, without what neither XML nor a reader can make something of, such as bidi controls."""
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(char)[0] in "CZ" and char not in _JOINERS else char for char in text)
    return " ".join(text.split())


def columns(text: str) -> int:
    """How many columns a text takes in a font of even width; Chinese and Japanese characters take two."""
    return sum(map(_columns, text))


def shortened(text: str, most: int) -> str:
    """The plain text in at most so many columns; what is cut off leaves an ellipsis."""
    text = plain(text)
    if len(fitting(text, most)) == len(text):
        return text
    return f"{fitting(text, most - 1).rstrip()}…"


def wrapped(text: str, most: int, lines: int) -> list[str]:
    """The plain text in at most so many lines of so many columns, broken at spaces where there are any."""
    rest = plain(text)
    broken: list[str] = []
    while len(broken) < lines - 1 and (line := fitting(rest, most)) != rest:
        if rest[len(line)] != " " and " " in line:
            line = line.rpartition(" ")[0]
        broken.append(line)
        rest = rest[len(line) :].lstrip()
    return [*broken, shortened(rest, most)]


def fitting(text: str, most: int) -> str:
    """The beginning of a text that fits into so many columns."""
    if text.isascii():
        return text[:most]
    taken = 0
    for place, char in enumerate(text):
        taken += _columns(char)
        if taken > most:
            return text[:place]
    return text


def _columns(char: str) -> int:
    if unicodedata.combining(char) or char in _JOINERS:
        return 0
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1
