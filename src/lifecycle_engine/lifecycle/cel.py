"""The Common Expression Language behind the guard port. The only module that knows the expression library.

CEL is not Turing-complete; the library bounds recursion, iterations and regular expressions (RE2), checks names and
types when an expression is compiled, and reaches nothing outside the values that are bound.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cel_expr_python import cel

from lifecycle_engine.lifecycle.guards import GuardError, Values, ValueType

MAX_SOURCE_BYTES = 2048
"""The library itself accepts 20,000 nested negations; a guard that people read is far below this."""

_TYPES = {
    ValueType.BOOL: cel.Type.BOOL,
    ValueType.INT: cel.Type.INT,
    ValueType.DOUBLE: cel.Type.DOUBLE,
    ValueType.STRING: cel.Type.STRING,
    ValueType.TIMESTAMP: cel.Type.TIMESTAMP,
    ValueType.OBJECT: cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    ValueType.COUNTS: cel.Type.Map(cel.Type.STRING, cel.Type.INT),
    ValueType.ANY: cel.Type.DYN,
}
_BOOL = cel.Type.BOOL
_LOOP = re.compile(r"(?:all|exists|exists_one|map|filter)(?:\s|//[^\n]*\n)*\(")
"""Loops within loops double, or multiply by ten, what they hold at each level, past the library's iteration budget."""


class CelGuard:
    """One compiled CEL expression."""

    __slots__ = ("_evaluate", "source")

    def __init__(self, source: str, expression: Any) -> None:
        self.source = source
        self._evaluate = expression.eval

    def holds(self, values: Values) -> bool:
        # An error comes back as a value whose content is a non-empty text, so only the very True counts;
        # a few (the iteration budget, text that is no UTF-8) are raised instead.
        try:
            return self._evaluate(values).value() is True
        except (RuntimeError, ValueError):
            return False


class CelCompiler:
    """Compiles CEL over one set of declared names."""

    def __init__(self, names: Mapping[str, ValueType]) -> None:
        self._environment = cel.NewEnv(variables={name: _TYPES[type_] for name, type_ in names.items()})
        self._compiled: dict[str, CelGuard] = {}

    def compile(self, source: str) -> CelGuard:
        if guard := self._compiled.get(source):
            return guard
        try:
            size = len(source.encode())
        except UnicodeEncodeError as error:
            raise GuardError(
                f"an expression is text, and half a surrogate pair is none (column {error.start + 1})"
            ) from None
        if size > MAX_SOURCE_BYTES:
            raise GuardError(f"an expression has at most {MAX_SOURCE_BYTES} bytes, this one {size}")
        if len(_LOOP.findall(source)) > 1:
            raise GuardError("an expression may go through a list or a map once (all, exists, exists_one, map, filter)")
        try:
            expression = self._environment.compile(source)
        except (RuntimeError, ValueError) as error:
            raise GuardError(_readable(str(error))) from None
        if (returned := expression.return_type()) != _BOOL:
            raise GuardError(f"an expression must say yes or no (bool); this one gives {returned.name().lower()}")
        guard = self._compiled[source] = CelGuard(source, expression)
        return guard

    def bind(self, values: Mapping[str, Any]) -> Values:
        activation: Values = self._environment.Activation(values)
        return activation


class Cel:
    """The guard language of lifecycle definitions."""

    def compiler(self, names: Mapping[str, ValueType]) -> CelCompiler:
        return CelCompiler(names)


def _readable(message: str) -> str:
    """`INVALID_ARGUMENT: ERROR: <input>:1:6: undeclared …` without its envelope, with the column kept."""
    found = re.search(r"<input>:(\d+):(\d+): ([^\n|]*)", message)
    if not found:
        return message.split("\n", 1)[0].strip()[:300]
    text = found[3].replace(" (in container '')", "").strip()
    return f"{text[:300]} (column {found[2]})"
