"""Lists of guards, all of which must hold: what each asks for, and whether they can hold together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lifecycle_engine.lifecycle.checks.findings import Findings
from lifecycle_engine.lifecycle.checks.ranges import Constraint, constraint, implied, one_of, possible
from lifecycle_engine.lifecycle.expressions import (
    Broken,
    Call,
    Expression,
    Literal,
    Name,
    conjuncts,
    parts,
    truth,
)
from lifecycle_engine.lifecycle.guards import Guard

STAGE = "journey.stage"
TYPE = "event.type"
_VISITS = "journey.visits"


class Part(NamedTuple):
    """One thing that must hold, and the guard that asks for it. `key` is the same for the same expression."""

    pointer: str
    source: str
    expression: Expression
    key: str
    constraint: Constraint | None


@dataclass(frozen=True, slots=True)
class Conjunction:
    """A list of guards taken apart. `given` are constraints that are known to hold, each with what says so."""

    guards: tuple[tuple[str, str, Expression], ...]
    parts: tuple[Part, ...]
    given: tuple[tuple[str, Constraint], ...] = ()
    keys: frozenset[str] = field(init=False)
    constraints: Mapping[str, tuple[Constraint, ...]] = field(init=False)

    def __post_init__(self) -> None:
        constraints: dict[str, tuple[Constraint, ...]] = {}
        asked = [part.constraint for part in self.parts if part.constraint is not None]
        for one in (*(one for _, one in self.given), *asked):
            constraints[one.name] = (*constraints.get(one.name, ()), one)
        object.__setattr__(self, "keys", frozenset(part.key for part in self.parts))
        object.__setattr__(self, "constraints", constraints)


class Reader:
    """Takes guards apart, each once; `counts` are the names that have integers from 0 on."""

    def __init__(self, stages: Sequence[str], counts: Collection[str]) -> None:
        self.stages = stages
        self._counts = counts
        self._read: dict[str, tuple[Expression, tuple[tuple[Expression, str, Constraint | None], ...]]] = {}

    def conjunction(
        self, guards: Iterable[tuple[str, Guard]], given: Sequence[tuple[str, Constraint]] = ()
    ) -> Conjunction:
        """Guards, each with the pointer to its place."""
        whole: list[tuple[str, str, Expression]] = []
        found: list[Part] = []
        for pointer, guard in guards:
            tree, pieces = self._of(guard)
            whole.append((pointer, guard.source, tree))
            found += [Part(pointer, guard.source, *piece) for piece in pieces]
        return Conjunction(tuple(whole), tuple(found), tuple(given))

    def is_whole(self, name: str) -> bool:
        return name in self._counts or name.startswith(_VISITS)

    def _of(self, guard: Guard) -> tuple[Expression, tuple[tuple[Expression, str, Constraint | None], ...]]:
        if (read := self._read.get(guard.source)) is None:
            tree = guard.tree()
            read = tree, tuple([(piece, repr(piece), constraint(piece)) for piece in conjuncts(tree)])
            self._read[guard.source] = read
        return read


def check(conjunction: Conjunction, reader: Reader, findings: Findings) -> None:
    """Finds guards that are constant, that err whatever happens, that name no stage, or that contradict each other."""
    wrong = set()
    for pointer, _, tree in conjunction.guards:
        mistake = next(_mistakes(tree, reader, findings), None)
        if mistake is not None:
            wrong.add(pointer)
            findings.error(pointer, *mistake)
    known: dict[str, list[tuple[str, Constraint]]] = {}
    for given in conjunction.given:
        known.setdefault(given[1].name, []).append(given)
    for part in conjunction.parts:
        if (one := part.constraint) is None or part.pointer in wrong:
            continue
        before = known.setdefault(one.name, [])
        is_whole = reader.is_whole(one.name)
        if not possible([*(each for _, each in before), one], is_whole=is_whole):
            wrong.add(part.pointer)
            findings.error(part.pointer, *_contradiction(part, one, before, is_whole, findings))
            continue
        said = [(what, each) for what, each in conjunction.given if each.name == one.name]
        if (said or is_whole) and implied([one], [each for _, each in said], is_whole=is_whole):
            what = said[0][0] if said else f"what it is: {one.name} is an integer from 0 on"
            findings.warning(part.pointer, f"always holds, by {what}", "leave it out")
        before.append((repr(part.source[:80]), one))


def _mistakes(tree: Expression, reader: Reader, findings: Findings) -> Iterator[tuple[str, str | None]]:
    """What is wrong with one guard by itself."""
    if (constant := truth(tree)) is not None:
        yield f"always {'holds' if constant else 'fails'}, whatever happens", "compare a name with a value"
    for part in parts(tree):
        match part:
            case Broken(message):
                yield f"a part of it always errs: {message}", None
            case Call("==" | "!=", (Name(path), Literal(str() as stage)) | (Literal(str() as stage), Name(path))):
                if path == (STAGE,):
                    yield from _unknown_stage(stage, reader, findings)
            case Call("in", (Name(path), Literal(list() as stages))) if path == (STAGE,):
                for each in stages:
                    yield from _unknown_stage(str(each), reader, findings)
            case Name((root, str() as stage)) if root == _VISITS:
                yield from _unknown_stage(stage, reader, findings)


def _unknown_stage(stage: str, reader: Reader, findings: Findings) -> Iterator[tuple[str, str | None]]:
    if reader.stages and stage not in reader.stages:
        yield f"there is no stage {stage[:80]!r}", findings.meant(stage, reader.stages)


def _contradiction(
    part: Part, one: Constraint, before: Sequence[tuple[str, Constraint]], is_whole: bool, findings: Findings
) -> tuple[str, str | None]:
    if not possible([one], is_whole=is_whole):
        return "never holds" + (f": {one.name} is an integer from 0 on" if is_whole else ""), None
    against = [(what, each) for what, each in before if not possible([each, one], is_whole=is_whole)]
    if not against:
        return f"never holds together with what stands before it: no value of {one.name} will do", None
    what, other = against[-1]
    if what == repr(part.source[:80]):
        return f"contradicts itself: no value of {one.name} will do", None
    hint = None
    if one.name == TYPE and len(one.alternatives) == 1 and isinstance(one.alternatives[0].literal, str):
        types = [str(each.literal) for each in other.alternatives]
        hint = findings.meant(one.alternatives[0].literal, types)
    return f"never holds together with {what}: no value of {one.name} will do", hint


def given_by(name: str, values: Collection[str] | None, what: str) -> Sequence[tuple[str, Constraint]]:
    """What a rule's `on` or `from` says of a name, for its guards; nothing where it is left out."""
    return () if values is None else ((what, one_of(name, sorted(values))),)
