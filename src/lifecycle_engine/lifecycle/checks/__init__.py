"""What is formally right in a definition, and cannot be meant.

`compile_definition` refuses what cannot be folded, and nothing else: what was accepted once, compiles for ever. Here a
document is read with the eyes of whoever is about to let it judge customers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from lifecycle_engine.lifecycle.checks import conjunctions, rules, words
from lifecycle_engine.lifecycle.checks.conjunctions import STAGE, TYPE, Reader, given_by
from lifecycle_engine.lifecycle.checks.findings import Findings
from lifecycle_engine.lifecycle.definitions import Compilation, Definition, DefinitionError, Problem
from lifecycle_engine.lifecycle.guards import Guard, GuardLanguage, ValueType


class Review(NamedTuple):
    """What is wrong with a document, and what may be. There is a definition only where nothing is wrong."""

    definition: Definition | None
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def review(document: Any, language: GuardLanguage) -> Review:
    """Compiles the plain data of a definition document and checks it; at most 50 errors and 50 warnings."""
    compilation = Compilation(document, language)
    try:
        definition = compilation.definition()
    except DefinitionError as error:
        findings = Findings(error.problems)
        reader = _reader(compilation)
        for guards in compilation.compiled.values():
            conjunctions.check(reader.conjunction(guards), reader, findings)
        return Review(None, tuple(findings.errors), ())
    findings = Findings()
    _check(definition, _reader(compilation), findings)
    errors, warnings = tuple(findings.errors), tuple(findings.warnings)
    return Review(None if errors else definition, errors, warnings)


def _reader(compilation: Compilation) -> Reader:
    counts = {name for name, type_ in compilation.names.items() if type_ is ValueType.INT}
    return Reader(list(compilation.ranks), counts)


def _check(definition: Definition, reader: Reader, findings: Findings) -> None:
    requires = {}
    for stage in definition.stages.values():
        requires[stage.key] = reader.conjunction(_placed(f"/stages/{stage.rank}/requires", stage.requires))
        conjunctions.check(requires[stage.key], reader, findings)
    read = []
    for rule in definition.rules:
        given = (*given_by(TYPE, rule.types, "`on`"), *given_by(STAGE, rule.origins, "`from`"))
        when = reader.conjunction(_placed(f"/rules/{rule.index}/when", rule.when), given)
        conjunctions.check(when, reader, findings)
        read.append(rules.read_rule(rule, when, definition))
    rules.check(definition, read, requires, reader, findings)
    words.check(definition, findings)


def _placed(pointer: str, guards: Iterable[Guard]) -> Iterator[tuple[str, Guard]]:
    return ((f"{pointer}/{index}", guard) for index, guard in enumerate(guards))
