"""The law: what a customer's facts, in the order of their places, make of each lifecycle as time passes.

Everything that decides a stage lives here. This module knows no clock, no store and no arrival order: given the same
definitions, the same set of facts and the same last instant, it gives the same history, however they came. The rules
are those of "The fold, precisely" in the project's contract; the numbers in comments are its paragraphs. What it leaves
open is settled in docs/fold.md.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

from lifecycle_engine.lifecycle.definitions import ActiveDefinition, Definition, Rule, Timeline, Timer
from lifecycle_engine.lifecycle.instants import parse_instant
from lifecycle_engine.lifecycle.journeys import (
    UNKNOWN,
    CauseKind,
    CustomerState,
    Decision,
    Event,
    JourneyState,
    Move,
    Phase,
    Prospect,
    Shown,
)
from lifecycle_engine.lifecycle.measures import Total, value_at
from lifecycle_engine.lifecycle.situations import Situation
from lifecycle_engine.lifecycle.touchpoints import IDENTIFY, OVERRIDE, RESERVED, Place, Touchpoint

Definitions = Mapping[str, Timeline]
"""The active lifecycles by key."""

Tell = Callable[[Event], object]

CHECKPOINT_EVERY = 16
NEVER = 1 << 62


class Judge(Protocol):
    """Decides what one instant leads to. There is one that decides, and one in `explanations` that also takes notes."""

    def __call__(self, rules: Sequence[Rule], situation: Situation) -> Decision | None: ...


def judge(rules: Sequence[Rule], situation: Situation) -> Decision | None:
    """3: the first rule that matches decides, also when it then does nothing or is refused.

    The rules are those that the occasion concerns: whether `on` matches has been looked up.
    """
    definition, stage = situation.definition, situation.stage
    values = None
    for rule in rules:
        if rule.origins is not None and stage not in rule.origins:
            continue
        if rule.when:
            if values is None:
                values = situation.values
            holds = True
            for guard in rule.when:
                # All of them, so that what errs is counted the same whatever comes before it.
                if not guard.holds(values):
                    holds = False
            if not holds:
                continue
        if rule.to == stage and not rule.reenter:
            return None
        if not definition.allows(stage, rule.to):
            return Decision(rule.index, rule.to, "moves")
        for index, guard in enumerate(definition.stages[rule.to].requires):
            if not guard.holds(situation.values):
                return Decision(rule.index, rule.to, f"requires[{index}]")
        return Decision(rule.index, rule.to, None)
    return None


def step(
    definitions: Definitions, state: CustomerState, touchpoint: Touchpoint
) -> tuple[CustomerState, tuple[Event, ...]]:
    """Folds one fact that sorts after everything in `state`; ValueError if it does not."""
    events: list[Event] = []
    state = fold(definitions, (touchpoint,), state, events.append)
    return state, tuple(events)


def fold(
    definitions: Definitions,
    touchpoints: Iterable[Touchpoint],
    state: CustomerState = UNKNOWN,
    tell: Tell = lambda _: None,
    checkpoint: Callable[[CustomerState], object] | None = None,
    until: int | None = None,
    judge: Judge = judge,
) -> CustomerState:
    """Folds facts, sorted by place and all after `state.place`, and tells each line of history as it comes.

    Then works through what falls due up to and at the instant `until` (microseconds since the epoch, UTC). `checkpoint`
    is now and then given the state after a fact. ValueError where the order is broken: whoever calls this out of order
    would write an untrue history.
    """
    folding = _Folding(definitions, state, tell, judge)
    facts = state.facts
    # Not yet as a Place: few of them are asked for.
    place: tuple[int, str, str] | None = state.place
    for touchpoint in touchpoints:
        before, place = place, (touchpoint.occurred_at, touchpoint.id, touchpoint.source)
        if before is not None and place <= before:
            raise ValueError(f"{Place(*place)} does not sort after {before}")
        facts += 1
        folding.work_through(touchpoint.occurred_at)
        folding.take(touchpoint)
        if checkpoint is not None and facts % CHECKPOINT_EVERY == 0 and folding.is_worth_keeping(facts):
            checkpoint(folding.state(Place(*place), facts, is_final=False))
    if until is not None and (last := folding.work_through(until)) is not None:
        place = (last, "", "")
    return folding.state(None if place is None else Place(*place), facts)


class _Folding:
    """The journeys of one customer while facts and instants are worked through, in their order."""

    def __init__(self, definitions: Definitions, state: CustomerState, tell: Tell, judge: Judge) -> None:
        self._definitions = definitions
        self._journeys = {
            key: dict(subjects) if key in definitions else _at_rest(subjects)
            for key, subjects in state.journeys.items()
        }
        self._traits = state.traits
        self._tell = tell
        self._judge = judge
        # Never later than the first wake of a journey; exact again after each look.
        self._wake = state.wake
        # Rules, stage and totals with which nothing was decided, where guards ask for measures only: until one of them
        # is another, nothing will be. An explaining judge takes notes of every time.
        self._idle: dict[tuple[str, str | None], tuple[Sequence[Rule], str, tuple[Total, ...]]] = {}

    def state(self, place: Place | None, facts: int, *, is_final: bool = True) -> CustomerState:
        journeys = self._journeys if is_final else {key: dict(subjects) for key, subjects in self._journeys.items()}
        return CustomerState(place, facts, journeys, self._traits)

    def is_worth_keeping(self, facts: int) -> bool:
        """States that carry much are kept rarely, so that checkpoints never outgrow the facts by far."""
        entries = sum(
            measure.held(journey.totals[index])
            for key, timeline in self._definitions.items()
            for journey in self._journeys.get(key, {}).values()
            for index, measure in timeline[journey.epoch].definition.windows
        )
        journeys = sum(map(len, self._journeys.values()))
        return facts % (CHECKPOINT_EVERY << ((entries + 8 * journeys) // 256).bit_length()) == 0

    # -- what is due without a fact ----------------------------------------------------------------------------------

    def work_through(self, until: int) -> int | None:
        """1: works through all that falls due up to and at `until`, in its order; gives the last instant of it."""
        if self._wake is None or self._wake > until:
            return None
        last = None
        due = [
            (journey.wake, key, subject or "", subject)
            for key, subjects in self._journeys.items()
            for subject, journey in subjects.items()
            if journey.wake is not None and journey.wake <= until
        ]
        heapq.heapify(due)
        while due:
            last, key, _, subject = heapq.heappop(due)
            after = self._wake_up(key, subject, self._journeys[key][subject], last)
            self._journeys[key][subject] = after
            if after.wake is not None and after.wake <= until:
                heapq.heappush(due, (after.wake, key, subject or "", subject))
        self._wake = CustomerState(None, 0, self._journeys, {}).wake
        return last

    def _wake_up(self, key: str, subject: str | None, journey: JourneyState, at: int) -> JourneyState:
        """Everything that is due at one instant, in the order of its phases."""
        timeline = self._definitions[key]
        totals = journey.totals
        if journey.epoch + 1 < len(timeline) and timeline[journey.epoch + 1].since <= at:
            totals = journey.later[0].totals
            journey = self._switch(timeline, subject, journey, at)
        active = timeline[journey.epoch]
        definition, shown = active.definition, journey.shown
        if shown is not None and shown.until is not None and shown.until <= at and not definition.is_retired:
            journey = self._unpin(active, subject, journey, shown, at)
        ends = any(measure.ends_at(totals[n], at) for n, measure in definition.watched)
        journey = as_of(definition, journey, at)
        for index, (rule, timer) in enumerate(definition.timers):
            started = journey.clocks[index]
            if started is not None and started + timer.after <= at:
                clocks = (*journey.clocks[:index], None, *journey.clocks[index + 1 :])
                journey = journey._replace(clocks=clocks)
                journey = self._decide((rule,), timeline, subject, journey, at, Phase.DEADLINE)
        if ends:
            journey = self._decide(definition.conditions, timeline, subject, journey, at, Phase.WINDOW)
        return journey._replace(wake=_wake(timeline, journey))

    def _switch(self, timeline: Timeline, subject: str | None, journey: JourneyState, at: int) -> JourneyState:
        """10: the next version takes over, with what it makes of all facts; stages that it lacks are renamed."""
        active = timeline[journey.epoch + 1]
        definition = active.definition
        (totals, clocks), *later = journey.later
        if definition.is_retired:
            # What was measured stays as it was, and no clock runs.
            totals, clocks = journey.totals, (None,) * len(definition.timers)
        visits: dict[str, int] = {}
        for stage, begun in journey.visits.items():
            name = definition.named_here(stage)
            visits[name] = visits.get(name, 0) + begun
        was, shown = journey, journey.shown
        journey = journey._replace(
            visits=visits, totals=totals, clocks=clocks, later=tuple(later),
            epoch=journey.epoch + 1, definition_version=active.version,
        )  # fmt: skip
        if was.stage not in definition.stages:
            name = definition.named_here(was.stage)
            journey = journey._replace(stage=name, entered_at=at, previous_stage=was.stage)
        current = was.current
        if current.stage not in definition.stages:
            name = definition.named_here(current.stage)
            shown = shown and shown._replace(stage=name, entered_at=at, previous_stage=current.stage)
            self._tell(
                Event(
                    definition.key, subject, at, name, current.stage, "reenter", (), "definition", None, None, None,
                    active.version, None, Phase.SWITCH,
                )
            )  # fmt: skip
        journey = journey._replace(shown=_overlay(journey, shown))
        journey = as_of(definition, journey, at)
        return self._decide(definition.conditions, timeline, subject, journey, at, Phase.SWITCHED)

    def _unpin(
        self, active: ActiveDefinition, subject: str | None, journey: JourneyState, shown: Shown, at: int
    ) -> JourneyState:
        """9: at the end of a pin a stay begins where the fold beneath has got to, unless that is the same stage."""
        shown = shown._replace(until=None)
        if journey.stage != shown.stage:
            self._tell(
                _event(active, subject, at, journey.stage, shown.stage, "override", None, (shown.id, shown.source),
                       phase=Phase.PIN)
            )  # fmt: skip
            shown = shown._replace(stage=journey.stage, entered_at=at, previous_stage=shown.stage)
        return journey._replace(shown=_overlay(journey, shown))

    # -- facts -------------------------------------------------------------------------------------------------------

    def take(self, fact: Touchpoint) -> None:
        """One fact, in every journey that it touches."""
        if fact.type[0] == RESERVED:
            if fact.type == IDENTIFY:
                self._identify(fact)
            elif fact.type == OVERRIDE:
                self._override(fact)
            return
        for key, timeline in self._definitions.items():
            subject = None
            if timeline[0].definition.subject_path is not None:
                subject = subject_of(timeline[0].definition, fact)
                if subject is NO_SUBJECT:
                    continue
            subjects = self._journeys.get(key)
            journey = subjects.get(subject) if subjects else None
            after = self._take(timeline, subject, journey, fact)
            if after is not None and after is not journey:
                self._keep(key, subject, after)

    def _keep(self, key: str, subject: str | None, journey: JourneyState) -> None:
        subjects = self._journeys.get(key)
        if subjects is None:
            subjects = self._journeys[key] = {}
        subjects[subject] = journey
        if journey.wake is not None and (self._wake is None or journey.wake < self._wake):
            self._wake = journey.wake

    def _take(
        self, timeline: Timeline, subject: str | None, journey: JourneyState | None, fact: Touchpoint
    ) -> JourneyState | None:
        """One touchpoint in one journey: it enters the measures, then is judged (3); the first one may open it (2)."""
        at = fact.occurred_at
        if journey is None:
            active = in_force(timeline, at)
            definition = active.definition
            if definition.opens is not None and fact.type not in definition.opens:
                return None
            stage, totals = definition.initial, tuple([measure.empty for measure in definition.measures])
        else:
            active = timeline[journey.epoch]
            definition = active.definition
            stage, totals = journey.stage, journey.totals
        concerned = definition.concerned(fact.type)
        if definition.windows:
            totals = _let_go(definition, totals, at)
        if concerned.measures:
            taken = list(totals)
            for index, measure in concerned.measures:
                taken[index] = measure.take(taken[index], fact)
            totals = tuple(taken)
        decision = None
        if concerned.rules:
            decision = self._ask(concerned.rules, active, subject, at, Phase.FACT, stage, journey, totals, fact, fact)
        if decision is None or decision.refusal is not None:
            target, moved = stage, None
        else:
            target, moved = decision.stage, decision
        if journey is None:
            cause = _cause(definition, moved, "touchpoint")
            rule = moved.rule if moved else None
            self._tell(_opening(active, subject, at, target, cause, rule, fact))
            after = JourneyState(target, at, None, {target: 1}, totals, active.version, epoch=timeline.index(active))
        else:
            after = journey if totals is journey.totals else _with(journey, totals)
            if moved is not None:
                cause = _cause(definition, moved, "touchpoint")
                after = self._enter(active, subject, after, target, at, cause, moved.rule, fact)
        if decision is not None and decision.refusal is not None and (journey is None or not journey.is_pinned):
            cause = _cause(definition, decision, "touchpoint")
            self._tell(_refusal(active, subject, at, stage, decision, cause, fact, Phase.FACT))
        return _settled(timeline, journey, after, at, fact.type, concerned.resets, fact)

    def _ask(
        self,
        rules: Sequence[Rule],
        active: ActiveDefinition,
        subject: str | None,
        at: int,
        phase: Phase,
        stage: str,
        journey: JourneyState | None,
        totals: tuple[Total, ...],
        touchpoint: Touchpoint | None,
        fact: Touchpoint | None,
    ) -> Decision | None:
        """What rules decide; without asking where they have been seen to decide nothing in just this situation."""
        definition = active.definition
        may_be_idle = not definition.names and self._judge is judge
        if may_be_idle:
            known = self._idle.get((definition.key, subject))
            if known is not None and known[0] is rules and known[1] == stage and known[2] is totals:
                return None
        errors = definition.compiler.errors
        situation = Situation(active, subject, at, phase, stage, journey, totals, self._traits, touchpoint, fact)
        decision = self._judge(rules, situation)
        # Where a guard has erred, it is asked each time: how often it does so must not depend on batches.
        if may_be_idle and decision is None and definition.compiler.errors == errors:
            self._idle[definition.key, subject] = rules, stage, totals
        return decision

    def _identify(self, fact: Touchpoint) -> None:
        """13: traits are the last values by event time; 6: then the conditions are judged."""
        given = fact.properties.get("traits")
        traits = {**self._traits, **(given if isinstance(given, dict) else {})}
        self._traits = {name: value for name, value in traits.items() if value is not None}
        at = fact.occurred_at
        for key, timeline in self._definitions.items():
            for subject, journey in self._journeys.get(key, {}).items():
                definition = timeline[journey.epoch].definition
                if definition.conditions:
                    asked = as_of(definition, journey, at)
                    after = self._decide(definition.conditions, timeline, subject, asked, at, Phase.FACT, fact)
                    self._keep(key, subject, after._replace(wake=_wake(timeline, after)))

    def _override(self, fact: Touchpoint) -> None:
        """9: an operator sets the stage, past all guards; with an end, the fold goes on beneath."""
        properties = fact.properties
        key, subject, stage = properties["lifecycle"], properties.get("subject"), properties["stage"]
        timeline = self._definitions.get(key)
        if timeline is None or (subject is None) != (timeline[0].definition.subject_path is None):
            return
        at, by = fact.occurred_at, (fact.id, fact.source)
        until = parse_instant(properties["expires_at"]) if properties.get("expires_at") is not None else None
        journey = self._journeys.get(key, {}).get(subject)
        active = in_force(timeline, at) if journey is None else timeline[journey.epoch]
        definition = active.definition
        if definition.is_retired or stage not in definition.stages:
            origin = journey.current.stage if journey else None
            self._tell(
                Event(
                    key, subject, at, stage, origin, "refused", (), "override", None, *by, active.version,
                    "retired" if definition.is_retired else "unknown stage",
                )
            )  # fmt: skip
            return
        if journey is None:
            beneath = stage if until is None else definition.initial
            totals = tuple([measure.empty for measure in definition.measures])
            after = JourneyState(beneath, at, None, {beneath: 1}, totals, active.version, epoch=timeline.index(active))
            self._tell(_opening(active, subject, at, stage, "override", None, fact))
            shown = Shown(stage, at, None, until, *by)
        else:
            was, after = journey.current, as_of(definition, journey, at)
            if until is None and journey.stage != stage:
                visits = {**journey.visits, stage: journey.visits.get(stage, 0) + 1}
                after = after._replace(stage=stage, entered_at=at, previous_stage=journey.stage, visits=visits)
            shown = was._replace(until=until, id=fact.id, source=fact.source)
            if was.stage != stage:
                self._tell(_event(active, subject, at, stage, was.stage, "override", None, by))
                shown = shown._replace(stage=stage, entered_at=at, previous_stage=was.stage)
        after = after._replace(shown=_overlay(after, shown))
        self._keep(key, subject, _settled(timeline, journey, after, at, "", frozenset()))

    # -- what judging leads to ---------------------------------------------------------------------------------------

    def _decide(
        self,
        rules: Sequence[Rule],
        timeline: Timeline,
        subject: str | None,
        journey: JourneyState,
        at: int,
        phase: Phase,
        fact: Touchpoint | None = None,
    ) -> JourneyState:
        """Judges rules at an instant at which no touchpoint is judged, and does what they decide; 7: at most one."""
        if not rules:
            return journey
        active = timeline[journey.epoch]
        decision = self._ask(rules, active, subject, at, phase, journey.stage, journey, journey.totals, None, fact)
        if decision is None:
            return journey
        cause = _cause(active.definition, decision, "condition")
        if decision.refusal is not None:
            if not journey.is_pinned:
                self._tell(_refusal(active, subject, at, journey.stage, decision, cause, fact, phase))
            return journey
        after = self._enter(active, subject, journey, decision.stage, at, cause, decision.rule, fact, phase)
        return _clocked(timeline, journey, after, at)

    def _enter(
        self,
        active: ActiveDefinition,
        subject: str | None,
        journey: JourneyState,
        target: str,
        at: int,
        cause: CauseKind,
        rule: int,
        fact: Touchpoint | None,
        phase: Phase = Phase.FACT,
    ) -> JourneyState:
        """A new stay of the fold; beneath a pin nobody is told of it."""
        stage, shown, begun = journey.stage, journey.shown, journey.visits
        if shown is None or shown.until is None:
            by = (fact.id, fact.source) if fact is not None else (None, None)
            self._tell(_event(active, subject, at, target, stage, cause, rule, by, phase))
            shown = None
        visits = {**begun, target: begun.get(target, 0) + 1}
        return JourneyState(
            target, at, stage, visits, journey.totals, journey.definition_version, journey.clocks, journey.wake,
            journey.epoch, shown, journey.later,
        )  # fmt: skip


# -- journeys between two facts --------------------------------------------------------------------------------------

NO_SUBJECT: Any = object()


def subject_of(definition: Definition, touchpoint: Touchpoint) -> str | None:
    """2: strings as they are, integers in decimal, anything else counts as none."""
    if definition.subject_path is None:
        return None
    value = value_at(touchpoint, definition.subject_path)
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else NO_SUBJECT


def _at_rest(subjects: Mapping[str | None, JourneyState]) -> dict[str | None, JourneyState]:
    """The journeys of a lifecycle that is not active any more: nothing is due in them."""
    return {
        subject: journey if journey.wake is None else journey._replace(wake=None)
        for subject, journey in subjects.items()
    }


def _with(journey: JourneyState, totals: tuple[Total, ...]) -> JourneyState:
    # Twice as fast as _replace, and at every touchpoint.
    return JourneyState(
        journey.stage, journey.entered_at, journey.previous_stage, journey.visits, totals, journey.definition_version,
        journey.clocks, journey.wake, journey.epoch, journey.shown, journey.later,
    )  # fmt: skip


def in_force(timeline: Timeline, at: int) -> ActiveDefinition:
    """The version that a journey which opens at this instant is judged by."""
    return timeline[0] if len(timeline) == 1 else [active for active in timeline if active.since <= at][-1]


def _settled(
    timeline: Timeline,
    before: JourneyState | None,
    after: JourneyState,
    at: int,
    type_: str,
    resets: Set[int],
    fact: Touchpoint | None = None,
) -> JourneyState:
    """The journey after a fact, with its clocks, its prospects, and when it will have to be looked at."""
    if after is before and not resets and after.epoch + 1 == len(timeline):
        return after
    definition = timeline[after.epoch].definition
    if definition.timers and (resets or before is None or before.stage != after.stage):
        clocks = before.clocks if before else (None,) * len(definition.timers)
        was = before.stage if before else None
        after = after._replace(clocks=_clocks(definition, clocks, was, after.stage, resets, at))
    if after.epoch + 1 < len(timeline):
        after = after._replace(later=_prospects(timeline, before, after, at, type_, fact))
    elif not definition.timers and not definition.watched and after.shown is None:
        return after
    wake = _wake(timeline, after)
    return after if wake == after.wake else after._replace(wake=wake)


def _clocked(timeline: Timeline, before: JourneyState, after: JourneyState, at: int) -> JourneyState:
    """The journey after a move at which no touchpoint was judged."""
    definition = timeline[after.epoch].definition
    if definition.timers:
        clocks = _clocks(definition, before.clocks, before.stage, after.stage, frozenset(), at)
        after = after._replace(clocks=clocks)
    if after.later:
        after = after._replace(later=_prospects(timeline, before, after, at, "", None))
    return after


def _clocks(
    definition: Definition,
    clocks: Sequence[int | None],
    before: str | None,
    after: str,
    resets: Set[int],
    at: int,
) -> tuple[int | None, ...]:
    """5: started on entering the stages of `from`, stopped on leaving them, anew at each touchpoint waited for."""

    def clock(index: int, rule: Rule) -> int | None:
        if not rule.is_from(after):
            return None
        return at if before is None or index in resets or not rule.is_from(before) else clocks[index]

    return tuple([clock(index, rule) for index, (rule, _) in enumerate(definition.timers)])


def _prospects(
    timeline: Timeline,
    before: JourneyState | None,
    after: JourneyState,
    at: int,
    type_: str,
    fact: Touchpoint | None,
) -> tuple[Prospect, ...]:
    """10: what each later version will find: measures over all facts, and clocks as the actual stays put them."""
    was, is_now = (before.stage if before else None), after.stage
    prospects = []
    for place, active in enumerate(timeline[after.epoch + 1 :]):
        definition = active.definition
        was = None if was is None else definition.named_here(was)
        is_now = definition.named_here(is_now)
        if before is None:
            totals: Sequence[Total] = [measure.empty for measure in definition.measures]
            clocks: Sequence[int | None] = (None,) * len(definition.timers)
        else:
            totals, clocks = before.later[place]
        resets: Set[int] = frozenset()
        if fact is not None:
            concerned = definition.concerned(type_)
            resets = concerned.resets
            taken = list(totals)
            for index, measure in concerned.measures:
                taken[index] = measure.take(taken[index], fact)
            totals = _let_go(definition, tuple(taken), at)
        prospects.append(Prospect(tuple(totals), _clocks(definition, clocks, was, is_now, resets, at)))
    return tuple(prospects)


def _wake(timeline: Timeline, journey: JourneyState) -> int | None:
    """The next instant at which something is due though no touchpoint comes."""
    definition = timeline[journey.epoch].definition
    first = NEVER
    for (_, timer), started in zip(definition.timers, journey.clocks, strict=True):
        if started is not None and started + timer.after < first:
            first = started + timer.after
    if definition.watched and journey.stage in definition.watching:
        for n, measure in definition.watched:
            end = measure.next_end(journey.totals[n])
            if end is not None and end < first:
                first = end
    if journey.shown is not None and journey.shown.until is not None and not definition.is_retired:
        first = min(first, journey.shown.until)
    if journey.epoch + 1 < len(timeline):
        first = min(first, timeline[journey.epoch + 1].since)
    return None if first == NEVER else first


def next_timer(definition: Definition, journey: JourneyState) -> tuple[Rule, Timer, int] | None:
    """The timer that is due next, and when (microseconds since the epoch); None where no clock runs."""
    running = [
        (started + timer.after, rule.index, rule, timer)
        for (rule, timer), started in zip(definition.timers, journey.clocks, strict=True)
        if started is not None
    ]
    if not running:
        return None
    due, _, rule, timer = min(running)
    return rule, timer, due


def as_of(definition: Definition, journey: JourneyState, at: int) -> JourneyState:
    """Lets go of what has left the windows by this instant."""
    totals = _let_go(definition, journey.totals, at)
    return journey if totals is journey.totals else _with(journey, totals)


def _let_go(definition: Definition, totals: tuple[Total, ...], at: int) -> tuple[Total, ...]:
    left: list[Total] | None = None
    for index, measure in definition.windows:
        total = measure.let_go(totals[index], at)
        if total is not totals[index]:
            left = left or list(totals)
            left[index] = total
    return totals if left is None else tuple(left)


def _overlay(journey: JourneyState, shown: Shown | None) -> Shown | None:
    """What is shown, or None where it is no other than the fold's own."""
    if shown is None or shown.until is not None:
        return shown
    own = (journey.stage, journey.entered_at, journey.previous_stage)
    return None if shown[:3] == own else shown._replace(id="", source="")


# -- lines of history ------------------------------------------------------------------------------------------------


def _cause(definition: Definition, decision: Decision | None, otherwise: CauseKind) -> CauseKind:
    if decision is None:
        return otherwise
    rule = definition.rules[decision.rule]
    if rule.timer is not None:
        return "timer"
    return "condition" if rule.is_condition else "touchpoint"


def _event(
    active: ActiveDefinition,
    subject: str | None,
    at: int,
    to: str,
    origin: str,
    cause: CauseKind,
    rule: int | None,
    by: tuple[str | None, str | None],
    phase: Phase = Phase.FACT,
) -> Event:
    definition = active.definition
    move = _move(definition, origin, to)
    skipped = definition.skipped(origin, to) if move == "skip" else ()
    return Event(definition.key, subject, at, to, origin, move, skipped, cause, rule, *by, active.version, None, phase)


def _opening(
    active: ActiveDefinition,
    subject: str | None,
    at: int,
    to: str,
    cause: CauseKind,
    rule: int | None,
    fact: Touchpoint,
) -> Event:
    """2: one start, which has skipped the stages ranked below from `initial` on."""
    definition, initial = active.definition, active.definition.initial
    skipped = definition.skipped(initial, to)
    if definition.stages[to].rank > definition.stages[initial].rank:
        skipped = (initial, *skipped)
    return Event(
        definition.key, subject, at, to, None, "start", skipped, cause, rule, fact.id, fact.source, active.version
    )


def _refusal(
    active: ActiveDefinition,
    subject: str | None,
    at: int,
    stage: str,
    decision: Decision,
    cause: CauseKind,
    fact: Touchpoint | None,
    phase: Phase,
) -> Event:
    touchpoint, source = (fact.id, fact.source) if fact is not None else (None, None)
    return Event(
        active.definition.key, subject, at, decision.stage, stage, "refused", (), cause, decision.rule, touchpoint,
        source, active.version, decision.refusal, phase,
    )  # fmt: skip


def _move(definition: Definition, origin: str, target: str) -> Move:
    """8: moves are named by rank."""
    distance = definition.stages[target].rank - definition.stages[origin].rank
    if distance == 0:
        return "reenter"
    if distance < 0:
        return "back"
    return "advance" if distance == 1 else "skip"
