"""Why a journey is where it is, or is not: the fold once more, this time with notes.

What an explanation says is worked out here from the situations that the fold met, apart from what the fold decided
there; that the two agree is a law that tests hold. Nothing is ever changed by explaining. Facts are always those of one
customer, in the order of their places; instants are in microseconds since the epoch, UTC. The sentences for people are
made of these values in `sentences`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

from lifecycle_engine.lifecycle.definitions import BEGINNING, ActiveDefinition, Rule, Timeline
from lifecycle_engine.lifecycle.evidence import Examined, examined
from lifecycle_engine.lifecycle.fold import NO_SUBJECT, as_of, fold, in_force, subject_of
from lifecycle_engine.lifecycle.journeys import CustomerState, Decision, Event, JourneyState, Phase
from lifecycle_engine.lifecycle.situations import Situation
from lifecycle_engine.lifecycle.touchpoints import IDENTIFY, OVERRIDE, Touchpoint

MAX_JUDGEMENTS = 50
"""Of one instant, and of the refusals of one stage, so many are told at most: the last ones."""


class UnknownStageError(ValueError):
    """The version that was in force has no such stage."""


class Outcome(StrEnum):
    """What became of one rule at one judgement. All but the last three say why it was not looked at."""

    ON = "on"
    """It is for touchpoints of other types, or there was no touchpoint."""
    TIMER = "timer"
    """It is a timer, and not the one that ran out."""
    CONDITION = "condition"
    """It is a condition, and none is judged when a timer runs out."""
    LATER = "later"
    """It comes after the one that decided."""
    FROM = "from"
    """The journey was in none of the stages that it starts from."""
    WHEN = "when"
    """Not all of its guards held."""
    DECIDED = "decided"
    """It was the first to match."""


class Trial(NamedTuple):
    """One rule at one judgement. `moves` and `requires` tell of its target, and only where it decided on a move."""

    rule: Rule
    outcome: Outcome
    when: tuple[Examined, ...] = ()
    moves: bool | None = None
    requires: tuple[Examined, ...] = ()


VerdictKind = Literal["moved", "stayed", "refused", "unmatched"]
Occasion = Literal["touchpoint", "identify", "timer", "window", "definition"]

_OCCASIONS: Mapping[int, Occasion] = {
    Phase.SWITCHED: "definition",
    Phase.DEADLINE: "timer",
    Phase.WINDOW: "window",
}


class Judgement(NamedTuple):
    """One judgement: the situation, what became of every rule of the definition, and what came of it."""

    situation: Situation
    trials: tuple[Trial, ...]
    verdict: VerdictKind
    decision: Decision | None

    @property
    def occasion(self) -> Occasion:
        situation = self.situation
        if situation.phase == Phase.FACT:
            return "identify" if situation.touchpoint is None else "touchpoint"
        return _OCCASIONS[situation.phase]

    @property
    def decided(self) -> Trial | None:
        """The rule that decided."""
        return next((trial for trial in self.trials if trial.outcome is Outcome.DECIDED), None)

    @property
    def is_unseen(self) -> bool:
        """Whether it went on beneath an operator's pin, and nobody was told of it."""
        journey = self.situation.journey
        return journey is not None and journey.is_pinned


Untouched = Literal["no_subject", "not_opening", "other_journey", "no_journey", "retired"]


class Account(NamedTuple):
    """Where a journey stood after a touchpoint, or at an instant, and what led there.

    `active` is the version in force, `journey` None where it had not opened. `transition` is the last one that was told
    of, `decided_by` the judgement behind it: there is none for an override, a pin's end or a renamed stage, nor in the
    account of a touchpoint. `judgements` and `lines` are those at the instant, or of the touchpoint; `untouched` tells
    why that touched no journey.
    """

    lifecycle: str
    subject: str | None
    at: int
    active: ActiveDefinition
    journey: JourneyState | None = None
    transition: Event | None = None
    decided_by: Judgement | None = None
    judgements: tuple[Judgement, ...] = ()
    lines: tuple[Event, ...] = ()
    untouched: Untouched | None = None


class Way(NamedTuple):
    """A rule that aims at a stage, and how near it is to leading there.

    `is_from` and `moves` tell whether the present stage is among its `from` and may be left for that stage. `due` is
    when a timer fires, None where its clock does not run. `last` is the last judgement that the rule took part in, also
    where an earlier rule decided; None: there was none under this version.
    """

    rule: Rule
    is_from: bool
    when: tuple[Examined, ...]
    moves: bool
    requires: tuple[Examined, ...]
    due: int | None
    last: Judgement | None


class Absence(NamedTuple):
    """Why a journey is not in a stage: every rule that aims there, and the moves there that were refused.

    `ways` is empty where it is in that stage.
    """

    account: Account
    stage: str
    is_there: bool
    ways: tuple[Way, ...]
    refusals: tuple[Event, ...]


# -- the three questions ---------------------------------------------------------------------------------------------


class Known(NamedTuple):
    """What is known of a customer, and the lifecycle that it is judged by.

    `reached` is the last instant of the customer's history. What would be told of after it, and after the last fact, is
    not taken to have happened: the engine has not got there, and a fact that is on its way may yet prevent it. None: it
    has happened.
    """

    key: str
    timeline: Timeline
    facts: Sequence[Touchpoint]
    reached: int | None = None


def explain_touchpoint(known: Known, fact: Touchpoint, subject: str | None = None) -> list[Account]:
    """What one of the facts did in the lifecycle: in one journey, or (an identify) in each one that was open.

    With a `subject`, only in the journey that is about it.
    """
    place = fact.place
    if fact.type != OVERRIDE and in_force(known.timeline, fact.occurred_at).definition.is_retired:
        return [_untouched(known, fact, subject, "retired")]
    notes = _Notes(
        lambda event: event.place == place,
        lambda situation: situation.fact is not None and situation.fact.place == place,
    )
    upto = known.facts[: bisect_right(known.facts, place, key=lambda each: each.place)]
    state = fold({known.key: known.timeline}, upto, tell=notes.tell, judge=notes.judge)
    if fact.type == IDENTIFY:
        found = [each for each in state.journeys.get(known.key, {}) if subject is None or each == subject]
        if found:
            return [_account(known, notes, state, each, fact.occurred_at) for each in sorted(found, key=str)]
        return [_untouched(known, fact, subject, "no_journey")]
    if fact.type == OVERRIDE:
        about = fact.properties.get("subject") if fact.properties["lifecycle"] == known.key else NO_SUBJECT
        if about not in notes.journals or subject not in (None, about):
            return [_untouched(known, fact, subject, "other_journey")]
        return [_account(known, notes, state, about, fact.occurred_at)]
    about = subject_of(known.timeline[0].definition, fact)
    if about is NO_SUBJECT:
        return [_untouched(known, fact, subject, "no_subject")]
    if subject not in (None, about):
        return [_untouched(known, fact, subject, "other_journey")]
    account = _account(known, notes, state, about, fact.occurred_at)
    if account.journey is None:
        return [account._replace(untouched="not_opening")]
    if not account.judgements:
        return [account._replace(judgements=(_unjudged(account, fact),))]
    return [account]


def explain_instant(known: Known, at: int, subject: str | None = None) -> Account:
    """Where a journey stood at an instant, the judgement that had led there, and those of that very instant."""
    notes, state = _folded(known, at)
    return _at(known, notes, state, at, subject)


def explain_absence(known: Known, at: int, stage: str, subject: str | None = None) -> Absence:
    """Why a journey was not in a stage at an instant. Raises UnknownStageError."""
    notes, state = _folded(known, at, stage)
    account = _at(known, notes, state, at, subject)
    definition, journey, journal = account.active.definition, account.journey, notes.of(subject)
    if stage not in definition.stages:
        version, stages = account.active.version, ", ".join(definition.stages)
        raise UnknownStageError(f"version {version} of {known.key!r} has no stage {stage[:80]!r}; it has {stages}")
    refusals = tuple(journal.refusals)
    if journey is not None and journey.current.stage == stage:
        return Absence(account, stage, True, (), refusals)
    if journey is None:
        totals = tuple(measure.empty for measure in definition.measures)
    else:
        totals = as_of(definition, journey, at).totals
    own = journey.stage if journey else definition.initial
    now = Situation(account.active, subject, at, Phase.FACT, own, journey, totals, state.traits, None)
    ways = tuple(_way(rule, now, journal) for rule in definition.rules if rule.to == stage)
    return Absence(account, stage, False, ways, refusals)


def _folded(known: Known, at: int, aim: str | None = None) -> tuple[_Notes, CustomerState]:
    facts = known.facts[: bisect_right(known.facts, at, key=lambda each: each.occurred_at)]
    reached, until = known.reached, at
    if reached is not None and facts:
        reached = max(reached, facts[-1].occurred_at)
    while True:
        notes = _Notes(lambda event: event.at == at, lambda situation: situation.at == at, aim)
        state = fold({known.key: known.timeline}, facts, tell=notes.tell, until=until, judge=notes.judge)
        if reached is None or notes.told_last <= reached:
            return notes, state
        until = reached


def _at(known: Known, notes: _Notes, state: CustomerState, at: int, subject: str | None) -> Account:
    account, journal = _account(known, notes, state, subject, at), notes.of(subject)
    if (transition := account.transition) is None:
        return account
    if journal.led is not None:
        return account._replace(decided_by=journal.led)
    if transition.move == "start" and transition.cause == "touchpoint":
        by = (transition.touchpoint, transition.source)
        fact = next(each for each in known.facts if (each.id, each.source) == by)
        opening = account._replace(active=in_force(known.timeline, fact.occurred_at), lines=(transition,))
        return account._replace(decided_by=_unjudged(opening, fact))
    return account


def _account(known: Known, notes: _Notes, state: CustomerState, subject: str | None, at: int) -> Account:
    journal, journey = notes.of(subject), state.journey(known.key, subject)
    active = known.timeline[journey.epoch] if journey else in_force(known.timeline, at)
    judged, lines = tuple(journal.judged), tuple(journal.lines)
    return Account(known.key, subject, at, active, journey, journal.transition, None, judged, lines)


def _untouched(known: Known, fact: Touchpoint, subject: str | None, reason: Untouched) -> Account:
    active = in_force(known.timeline, fact.occurred_at)
    return Account(known.key, subject, fact.occurred_at, active, untouched=reason)


def _unjudged(account: Account, fact: Touchpoint) -> Judgement:
    """What there is to say of a touchpoint that no rule concerns: the fold then judges nothing."""
    journey, active = account.journey, account.active
    stage = journey.stage if journey else active.definition.initial
    if any(line.move == "start" for line in account.lines):
        stage, journey = active.definition.initial, None
    situation = Situation(active, account.subject, fact.occurred_at, Phase.FACT, stage, journey, (), {}, fact)
    return examine((), situation)


# -- one judgement ---------------------------------------------------------------------------------------------------


def examine(rules: Sequence[Rule], situation: Situation) -> Judgement:
    """Every rule of the definition in one situation; `rules` are those that the fold judged there."""
    definition, stage = situation.definition, situation.stage
    trials: list[Trial] = []
    decided: Trial | None = None
    for rule in definition.rules:
        outcome = _unconcerned(rule, rules, situation)
        if outcome is None and decided is not None:
            outcome = Outcome.LATER
        if outcome is None and not rule.is_from(stage):
            outcome = Outcome.FROM
        if outcome is not None:
            trials.append(Trial(rule, outcome))
            continue
        when = examined(rule.when, situation)
        if not all(one.held for one in when):
            trials.append(Trial(rule, Outcome.WHEN, when))
            continue
        decided = Trial(rule, Outcome.DECIDED, when)
        if rule.to != stage or rule.reenter:
            requires = examined(definition.stages[rule.to].requires, situation)
            decided = decided._replace(moves=definition.allows(stage, rule.to), requires=requires)
        trials.append(decided)
    if decided is None:
        return Judgement(situation, tuple(trials), "unmatched", None)
    if decided.moves is None:
        return Judgement(situation, tuple(trials), "stayed", None)
    refusal = _refusal(decided)
    verdict: VerdictKind = "moved" if refusal is None else "refused"
    return Judgement(situation, tuple(trials), verdict, Decision(decided.rule.index, decided.rule.to, refusal))


def _unconcerned(rule: Rule, rules: Sequence[Rule], situation: Situation) -> Outcome | None:
    """Why a rule is not for this occasion; None if it is."""
    if rule.timer is not None:
        return None if any(one is rule for one in rules) else Outcome.TIMER
    if rule.types is not None:
        touchpoint = situation.touchpoint
        return None if touchpoint is not None and touchpoint.type in rule.types else Outcome.ON
    return Outcome.CONDITION if situation.phase == Phase.DEADLINE else None


def _refusal(decided: Trial) -> str | None:
    if not decided.moves:
        return "moves"
    return next((f"requires[{place}]" for place, one in enumerate(decided.requires) if not one.held), None)


def _way(rule: Rule, now: Situation, journal: _Journal) -> Way:
    definition, stage, journey = now.definition, now.stage, now.journey
    requires = definition.stages[rule.to].requires
    due = None
    if rule.timer is not None and journey is not None:
        place = next(place for place, (timer, _) in enumerate(definition.timers) if timer is rule)
        started = journey.clocks[place]
        due = None if started is None else started + rule.timer.after
    awaits = rule.timer is None
    return Way(
        rule,
        rule.is_from(stage),
        examined(rule.when, now, awaits_touchpoint=awaits),
        definition.allows(stage, rule.to),
        examined(requires, now, awaits_touchpoint=awaits),
        due,
        journal.tried.get((now.active.version, rule.index)),
    )


# -- notes -----------------------------------------------------------------------------------------------------------


class _Journal:
    """What was noted of one journey. A judgement holds on to all totals, so only what will be told of is kept."""

    def __init__(self) -> None:
        self.last: Judgement | None = None
        self.transition: Event | None = None
        self.led: Judgement | None = None
        self.judged: deque[Judgement] = deque(maxlen=MAX_JUDGEMENTS)
        self.lines: deque[Event] = deque(maxlen=MAX_JUDGEMENTS)
        self.tried: dict[tuple[int, int], Judgement] = {}
        self.refusals: deque[Event] = deque(maxlen=MAX_JUDGEMENTS)


class _Notes:
    """Takes notes while one lifecycle is folded: by `is_line` and `is_judged` it knows what is asked about.

    With an `aim` it also notes the last judgement of each rule that aims at that stage, and the refusals of it.
    """

    def __init__(
        self, is_line: Callable[[Event], bool], is_judged: Callable[[Situation], bool], aim: str | None = None
    ) -> None:
        self.journals: dict[str | None, _Journal] = {}
        self.told_last = BEGINNING
        self._is_line = is_line
        self._is_judged = is_judged
        self._aim = aim

    def of(self, subject: str | None) -> _Journal:
        return self.journals.setdefault(subject, _Journal())

    def judge(self, rules: Sequence[Rule], situation: Situation) -> Decision | None:
        journal = self.of(situation.subject)
        judgement = journal.last = examine(rules, situation)
        if self._is_judged(situation):
            journal.judged.append(judgement)
        if self._aim is not None:
            for rule in rules:
                if rule.to == self._aim:
                    journal.tried[situation.active.version, rule.index] = judgement
        return judgement.decision

    def tell(self, event: Event) -> None:
        journal, self.told_last = self.of(event.subject), event.at
        if self._is_line(event):
            journal.lines.append(event)
        if event.is_stay:
            journal.transition = event
            journal.led = journal.last if event.cause not in ("override", "definition") else None
        elif event.stage == self._aim:
            journal.refusals.append(event)
