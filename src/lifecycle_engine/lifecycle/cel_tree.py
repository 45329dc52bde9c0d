"""How the expression library writes a checked expression down (`cel.expr.CheckedExpr`, in protocol buffers), read back.

The library offers no tree of its own. Only what a boolean expression over declared names can hold is read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from typing import Any, cast

from lifecycle_engine.lifecycle.expressions import Broken, Call, Expression, Literal, Name, parts

Evaluate = Callable[[bytes], Literal | Broken]
"""Evaluates an expression, serialized, that names nothing."""
Pattern = Callable[[str], Literal | Broken]
"""The regular expression, or why it is none."""

_OPERATORS = {"_&&_": "&&", "_||_": "||", "!_": "!", "@in": "in", "_?_:_": "?:"}
_OPERATORS.update((f"_{operator}_", operator) for operator in ("==", "!=", "<", "<=", ">", ">="))
_CHECKED, _EXPR = 2, 4  # google.protobuf.Any.value, CheckedExpr.expr


class TreeReader:
    """Reads one serialized expression."""

    def __init__(self, serialized: bytes, names: Collection[str], evaluate: Evaluate, pattern: Pattern) -> None:
        self._names = names
        self._evaluate = evaluate
        self._pattern = pattern
        self._envelope = dict(_fields(serialized))
        self._checked = self._envelope.pop(_CHECKED)
        (self._expr,) = (value for field, value in _fields(self._checked) if field == _EXPR)

    def tree(self) -> Expression:
        tree, is_constant = self._read(self._expr)
        return self._value(self._expr, tree) if is_constant else tree

    def _value(self, expr: bytes, tree: Expression) -> Expression:
        if isinstance(tree, Literal):
            return tree
        envelope = b"".join(_written(field, value) for field, value in self._envelope.items())
        checked = b"".join(_written(field, value) for field, value in _fields(self._checked) if field != _EXPR)
        return self._evaluate(envelope + _written(_CHECKED, checked + _written(_EXPR, expr)))

    def _read(self, expr: bytes) -> tuple[Expression, bool]:
        """The tree, and whether it names nothing and so has a value of its own."""
        for field, content in _fields(expr):
            if field == 3:
                return _constant(content), True
            if field == 4:
                return self._name(content)
            if field == 5:
                return self._selection(content)
            if field == 6:
                return self._call(content)
            if field in (7, 8):
                return self._collection(content, field)
            if field == 9:
                return self._loop(content)
        raise AssertionError("an expression of an unknown kind")  # pragma: no cover

    def _name(self, content: bytes) -> tuple[Expression, bool]:
        ((_, written),) = _fields(content)
        name = written.decode()
        # Anything else is the variable of a loop, or a type.
        return (Name((name,)), False) if name in self._names else (Call(name, ()), False)

    def _selection(self, content: bytes) -> tuple[Expression, bool]:
        selection = dict(_fields(content))
        tree, is_constant = self._read(selection[1])
        inner = _field(tree, Literal(selection[2].decode()))
        return (Call("has", (inner,)) if 3 in selection else inner), is_constant

    def _call(self, content: bytes) -> tuple[Expression, bool]:
        function, inner = "", []
        for number, value in _fields(content):
            if number == 2:
                function = value.decode()
            else:
                inner.append(value)
        arguments, is_constant = self._all(inner)
        if function == "_[_]":
            return _field(*arguments), is_constant
        match function, arguments:
            case "matches", (text, Literal(str() as pattern)) if not is_constant:
                return Call(function, (text, self._pattern(pattern))), False
        return Call(_OPERATORS.get(function, function), arguments), is_constant

    def _collection(self, content: bytes, kind: int) -> tuple[Expression, bool]:
        inner = [value for number, value in _fields(content) if number == (1 if kind == 7 else 2)]
        if kind == 8:
            inner = [value for entry in inner for number, value in _fields(entry) if number in (3, 4)]
        arguments, is_constant = self._all(inner)
        return Call("[]" if kind == 7 else "{}", arguments), is_constant

    def _loop(self, content: bytes) -> tuple[Expression, bool]:
        inner = [value for number, value in _fields(content) if number in (2, 4, 5, 6, 7)]
        tree = Call("loop", tuple([self._read(expr)[0] for expr in inner]))
        return tree, not any(isinstance(part, Name) for part in parts(tree))

    def _all(self, exprs: list[bytes]) -> tuple[tuple[Expression, ...], bool]:
        """The trees of these; where only some name something, the others are replaced by their values."""
        read = [self._read(expr) for expr in exprs]
        if all(is_constant for _, is_constant in read):
            return tuple([tree for tree, _ in read]), True
        valued = [
            self._value(expr, tree) if is_constant else tree
            for expr, (tree, is_constant) in zip(exprs, read, strict=True)
        ]
        return tuple(valued), False


def _field(of: Expression, key: Expression) -> Expression:
    if isinstance(of, Name) and isinstance(key, Literal) and isinstance(key.value, str):
        return Name((*of.path, key.value))
    return Call("field", (of, key))


def _constant(content: bytes) -> Literal:
    ((kind, value),) = _fields(content)
    match kind:
        case 1:
            return Literal(None)
        case 2:
            return Literal(bool(value))
        case 3:
            return Literal(value - (1 << 64) if value >> 63 else value)
        case 5:
            return Literal(struct.unpack("<d", value)[0])
        case 6:
            return Literal(value.decode())
        case _:  # unsigned integers and bytes are as they are
            return Literal(value)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: integers for varints, bytes for everything else."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            value: int | bytes
            value, at = _varint(message, at)
        else:
            size, at = (8, at) if tag & 7 == 1 else _varint(message, at)
            value = message[at : at + size]
            at += size
        yield tag >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = message[at]
    at += 1
    if value < 0x80:
        return value, at
    value, shift = value & 0x7F, 7
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _written(field: int, value: Any) -> bytes:
    content = cast(bytes, value)
    return _varint_written(field << 3 | 2) + _varint_written(len(content)) + content


def _varint_written(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
