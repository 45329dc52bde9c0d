"""The narrow port to the expression language: a definition compiles guards, the fold asks whether they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from lifecycle_engine.lifecycle.expressions import Expression


class ValueType(StrEnum):
    """The type under which a name is declared to the expression language."""

    BOOL = "bool"
    INT = "int"
    DOUBLE = "double"
    STRING = "string"
    TIMESTAMP = "timestamp"
    OBJECT = "object"
    COUNTS = "counts"
    ANY = "any"


class GuardError(ValueError):
    """An expression that cannot be compiled; its text says what is wrong and where in the expression.

    `hint` says what to write instead. Where a name is not known, `unknown` is that name, and `known` are all that are.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, unknown: str | None = None, known: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.unknown = unknown
        self.known = known


class Values(Protocol):
    """The values of one judgement, bound once and shared by every guard that is asked about it."""


class Verdict(NamedTuple):
    """What asking a guard came to; `error` tells why it could not be told, and then it counts as not held."""

    held: bool
    error: str | None = None


class Guard(Protocol):
    """One compiled expression."""

    @property
    def source(self) -> str:
        """The expression as it was written."""

    @property
    def errors(self) -> int:
        """How often it has erred so far, in this process."""

    def holds(self, values: Values) -> bool:
        """Whether it holds; an expression that errs on these values (a missing name, text for a number) does not."""

    def tree(self) -> Expression:
        """The expression as a tree."""

    def examine(self, values: Values) -> Verdict:
        """The same, with what went wrong; slower, for explanations."""


class GuardCompiler(Protocol):
    """Compiles expressions over one set of declared names."""

    @property
    def errors(self) -> int:
        """How often its guards have erred so far, in this process: odd data, which counts as not held."""

    def compile(self, source: str) -> Guard:
        """Raises GuardError for a syntax error, an unknown name, a wrong type, or a result that is not a bool."""

    def bind(self, values: Mapping[str, Any]) -> Values:
        """Binds values to declared names; a declared name may be left out, and asking for it then errs."""


class GuardLanguage(Protocol):
    """An expression language."""

    def compiler(self, names: Mapping[str, ValueType]) -> GuardCompiler:
        """A compiler that knows these names and no others."""
