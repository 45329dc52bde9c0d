"""`/v1/customers/{customer_id}/explain`: what a touchpoint did, why a journey was where it was, or why not elsewhere.

The customer's facts are folded again, as they were known, and every rule is told of with what it saw. Nothing changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, JsonValue, model_validator

from lifecycle_engine.api.customers.journeys import KnownAt, Subject, in_the_future, lifecycle_not_found, settled
from lifecycle_engine.api.customers.standing import CustomerQuestion, customer_id_of, customer_not_found
from lifecycle_engine.api.customers.stays import Cause, cause_of
from lifecycle_engine.api.door.paths import CustomerValue
from lifecycle_engine.api.keys.authentication import Key, requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant, InstantParameter, Text
from lifecycle_engine.engine.refold import folded
from lifecycle_engine.lifecycle.definitions import BEGINNING
from lifecycle_engine.lifecycle.evidence import Examined
from lifecycle_engine.lifecycle.explanations import (
    Absence,
    Account,
    Judgement,
    Known,
    Occasion,
    Outcome,
    Trial,
    UnknownStageError,
    Untouched,
    VerdictKind,
    Way,
    explain_absence,
    explain_instant,
    explain_touchpoint,
)
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.lifecycle.journeys import Event
from lifecycle_engine.lifecycle.sentences import (
    absence_sentences,
    account_sentences,
    judgement_sentences,
    way_sentences,
)
from lifecycle_engine.lifecycle.touchpoints import is_folded
from lifecycle_engine.store.aggregates import find_aggregate
from lifecycle_engine.store.answers.facts import StoredTouchpoint, facts_of, find_touchpoint
from lifecycle_engine.store.answers.reached import last_instant
from lifecycle_engine.store.answers.stays import lifecycle_is_known
from lifecycle_engine.store.customers import Identity
from lifecycle_engine.store.lifecycles import switches

router = APIRouter(
    prefix="/v1/customers/{customer_id}",
    tags=["customers"],
    responses=responses(401, 403, 404, 422, 503),
)


class ExplainQuestion(CustomerQuestion):
    """What is to be explained: a `touchpoint`, an instant (`at`), or why a journey is not in a stage (`to`)."""

    lifecycle: Text | None = Field(
        None,
        description="The lifecycle. Needed with `at` and `to`; a touchpoint is explained in all without it.",
        examples=["five-stages"],
    )
    subject: Subject = None
    touchpoint: Text | None = Field(None, description="What did this touchpoint do?", examples=["t-1024"])
    source: Text | None = Field(
        None, description="The source of the touchpoint; absent: the name of your API key.", examples=["shop"]
    )
    at: InstantParameter | None = Field(
        None, description="Why was the journey where it was at this instant? Must not lie in the future."
    )
    to: Text | None = Field(
        None,
        description="Why was the journey not in this stage, at the instant `at` or now?",
        examples=["retention"],
    )
    known_at: KnownAt = None

    @model_validator(mode="after")
    def _asks_one_thing(self) -> ExplainQuestion:
        if self.touchpoint is None and self.at is None and self.to is None:
            raise ValueError(
                "say what to explain: a `touchpoint`, an instant `at`, or `to` which stage it did not come"
            )
        if self.touchpoint is not None and not (self.at is None and self.to is None):
            raise ValueError("`touchpoint` is a question of its own, without `at` and `to`")
        if self.touchpoint is None and self.source is not None:
            raise ValueError("`source` belongs to a `touchpoint`")
        if self.touchpoint is None and self.lifecycle is None:
            raise ValueError("`at` and `to` ask about one `lifecycle`; name it")
        return self


class GuardExplained(BaseModel):
    """One expression of `when` or `requires`, and what it saw."""

    expression: str = Field(examples=["measures.purchases >= 2"])
    held: bool | None = Field(description="Null: it depends on the touchpoint, and there is none yet.")
    error: str | None = Field(description="Why it could not be told; it counts as not held then.", examples=[None])
    values: dict[str, JsonValue] = Field(
        description="What it mentions, as it was; long values are shortened.", examples=[{"measures.purchases": 1}]
    )
    missing: list[str] = Field(description="What it mentions and was not there.", examples=[[]])


class RuleExplained(BaseModel):
    """One rule at one judgement."""

    rule: int = Field(description="Its place in the definition, from 0.", examples=[2])
    to: str = Field(examples=["retention"])
    outcome: Outcome = Field(
        description="`on`: for touchpoints of other types, or there was none. `timer`: a timer, not the one that ran "
        "out. `condition`: a condition, and a timer ran out. `later`: after the rule that decided. `from`: the journey "
        "was in none of its stages. `when`: a guard did not hold. `decided`: the first to match."
    )
    when: list[GuardExplained] = Field(description="Its guards, where they were looked at.")
    moves: bool | None = Field(description="Whether `moves` allow its step; null unless it decided on one.")
    requires: list[GuardExplained] = Field(description="The entry guards of its stage, where it decided on a move.")


class JudgementExplained(BaseModel):
    """One judgement: at most one rule decides."""

    at: Instant
    occasion: Occasion = Field(
        description="A touchpoint, an identify, a timer that ran out, a touchpoint that left a window, or a version of "
        "the definition that took effect."
    )
    touchpoint: str | None = Field(examples=["t-1024"])
    source: str | None = Field(examples=["shop"])
    definition_version: int = Field(examples=[1])
    stage: str = Field(description="Where the journey was, by its rules; the initial stage before it opened.")
    verdict: VerdictKind = Field(
        description="`moved`; `stayed`: the deciding rule aims at the present stage; `refused`; `unmatched`: no rule."
    )
    rule: int | None = Field(description="The rule that decided.", examples=[2])
    reason: str | None = Field(description="Why it was refused: `moves`, or such as `requires[0]`.", examples=[None])
    unseen: bool = Field(description="Whether it went on beneath an operator's pin, and nobody was told of it.")
    rules: list[RuleExplained] = Field(description="Every rule of the definition, in its order.")
    sentences: list[str] = Field(
        examples=[["Rule 2 did not match: measures.purchases >= 2 did not hold (measures.purchases = 1)."]]
    )


class LineExplained(BaseModel):
    """A line of the history, as the facts make it."""

    at: Instant
    stage: str = Field(description="Entered, or aimed at by what was refused.", examples=["purchase"])
    origin: str | None = Field(serialization_alias="from", examples=["consideration"])
    move: Literal["start", "advance", "skip", "back", "reenter", "refused"]
    skipped: list[str]
    cause: Cause
    reason: str | None = Field(description="Why it was refused.", examples=[None])


class WayExplained(BaseModel):
    """A rule that aims at the stage, and how near it is to leading there."""

    rule: int = Field(examples=[2])
    on: list[str] | None = Field(description="At touchpoints of these types; null for timers and conditions.")
    origins: list[str] | None = Field(serialization_alias="from", description="From these stages; null: from any.")
    is_from: bool = Field(description="Whether the present stage is among them.")
    when: list[GuardExplained] = Field(description="Its guards, with the values of now.")
    moves: bool = Field(description="Whether `moves` allow the step from the present stage.")
    requires: list[GuardExplained] = Field(description="The stage's entry guards, with the values of now.")
    due: Instant | None = Field(description="When its timer runs out; null where no clock runs.")
    last: JudgementExplained | None = Field(description="When it was last judged; null: never, under this version.")
    sentences: list[str]


class JourneyExplained(BaseModel):
    """Where one journey stood after the touchpoint, or at the instant, and why."""

    lifecycle: str = Field(examples=["five-stages"])
    subject: str | None
    definition_version: int = Field(description="The version in force.", examples=[1])
    stage: str | None = Field(description="Null where it had not opened.", examples=["purchase"])
    entered_at: Instant | None
    pinned_until: Instant | None = Field(description="Until when an operator has pinned the stage.")
    transition: LineExplained | None = Field(description="The last transition, which led to this stage.")
    decided_by: JudgementExplained | None = Field(
        description="The judgement behind that transition; null for overrides, renamed stages, and with `touchpoint`."
    )
    judgements: list[JudgementExplained] = Field(
        description="Those of the touchpoint, or at the very instant; the last 50 of them."
    )
    lines: list[LineExplained] = Field(description="The history's lines of the touchpoint, or at the very instant.")
    untouched: Untouched | None = Field(
        description="Why the touchpoint touched no journey. `no_subject`: it has no value where the lifecycle looks "
        "for one. `not_opening`: none was open, and its type opens none. `other_journey`: it is about another one. "
        "`no_journey`: an identify, and none was open. `retired`: the lifecycle was retired before."
    )
    ways: list[WayExplained] = Field(description="With `to`: the rules that aim there. Empty where it is there.")
    refusals: list[LineExplained] = Field(description="With `to`: the moves there that were refused, the last 50.")
    sentences: list[str]


class Explanation(BaseModel):
    """The answer to a question for reasons; all sentences say in English what is there beside them."""

    customer_id: str | None = Field(description="Null for somebody who is known by an anonymous id only.")
    touchpoint: str | None = Field(description="As asked.")
    source: str | None = Field(description="As asked, or the name of your API key.")
    at: Instant | None = Field(description="The instant that is explained; the touchpoint's own.")
    to: str | None = Field(description="As asked.")
    known_at: Instant | None = Field(description="As asked.")
    journeys: list[JourneyExplained]
    sentences: list[str] = Field(description="Why there is no journey to tell of, if there is none.", examples=[[]])


@router.get("/explain", operation_id="explain_journey", summary="Why a journey is where it is, or is not")
async def explain(
    request: Request,
    customer_id: CustomerValue,
    question: Annotated[ExplainQuestion, Query()],
    key: Annotated[Key, Depends(requires("customers:read"))],
) -> Explanation:
    """Every rule in its order, each guard with the values that it saw, which rule decided, and what was wanting.

    The facts are folded again as they were known at `known_at`, under the versions activated by then.
    """
    services: Services = request.app.state.services
    identity = Identity(question.kind, customer_id)
    if question.at is not None and question.at > (clock := services.clock()):
        raise in_the_future("at", f"must not be after the clock, which is at {format_instant(clock)}")
    source = key.source if question.source is None else question.source
    stored = None
    async with services.database.transaction() as connection:
        known_at = await settled(services, connection, identity, question.known_at)
        aggregate = await find_aggregate(connection, identity, known_at)
        if aggregate is None:
            raise customer_not_found(identity)
        if question.lifecycle is not None and not await lifecycle_is_known(connection, question.lifecycle, known_at):
            raise lifecycle_not_found(question.lifecycle)
        if question.touchpoint is not None:
            stored = await find_touchpoint(connection, source, question.touchpoint)
            if stored is None or stored.identity not in aggregate.identities or stored.recorded_at > known_at:
                detail = f"no touchpoint {question.touchpoint!r} of the source {source!r} is known of this customer"
                raise ProblemError(404, "touchpoint_not_found", detail)
        facts = await facts_of(connection, aggregate, known_at)
        reached = await last_instant(connection, aggregate, known_at)
        made = await switches(connection, question.lifecycle)
    timelines = await services.definitions.timelines(switch for switch in made if switch.activated_at <= known_at)
    begun = BEGINNING if reached is None else reached
    touchpoints = folded(facts)
    known = {key: Known(key, timeline, touchpoints, begun) for key, timeline in sorted(timelines.items())}
    clock = services.clock() if question.known_at is None else known_at
    # A journey's now is the later of the clock and its last fact.
    at = max([clock, *(fact.occurred_at for fact in facts)]) if question.at is None else question.at
    journeys, sentences = await asyncio.to_thread(_explained, question, known, stored, at)
    return Explanation(
        customer_id=customer_id_of(aggregate.identity),
        touchpoint=question.touchpoint,
        source=source if question.touchpoint is not None else None,
        at=stored.occurred_at if stored else at,
        to=question.to,
        known_at=question.known_at,
        journeys=journeys,
        sentences=sentences,
    )


def _explained(
    question: ExplainQuestion, known: Mapping[str, Known], stored: StoredTouchpoint | None, at: int
) -> tuple[list[JourneyExplained], list[str]]:
    """The journeys, and what there is to say where there is none."""
    if not known:
        return [], ["No lifecycle was active." if question.lifecycle is None else "The lifecycle was never activated."]
    if stored is not None:
        return _of_touchpoint(list(known.values()), stored, question.subject)
    (asked,) = known.values()
    if question.to is None:
        account = explain_instant(asked, at, question.subject)
        return [_journey(account, account_sentences(account))], []
    try:
        absence = explain_absence(asked, at, question.to, question.subject)
    except UnknownStageError as error:
        raise ProblemError(422, "unknown_stage", str(error)) from None
    return [_journey(absence.account, absence_sentences(absence), absence)], []


def _of_touchpoint(
    known: Sequence[Known], stored: StoredTouchpoint, subject: str | None
) -> tuple[list[JourneyExplained], list[str]]:
    if not is_folded(stored.type):
        return [], [f"A {stored.type} decides which facts count and whose they are; no rule is judged at it."]
    fact = next((fact for fact in known[0].facts if fact.place == stored.place), None)
    if fact is None:
        return [], ["It was retracted, and counts as never accepted."]
    accounts = [account for one in known for account in explain_touchpoint(one, fact, subject)]
    return [_journey(account, account_sentences(account)) for account in accounts], []


def _journey(account: Account, sentences: list[str], absence: Absence | None = None) -> JourneyExplained:
    shown = account.journey.current if account.journey else None
    return JourneyExplained(
        lifecycle=account.lifecycle,
        subject=account.subject,
        definition_version=account.active.version,
        stage=shown.stage if shown else None,
        entered_at=shown.entered_at if shown else None,
        pinned_until=shown.until if shown else None,
        transition=_line(account.transition) if account.transition else None,
        decided_by=_judgement(account.decided_by) if account.decided_by else None,
        judgements=list(map(_judgement, account.judgements)),
        lines=list(map(_line, account.lines)),
        untouched=account.untouched,
        ways=[_way(way, absence) for way in absence.ways] if absence else [],
        refusals=list(map(_line, absence.refusals)) if absence else [],
        sentences=sentences,
    )


def _judgement(judgement: Judgement) -> JudgementExplained:
    situation, decided = judgement.situation, judgement.decided
    return JudgementExplained(
        at=situation.at,
        occasion=judgement.occasion,
        touchpoint=situation.fact.id if situation.fact else None,
        source=situation.fact.source if situation.fact else None,
        definition_version=situation.active.version,
        stage=situation.stage,
        verdict=judgement.verdict,
        rule=decided.rule.index if decided else None,
        reason=judgement.decision.refusal if judgement.decision else None,
        unseen=judgement.is_unseen,
        rules=list(map(_rule, judgement.trials)),
        sentences=judgement_sentences(judgement),
    )


def _rule(trial: Trial) -> RuleExplained:
    return RuleExplained(
        rule=trial.rule.index,
        to=trial.rule.to,
        outcome=trial.outcome,
        when=list(map(_guard, trial.when)),
        moves=trial.moves,
        requires=list(map(_guard, trial.requires)),
    )


def _guard(one: Examined) -> GuardExplained:
    seen = one.seen()
    return GuardExplained(
        expression=one.source, held=one.held, error=one.error, values=seen.values, missing=list(seen.missing)
    )


def _way(way: Way, absence: Absence) -> WayExplained:
    return WayExplained(
        rule=way.rule.index,
        on=sorted(way.rule.types) if way.rule.types is not None else None,
        origins=sorted(way.rule.origins) if way.rule.origins is not None else None,
        is_from=way.is_from,
        when=list(map(_guard, way.when)),
        moves=way.moves,
        requires=list(map(_guard, way.requires)),
        due=way.due,
        last=_judgement(way.last) if way.last else None,
        sentences=way_sentences(way, absence),
    )


def _line(event: Event) -> LineExplained:
    return LineExplained(
        at=event.at,
        stage=event.stage,
        origin=event.origin,
        move=event.move,
        skipped=list(event.skipped),
        cause=cause_of(event),
        reason=event.reason,
    )
