"""What there is to be drawn: each rule once, with the stages that it can really lead away from."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from lifecycle_engine.lifecycle.definitions import Definition, Rule
from lifecycle_engine.lifecycle.durations import format_duration


class Kind(StrEnum):
    """What makes a rule be judged."""

    TOUCHPOINT = "touchpoint"
    TIMER = "timer"
    CONDITION = "condition"


class Crowd(StrEnum):
    """So many stages that they are drawn as one."""

    ANY = "any"
    ANY_OTHER = "any_other"


class Arrow(NamedTuple):
    """One rule. `origins`, by rank, are the stages from which it can make a transition to `rule.to`; maybe none.

    `crowd` says that these are all, or all but the target, of a rule that doesn't name where it starts.
    """

    rule: Rule
    origins: tuple[str, ...]
    crowd: Crowd | None

    @property
    def kind(self) -> Kind:
        if self.rule.timer is not None:
            return Kind.TIMER
        return Kind.CONDITION if self.rule.is_condition else Kind.TOUCHPOINT

    @property
    def cause(self) -> str:
        """What it waits for, in the words of the document; empty for a condition, which is its guards."""
        if self.rule.timer is None:
            return ", ".join(sorted(self.rule.types or ()))
        timer = self.rule.timer
        without = "" if timer.without is None else f" without {', '.join(sorted(timer.without)) or 'any'}"
        warn = "" if timer.warn is None else f", warn {format_duration(timer.warn)}"
        return f"after {format_duration(timer.after)}{without}{warn}"

    @property
    def guards(self) -> tuple[str, ...]:
        return tuple(guard.source for guard in self.rule.when)


def arrows(definition: Definition) -> tuple[Arrow, ...]:
    """All rules in their order."""
    return tuple(_arrow(definition, rule) for rule in definition.rules)


def _arrow(definition: Definition, rule: Rule) -> Arrow:
    origins = tuple(
        stage
        for stage in definition.stages
        if rule.is_from(stage) and definition.allows(stage, rule.to) and (stage != rule.to or rule.reenter)
    )
    crowd = None
    if rule.origins is None and len(origins) > 1:
        if len(origins) == len(definition.stages):
            crowd = Crowd.ANY
        elif len(origins) == len(definition.stages) - 1 and rule.to not in origins:
            crowd = Crowd.ANY_OTHER
    return Arrow(rule, origins, crowd)
