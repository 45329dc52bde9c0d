"""The Common Expression Language behind the guard port. The only module that knows the expression library.

CEL is not Turing-complete; the library bounds recursion, iterations and regular expressions (RE2), checks names and
types when an expression is compiled, and reaches nothing outside the values that are bound.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cel_expr_python import cel

from lifecycle_engine.lifecycle.cel_errors import explained
from lifecycle_engine.lifecycle.cel_tree import TreeReader
from lifecycle_engine.lifecycle.expressions import Broken, Expression, Literal
from lifecycle_engine.lifecycle.guards import GuardError, ValueType, Verdict

MAX_SOURCE_BYTES = 2048
"""The library itself accepts 20,000 nested negations; a guard that people read is far below this."""
MAX_PATTERNS = 200
"""Regular expressions that are tried before they are needed; the largest take a millisecond or two."""

MAX_LOOP = 1000
"""Items of the longest list or map that a loop may be asked about: the library takes milliseconds for so many, but its
time grows with their square, and its own budget of 10,000 iterations with seconds."""

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


class _Bound:
    """Values as the library takes them, and how long the longest list or map among them is."""

    __slots__ = ("_longest", "_values", "activation")

    def __init__(self, activation: Any, values: Mapping[str, Any]) -> None:
        self.activation = activation
        self._values = values
        self._longest: int | None = None

    @property
    def longest(self) -> int:
        if self._longest is None:
            self._longest = _longest(self._values.values())
        return self._longest


class CelGuard:
    """One compiled CEL expression."""

    __slots__ = ("_compiler", "_evaluate", "_is_loop", "_serialize", "errors", "source")

    def __init__(self, source: str, expression: Any, compiler: CelCompiler) -> None:
        self.source = source
        self.errors = 0
        self._evaluate = expression.eval
        self._serialize = expression.serialize
        self._compiler = compiler
        self._is_loop = _LOOP.search(source) is not None

    def holds(self, values: Any) -> bool:
        # An error comes back as a value whose content is a non-empty text, so only the very True counts;
        # a few (the iteration budget, text that is no UTF-8) are raised instead.
        try:
            value = None if self._is_loop and values.longest > MAX_LOOP else self._evaluate(values.activation).value()
        except (RuntimeError, ValueError):
            value = None
        if value is True:
            return True
        if value is not False:
            self.errors += 1
            self._compiler.errors += 1
        return False

    def examine(self, values: Any) -> Verdict:
        if self._is_loop and values.longest > MAX_LOOP:
            return Verdict(False, f"a list or a map has {values.longest} items; a loop takes at most {MAX_LOOP}")
        outcome = _outcome(self._evaluate, values.activation)
        return Verdict(False, outcome.message) if isinstance(outcome, Broken) else Verdict(outcome.value)

    def tree(self) -> Expression:
        return self._compiler.read(self._serialize())


class CelCompiler:
    """Compiles CEL over one set of declared names."""

    def __init__(self, names: Mapping[str, ValueType]) -> None:
        self._names = names
        self._environment = cel.NewEnv(variables={name: _TYPES[type_] for name, type_ in names.items()})
        self._nothing = self._environment.Activation({})
        self._compiled: dict[str, CelGuard] = {}
        self._patterns = 0
        self.errors = 0

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
            raise explained(str(error), source, self._names) from None
        if (returned := expression.return_type()) != _BOOL:
            raise GuardError(f"an expression must say yes or no (bool); this one gives {returned.name().lower()}")
        guard = self._compiled[source] = CelGuard(source, expression, self)
        return guard

    def bind(self, values: Mapping[str, Any]) -> _Bound:
        return _Bound(self._environment.Activation(values), values)

    def read(self, serialized: bytes) -> Expression:
        """The tree of an expression that the library has written down."""
        return TreeReader(serialized, self._names, self._constant, self._pattern).tree()

    def _constant(self, serialized: bytes) -> Literal | Broken:
        return _outcome(self._environment.deserialize(serialized).eval, self._nothing)

    def _pattern(self, pattern: str) -> Literal | Broken:
        if self._patterns == MAX_PATTERNS:
            return Literal(pattern)
        self._patterns += 1
        # What JSON writes is a text of CEL too.
        expression = self._environment.compile(f'"".matches({json.dumps(pattern, ensure_ascii=False)})')
        tried = _outcome(expression.eval, self._nothing)
        return tried if isinstance(tried, Broken) else Literal(pattern)


class Cel:
    """The guard language of lifecycle definitions."""

    def compiler(self, names: Mapping[str, ValueType]) -> CelCompiler:
        return CelCompiler(names)


def _longest(values: Iterable[Any]) -> int:
    longest, waiting = 0, list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | dict):
            longest = max(longest, len(value))
            waiting += value if isinstance(value, list) else value.values()
    return longest


def _outcome(evaluate: Any, values: Any) -> Literal | Broken:
    """What an expression comes to; an error without its code, as in `INVALID_ARGUMENT: divide by zero`."""
    try:
        result = evaluate(values)
        if result.type() != cel.Type.ERROR:
            return Literal(result.plain_value())
        message = result.value()
    except (RuntimeError, ValueError) as error:
        message = str(error)
    return Broken(re.sub(r"^[A-Z_]+: | \[[A-Z_]+\]$", "", message)[:200])
