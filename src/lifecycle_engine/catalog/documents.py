"""Documents as people write them: YAML 1.2 or JSON text, read into plain data that keeps the place of every part.

Plain data is what JSON can say: maps with text for names, lists, text, truth values, null, integers of 64 bits and
finite doubles. In YAML, plain words are read by the core schema of version 1.2, so `on`, `yes` and `2026-01-01` are
text. Anchors, aliases and merge keys work; tags don't.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_VALUES = 10_000
"""Values of a document once its aliases are written out; the largest definition that is allowed has about 5,000."""
MAX_CHARACTERS = 4 * MAX_BYTES
"""Text of a document once its aliases are written out."""

JSON_TYPES = frozenset({"application/json", "text/json"})
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/vnd.yaml"})


class DocumentError(ValueError):
    """A text that cannot be read; `line` and `column` (both from 1, in characters) say where."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.message = message
        self.line = line
        self.column = column


class MediaTypeError(DocumentError):
    """A media type that is neither JSON nor YAML."""


@dataclass(slots=True)
class Position:
    """Where a value is written, or its name where it has one; `line` and `column` are from 1. `parts` lie within."""

    line: int
    column: int
    parts: dict[str, Position] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data and where its parts stand in the text. Parts of the data may be shared: don't change it."""

    data: Any
    text: str
    positions: Position

    def locate(self, pointer: str) -> tuple[int, int]:
        """The line and column (from 1) of the part that a JSON pointer names, or of the nearest part around it."""
        position = self.positions
        for token in pointer.split("/")[1:]:
            inner = position.parts.get(token.replace("~1", "/").replace("~0", "~"))
            if inner is None:
                break
            position = inner
        return position.line, position.column


def read_document(text: str | bytes, media_type: str) -> Document:
    """Reads a document of at most 256 KiB, at most 32 levels deep. Bytes are UTF-8.

    Raises MediaTypeError for a media type that is neither JSON nor YAML, DocumentError for a text that is not what
    the media type says, is too large or too deep, names a thing twice, or holds what JSON cannot.
    """
    kind = media_type.partition(";")[0].strip().lower()
    if kind in JSON_TYPES or kind.endswith("+json"):
        return _JsonReader(_decoded(text)).document()
    if kind in YAML_TYPES or kind.endswith("+yaml"):
        return _YamlReader(_decoded(text)).document()
    raise MediaTypeError(f"{media_type[:80]!r} is neither JSON nor YAML: send application/json or application/yaml")


def _decoded(text: str | bytes) -> str:
    if len(text) > MAX_BYTES:
        raise DocumentError(f"the document is larger than {MAX_BYTES // 1024} KiB")
    try:
        if isinstance(text, bytes):
            text = text.decode()
        elif len(text.encode()) > MAX_BYTES:
            raise DocumentError(f"the document is larger than {MAX_BYTES // 1024} KiB")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        raise DocumentError("the document is not UTF-8", *_Lines(before).position(len(before))) from None
    except UnicodeEncodeError as error:
        raise DocumentError("half a surrogate pair is no text", *_Lines(error.object).position(error.start)) from None
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise DocumentError("the document is empty")
    return text


class _Lines:
    """From an offset in a text to its line and column."""

    def __init__(self, text: str) -> None:
        self.starts = [0, *(found.end() for found in re.finditer(r"\r\n|\r|\n", text))]

    def position(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1] + 1


class _Reader:
    """What both formats share: the limits, and which values are plain data."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.values = 0
        self.characters = 0

    def count(self, position: Position, values: int, characters: int) -> None:
        self.values += values
        self.characters += characters
        if self.values > MAX_VALUES:
            self.fail(f"the document has more than {MAX_VALUES} values", position)
        if self.characters > MAX_CHARACTERS:
            self.fail(f"written out, the document has more than {MAX_CHARACTERS} characters", position)

    def deeper(self, depth: int, position: Position) -> int:
        if depth >= MAX_DEPTH:
            self.fail(f"the document is more than {MAX_DEPTH} levels deep", position)
        return depth + 1

    def plain_text(self, value: str, position: Position) -> str:
        self.count(position, 0, len(value))
        if "\0" in value:
            self.fail("the character NUL is not allowed", position)
        if not value.isascii():
            try:
                # A pair of escapes, \ud83d\ude00, is one character.
                value = value.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self.fail("half a surrogate pair is no text", position)
        return value

    def integer(self, digits: str, position: Position, base: int = 10) -> int:
        # The length first: Python takes its time over thousands of digits, and then refuses them.
        if len(digits) > 100 or not -(2**63) <= (value := int(digits, base)) < 2**63:
            self.fail(f"the integer {digits[:30]} does not fit into 64 bits", position)
        return value

    def double(self, digits: str, position: Position) -> float:
        if not math.isfinite(value := float(digits)):
            self.fail(f"the number {digits[:30]} is beyond a double", position)
        return value

    def fail(self, message: str, position: Position) -> NoReturn:
        raise DocumentError(message, position.line, position.column)


class _JsonReader(_Reader):
    _BLANK = re.compile(r"[ \t\n\r]*")

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lines = _Lines(text)
        self.scalars = json.JSONDecoder(parse_int=_Digits, parse_float=_Digits, parse_constant=_Digits)

    def document(self) -> Document:
        start = self.skip(0)
        position = self.position(start)
        data, end = self.value(start, position, 0)
        if (end := self.skip(end)) < len(self.text):
            self.fail("the document goes on after its end", self.position(end))
        return Document(data, self.text, position)

    def value(self, start: int, position: Position, depth: int) -> tuple[Any, int]:
        """The value that begins at `start`, and the offset after it."""
        self.count(position, 1, 0)
        opening = self.text[start : start + 1]
        if opening == "{":
            return self.mapping(start + 1, position, self.deeper(depth, position))
        if opening == "[":
            return self.sequence(start + 1, position, self.deeper(depth, position))
        value, end = self.scalar(start)
        if isinstance(value, _Digits):
            return self.number(value, self.position(start)), end
        return (self.plain_text(value, position) if isinstance(value, str) else value), end

    def mapping(self, at: int, position: Position, depth: int) -> tuple[dict[str, Any], int]:
        data: dict[str, Any] = {}
        at = self.skip(at)
        if self.text.startswith("}", at):
            return data, at + 1
        while True:
            inner = self.position(at)
            if not self.text.startswith('"', at):
                self.fail("expected a name in double quotes", inner)
            name, at = self.scalar(at)
            name = self.plain_text(name, inner)
            if name in data:
                self.fail(f"{name[:80]!r} is there already", inner)
            at = self.skip(at)
            if not self.text.startswith(":", at):
                self.fail("expected a colon", self.position(at))
            data[name], at = self.value(self.skip(at + 1), inner, depth)
            position.parts[name] = inner
            at = self.skip(at)
            if self.text.startswith("}", at):
                return data, at + 1
            at = self.comma(at, "}")

    def sequence(self, at: int, position: Position, depth: int) -> tuple[list[Any], int]:
        data: list[Any] = []
        at = self.skip(at)
        if self.text.startswith("]", at):
            return data, at + 1
        while True:
            inner = position.parts[str(len(data))] = self.position(at)
            item, at = self.value(at, inner, depth)
            data.append(item)
            at = self.skip(at)
            if self.text.startswith("]", at):
                return data, at + 1
            at = self.comma(at, "]")

    def comma(self, at: int, closing: str) -> int:
        if not self.text.startswith(",", at):
            self.fail(f"expected a comma or {closing}", self.position(at))
        return self.skip(at + 1)

    def scalar(self, start: int) -> tuple[Any, int]:
        try:
            return self.scalars.raw_decode(self.text, start)
        except json.JSONDecodeError as error:
            message = error.msg[:1].lower() + error.msg[1:]
            self.fail(f"not JSON: {message}", self.position(min(error.pos, len(self.text))))

    def number(self, digits: str, position: Position) -> int | float:
        if digits.lstrip("-").isdecimal():
            return self.integer(digits, position)
        if digits.lstrip("-")[0] not in "0123456789":
            self.fail(f"{digits} is not JSON", position)
        return self.double(digits, position)

    def skip(self, at: int) -> int:
        found = self._BLANK.match(self.text, at)
        assert found is not None
        return found.end()

    def position(self, offset: int) -> Position:
        return Position(*self.lines.position(offset))


class _Digits(str):
    """A JSON number as it is written."""

    __slots__ = ()


@dataclass(slots=True)
class _Anchored:
    """A value that aliases repeat, and what one more of it adds to the document."""

    data: Any
    position: Position
    values: int
    characters: int


_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_DOUBLE = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

Events = Iterator[Any]
"""What the YAML parser gives; its own types name no fields."""


class _YamlReader(_Reader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.anchors: dict[str, _Anchored | None] = {}
        self.latest = Position(1, 1)

    def document(self) -> Document:
        events = YAML(typ="safe", pure=True).parse(self.text)
        try:
            return self.only(events)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = ", ".join(part for part in (error.context, error.problem) if part)
            position = Position(mark.line + 1, mark.column + 1) if mark else self.latest
            self.fail(f"not YAML: {message}", position)
        except ReaderError as error:
            position = Position(*_Lines(self.text).position(error.position))
            self.fail("this character is not allowed in YAML", position)
        except (YAMLError, OverflowError, ValueError) as error:
            if isinstance(error, DocumentError):
                raise
            self.fail(f"not YAML, near here: {error}", self.latest)

    def only(self, events: Events) -> Document:
        for event in events:
            if isinstance(event, DocumentStartEvent):
                break
        else:
            self.fail("the document is empty", self.latest)
        first = next(events)
        position = self.position(first)
        data = self.value(first, events, position, 0)
        for event in events:
            if isinstance(event, DocumentStartEvent):
                self.fail("a second document begins here; send one at a time", self.position(event))
        return Document(data, self.text, position)

    def value(self, event: Any, events: Events, position: Position, depth: int) -> Any:
        if isinstance(event, AliasEvent):
            return self.repeated(event, position)
        if event.tag is not None:
            self.fail(f"tags such as {event.tag[:80]} are not supported; put text in quotes", self.position(event))
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        before = self.values, self.characters
        self.count(position, 1, 0)
        data: Any
        if isinstance(event, MappingStartEvent):
            data = self.mapping(events, position, self.deeper(depth, position))
        elif isinstance(event, SequenceStartEvent):
            data = self.sequence(events, position, self.deeper(depth, position))
        else:
            data = self.scalar(event, position)
        if event.anchor is not None:
            weight = self.values - before[0], self.characters - before[1]
            self.anchors[event.anchor] = _Anchored(data, position, *weight)
        return data

    def mapping(self, events: Events, position: Position, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: list[tuple[dict[str, Any], Position]] = []
        names: set[str] = set()
        while not isinstance(event := next(events), MappingEndEvent):
            inner = self.position(event)
            name, merges = self.name(event, inner)
            if name in names:
                self.fail(f"{name[:80]!r} is there already", inner)
            names.add(name)
            value = self.value(next(events), events, inner, depth)
            if merges:
                merged += self.sources(value, inner)
            else:
                data[name] = value
                position.parts[name] = inner
        for source, origin in merged:
            for name, value in source.items():
                if name not in data:
                    data[name] = value
                    position.parts[name] = origin.parts[name]
        return data

    def name(self, event: Any, position: Position) -> tuple[str, bool]:
        """The name that an entry has, and whether it is a merge key."""
        if not isinstance(event, ScalarEvent) or event.tag is not None or event.anchor is not None:
            self.fail("a name is text, without a tag or an anchor", position)
        name = self.scalar(event, position)
        if not isinstance(name, str):
            self.fail(f"a name is text: put {event.value[:80]!r} in quotes", position)
        return name, name == "<<" and event.implicit[0]

    def sources(self, value: Any, position: Position) -> Iterator[tuple[dict[str, Any], Position]]:
        if isinstance(value, dict):
            yield value, position
            return
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fail("a merge key (<<) takes a map, or a list of maps", position)
        for index, item in enumerate(value):
            yield item, position.parts[str(index)]

    def sequence(self, events: Events, position: Position, depth: int) -> list[Any]:
        data: list[Any] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            inner = position.parts[str(len(data))] = self.position(event)
            data.append(self.value(event, events, inner, depth))
        return data

    def repeated(self, event: Any, position: Position) -> Any:
        if event.anchor not in self.anchors:
            self.fail(f"there is no anchor &{event.anchor[:80]} above", self.position(event))
        anchored = self.anchors[event.anchor]
        if anchored is None:
            self.fail(f"*{event.anchor[:80]} stands within what it repeats", self.position(event))
        self.count(position, anchored.values, anchored.characters)
        position.parts = anchored.position.parts
        return anchored.data

    def scalar(self, event: Any, position: Position) -> Any:
        value: str = event.value
        if not event.implicit[0]:
            return self.plain_text(value, position)
        if value in _WORDS:
            return _WORDS[value]
        if _INTEGER.fullmatch(value):
            return self.integer(value, position)
        if _OCTAL.fullmatch(value):
            return self.integer(value[2:], position, 8)
        if _HEXADECIMAL.fullmatch(value):
            return self.integer(value[2:], position, 16)
        if _DOUBLE.fullmatch(value):
            return self.double(value, position)
        if _NO_NUMBER.fullmatch(value):
            self.fail(f"{value} is no number that JSON can hold; put text in quotes", position)
        return self.plain_text(value, position)

    def position(self, event: Any) -> Position:
        self.latest = Position(event.start_mark.line + 1, event.start_mark.column + 1)
        return self.latest
