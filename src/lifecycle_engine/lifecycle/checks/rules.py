"""Rules among each other and against `moves`: which can never decide, which are always refused, which do nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lifecycle_engine.lifecycle.checks.conjunctions import STAGE, Conjunction, Reader
from lifecycle_engine.lifecycle.checks.findings import Findings
from lifecycle_engine.lifecycle.checks.ranges import implied, possible
from lifecycle_engine.lifecycle.definitions import Definition, Rule, Timer
from lifecycle_engine.lifecycle.durations import format_duration
from lifecycle_engine.lifecycle.expressions import Call, Expression, Name, parts

MOST_COMPARED = 5_000
"""Pairs of rules whose guards are compared; a definition that people read has far fewer."""


class ReadRule(NamedTuple):
    """A rule, its guards taken apart, and the stages in which it can match."""

    rule: Rule
    when: Conjunction
    origins: frozenset[str]

    @property
    def pointer(self) -> str:
        return f"/rules/{self.rule.index}"

    @property
    def leaves(self) -> frozenset[str]:
        """The stages in which it does something."""
        return self.origins if self.rule.reenter else self.origins - {self.rule.to}


def read_rule(rule: Rule, when: Conjunction, definition: Definition) -> ReadRule:
    asked = when.constraints.get(STAGE, ())
    stages = definition.stages if rule.origins is None else rule.origins
    return ReadRule(rule, when, frozenset(stage for stage in stages if all(one.holds(stage) for one in asked)))


def check(
    definition: Definition,
    rules: Sequence[ReadRule],
    requires: Mapping[str, Conjunction],
    reader: Reader,
    findings: Findings,
) -> None:
    """Finds what is wrong with rules, whose guards have nothing wrong by themselves."""
    for rule in rules:
        _check_moves(definition, rule, findings)
        _check_requires(rule, requires[rule.rule.to], reader, findings)
        if rule.rule.timer is not None:
            _check_timer(rule, rule.rule.timer, findings)
        elif rule.rule.is_condition:
            _check_condition(definition, rule, findings)
    _check_order(rules, reader, findings)
    _check_timers(definition, rules, findings)
    _check_ways(definition, rules, findings)


def _check_moves(definition: Definition, read: ReadRule, findings: Findings) -> None:
    """An error only where nothing but refusals can come of it, and somebody took the trouble to list the stages."""
    rule, to = read.rule, read.rule.to
    refused = sorted(stage for stage in read.leaves if not definition.allows(stage, to))
    if not refused:
        return
    hint = f"allow it in `moves`: {refused[0]}: [{to}]"
    if len(refused) == len(read.leaves):
        message = f"`moves` lets no journey go from {_listed(refused)} to {to}: this is refused each time"
        tell = findings.warning if rule.origins is None else findings.error
        tell(f"{read.pointer}/to", message, hint)
    elif rule.reenter and to in refused:
        findings.warning(f"{read.pointer}/reenter", f"`moves` has no entry from {to} to itself: this is refused", hint)
    elif rule.origins is not None:
        findings.warning(f"{read.pointer}/from", f"`moves` lets no journey go from {_listed(refused)} to {to}", hint)


def _check_requires(read: ReadRule, requires: Conjunction, reader: Reader, findings: Findings) -> None:
    if not read.leaves:
        return
    for part in requires.parts:
        one = part.constraint
        together = () if one is None else (*read.when.constraints.get(one.name, ()), one)
        if one is not None and not possible(together, is_whole=reader.is_whole(one.name)):
            message = f"always refused: {read.rule.to} requires {part.source[:80]!r}, which fails when it matches"
            findings.warning(f"{read.pointer}/to", message)
        is_choice = isinstance(part.expression, Call) and part.expression.function in ("||", "?:")
        if read.rule.timer is not None and not is_choice and _asks_for_event(part.expression):
            message = f"always refused: {read.rule.to} requires {part.source[:80]!r}, and a timer has no `event`"
            findings.warning(f"{read.pointer}/to", message)


def _check_timer(read: ReadRule, timer: Timer, findings: Findings) -> None:
    if read.origins and not read.leaves:
        message = f"does nothing: when it fires the journey is in {read.rule.to} already"
        findings.warning(f"{read.pointer}/to", message, "say `reenter: true` for a new stay")
    if timer.warn == timer.after:
        message = "as long as the timer itself: it is announced the moment that its clock starts"
        findings.warning(f"{read.pointer}/warn", message)


def _check_condition(definition: Definition, read: ReadRule, findings: Findings) -> None:
    windows = [f"measures.{measure.name}" for _, measure in definition.windows]
    named = {part.path[0] for each in read.when.parts for part in parts(each.expression) if isinstance(part, Name)}
    window = next((name for name in windows if name in named), None)
    if window and any(_asks_for_event(each.expression) for each in read.when.parts):
        message = f"names `event`, so it never holds when something leaves the window of {window}: then there is none"
        findings.warning(f"{read.pointer}/when", message)


def _asks_for_event(expression: Expression) -> bool:
    return any(isinstance(part, Name) and part.path[0].startswith("event.") for part in parts(expression))


def _check_order(rules: Sequence[ReadRule], reader: Reader, findings: Findings) -> None:
    """3: the first rule that matches decides, so some below it never do."""
    comparing = _Comparing(reader)
    above: list[ReadRule] = []
    for read in rules:
        if read.rule.timer is not None:
            continue
        # For each type at which it is judged (None: any), the stages for which no rule above decides.
        left = {type_: set(read.origins) for type_ in read.rule.types or (None,)}
        deciding: list[int] = []
        for other in above:
            covered = left.keys() if other.rule.types is None else left.keys() & other.rule.types
            open_ = [type_ for type_ in covered if not left[type_].isdisjoint(other.origins)]
            if open_ and comparing.follows(read.when, other.when):
                deciding.append(other.rule.index)
                for type_ in open_:
                    left[type_] -= other.origins
                if not any(left.values()):
                    break
        above.append(read)
        if read.origins and not any(left.values()):
            plural = "rules" if len(deciding) > 1 else "rule"
            numbers = _listed([str(index) for index in deciding])
            findings.warning(
                read.pointer,
                f"never decides: {plural} {numbers} (counted from 0) above decide{'' if plural == 'rules' else 's'} "
                "whenever it would match",
                f"move it above rule {deciding[0]}",
            )


class _Comparing:
    """Whether guards hold whenever others do, as far as that can be told, and is worth it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._budget = MOST_COMPARED

    def follows(self, first: Conjunction, then: Conjunction) -> bool:
        """Whether all of `then` holds whenever all of `first` does, in stages where both can match."""
        for part in then.parts:
            if part.key in first.keys:
                continue
            one = part.constraint
            if one is None or not (known := first.constraints.get(one.name)) or self._budget == 0:
                return False
            self._budget -= 1
            if one.name != STAGE and not implied([one], known, is_whole=self._reader.is_whole(one.name)):
                return False
        return True


def _check_timers(definition: Definition, rules: Sequence[ReadRule], findings: Findings) -> None:
    """Of two clocks that run together, the one that always takes the journey away first leaves none for the other."""
    timers = [(read, read.rule.timer) for read in rules if read.rule.timer is not None]
    for read, timer in timers:
        for other, shorter in timers:
            if (
                other is not read
                and not other.when.parts
                and read.origins
                and read.origins <= other.origins
                and other.rule.to not in other.origins
                and not definition.stages[other.rule.to].requires
                and all(definition.allows(stage, other.rule.to) for stage in other.origins)
                and (shorter.after, other.rule.index) < (timer.after, read.rule.index)
                and _waits_for_less(shorter, timer)
            ):
                message = (
                    f"never fires: rule {other.rule.index} (counted from 0) takes the journey to {other.rule.to} "
                    f"after {format_duration(shorter.after)} already"
                )
                findings.warning(f"{read.pointer}/after", message)
                break


def _waits_for_less(timer: Timer, other: Timer) -> bool:
    """Whether each touchpoint that starts the first clock anew starts the other one anew too."""
    if timer.without is None or other.without == frozenset():
        return True
    return bool(timer.without) and other.without is not None and timer.without <= other.without


def _check_ways(definition: Definition, rules: Sequence[ReadRule], findings: Findings) -> None:
    """Finds the stages to which no rules lead, and the rules that begin only there."""
    reached = {definition.initial, *definition.rename.values()}
    while True:
        further = {
            read.rule.to
            for read in rules
            if any(definition.allows(stage, read.rule.to) for stage in read.leaves & reached)
        }
        if further <= reached:
            break
        reached |= further
    for stage in definition.stages.values():
        if stage.key not in reached:
            message = f"no rules lead to {stage.key} from {definition.initial}: only an override does"
            findings.warning(f"/stages/{stage.rank}/key", message)
    for read in rules:
        if read.rule.origins is not None and read.origins and not read.origins & reached:
            message = f"never matches: no rules lead to {_listed(sorted(read.origins))}"
            findings.warning(f"{read.pointer}/from", message)


def _listed(words: Sequence[str]) -> str:
    shown = [*words[:5], "…"] if len(words) > 5 else list(words)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
