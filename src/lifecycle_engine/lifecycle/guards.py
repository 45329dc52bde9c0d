"""The narrow port to the expression language: a definition compiles guards, the fold asks whether they hold."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol


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
    """An expression that cannot be compiled; its text says what is wrong and where in the expression."""


class Values(Protocol):
    """The values of one judgement, bound once and shared by every guard that is asked about it."""


class Guard(Protocol):
    """One compiled expression."""

    @property
    def source(self) -> str:
        """The expression as it was written."""

    def holds(self, values: Values) -> bool:
        """Whether it holds; an expression that errs on these values (a missing name, text for a number) does not."""


class GuardCompiler(Protocol):
    """Compiles expressions over one set of declared names."""

    def compile(self, source: str) -> Guard:
        """Raises GuardError for a syntax error, an unknown name, a wrong type, or a result that is not a bool."""

    def bind(self, values: Mapping[str, Any]) -> Values:
        """Binds values to declared names; a declared name may be left out, and asking for it then errs."""


class GuardLanguage(Protocol):
    """An expression language."""

    def compiler(self, names: Mapping[str, ValueType]) -> GuardCompiler:
        """A compiler that knows these names and no others."""
