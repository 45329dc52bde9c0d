"""Explanations in short English sentences, made of nothing but what the structured form says.

Rules are numbered as in the history: by their place in the definition, from 0. Times are RFC 3339.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from lifecycle_engine.lifecycle.definitions import Definition, Rule
from lifecycle_engine.lifecycle.durations import format_duration
from lifecycle_engine.lifecycle.evidence import Examined
from lifecycle_engine.lifecycle.explanations import Absence, Account, Judgement, Outcome, Trial, Way
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.lifecycle.journeys import Event

_REFUSALS = {
    "moves": "the lifecycle's moves do not allow it",
    "unknown stage": "there was no such stage",
    "retired": "it is retired",
}


def account_sentences(account: Account) -> list[str]:
    """Where the journey stood, and what led there; of a touchpoint, why it touched no journey."""
    if account.untouched is not None:
        return [_untouched(account)]
    definition, journey, moment = account.active.definition, account.journey, format_instant(account.at)
    # Those of rules are told of where they were judged.
    refused = [_line(line) for line in account.lines if not line.is_stay and line.rule is None]
    if journey is None:
        if misuse := _misuse(definition, account.subject):
            # Nothing can be said of such a journey, also not that it had not opened.
            return [misuse, *refused]
        about = _about(account.subject)
        closed = [f"None opens any more: {_retired(account)}"] if definition.is_retired else None
        return [
            f"No journey{about} had opened by {moment}.",
            *(closed or [_opening(definition)]),
            *refused,
        ]
    shown = journey.current
    since = format_instant(shown.entered_at)
    said = [f"At {moment} the journey was in {shown.stage}, where it had been since {since}."]
    if shown.until is not None:
        said.append(f"An operator has pinned it there until {format_instant(shown.until)}; the rules go on unseen.")
        if journey.stage != shown.stage:
            said.append(f"Beneath the pin it was in {journey.stage}.")
    assert account.transition is not None, "what is open was opened"
    if definition.is_retired:
        said.append(f"It stays there: {_retired(account)}")
    return [*said, _line(account.transition), *refused]


def judgement_sentences(judgement: Judgement) -> list[str]:
    """The occasion, then one sentence for each rule in its order, then what came of it."""
    situation = judgement.situation
    return [
        _occasion(judgement),
        *(trial_sentence(trial, judgement) for trial in judgement.trials),
        f"{'Unseen, beneath a pin: ' if judgement.is_unseen else ''}{_verdict(judgement)}",
        *([f"This opened the journey, in {_reached(judgement)}."] if situation.journey is None else []),
    ]


def trial_sentence(trial: Trial, judgement: Judgement) -> str:
    """What became of one rule."""
    rule, situation = trial.rule, judgement.situation
    name = f"Rule {rule.index}"
    match trial.outcome:
        case Outcome.ON:
            touchpoint = situation.touchpoint
            instead = "there was no touchpoint" if touchpoint is None else f"this was {touchpoint.type}"
            return f"{name} was not tried: it is for touchpoints of type {_any_of(rule.types or ())}, and {instead}."
        case Outcome.TIMER:
            return f"{name} was not tried: it is a timer, judged only when its clock runs out."
        case Outcome.CONDITION:
            return f"{name} was not tried: it is a condition, and none is judged when a timer runs out."
        case Outcome.LATER:
            decided = judgement.decided
            assert decided is not None
            return f"{name} was not tried: rule {decided.rule.index} had decided."
        case Outcome.FROM:
            origins = _any_of(rule.origins or ())
            return f"{name} did not match: it starts from {origins}, and the journey was in {situation.stage}."
        case Outcome.WHEN:
            failed = "; ".join(_guard(one) for one in trial.when if not one.held)
            return f"{name} did not match: {failed}."
        case _:
            held = "; ".join(_guard(one) for one in trial.when)
            return f"{name} matched and decided: {held}." if held else f"{name} matched and decided."


def absence_sentences(absence: Absence) -> list[str]:
    """Whether the journey is in the stage, and if not, whether anything can lead it there."""
    account, stage = absence.account, absence.stage
    said = account_sentences(account)
    if absence.is_there:
        return said
    if account.journey is not None:
        said.insert(1, f"It was not in {stage}.")
    is_retired = account.active.definition.is_retired
    if not absence.ways and not is_retired:
        said.append(f"No rule of version {account.active.version} aims at {stage}.")
    if stage == account.active.definition.initial and not is_retired:
        said.append(f"Journeys open in {stage}, unless a rule leads on at once.")
    said += [_line(refusal) for refusal in absence.refusals]
    return said


def way_sentences(way: Way, absence: Absence) -> list[str]:
    """What a rule that aims at the stage asks for, how much of it holds, and when it was last tried."""
    definition, journey = absence.account.active.definition, absence.account.journey
    present = journey.stage if journey else definition.initial
    said = [_calls_for(way.rule, absence.stage)]
    if way.rule.timer is not None:
        fires = "Its clock does not run." if way.due is None else f"Its clock runs out at {format_instant(way.due)}."
        said.append(fires)
    if not way.is_from:
        origins = _any_of(way.rule.origins or ())
        said.append(f"It starts from {origins}, and the journey is in {present}.")
    said += [f"It asks that {_present(one)}." for one in way.when]
    if not way.moves:
        said.append(_not_allowed(present, absence.stage))
    said += [f"{absence.stage} requires that {_present(one)}." for one in way.requires]
    if _is_entered_first(way, definition):
        said.append("A touchpoint enters the measures before it is judged.")
    if way.last is None:
        said.append("It has not been tried yet.")
    else:
        trial = way.last.trials[way.rule.index]
        said += ["The last time: " + _occasion(way.last), trial_sentence(trial, way.last)]
        if trial.outcome is Outcome.DECIDED:
            said.append(_verdict(way.last))
    return said


# -- pieces ----------------------------------------------------------------------------------------------------------


def _untouched(account: Account) -> str:
    definition = account.active.definition
    match account.untouched:
        case "no_subject":
            path = ".".join(definition.subject_path or ())
            return f"It touched no journey of {account.lifecycle}: its {path} is neither a text nor a whole number."
        case "not_opening":
            opens = _any_of(definition.opens or ())
            return (
                f"It touched no journey of {account.lifecycle}: none{_about(account.subject)} was open, "
                f"and only a touchpoint of type {opens} opens one."
            )
        case "retired":
            return f"It touched no journey of {account.lifecycle}: {_retired(account)}"
        case "no_journey":
            return f"It was judged in no journey of {account.lifecycle}: none{_about(account.subject)} was open."
        case _:
            return f"It is not about the journey of {account.lifecycle}{_about(account.subject)}."


def _retired(account: Account) -> str:
    return f"the lifecycle was retired at {format_instant(account.active.since)}."


def _misuse(definition: Definition, subject: str | None) -> str | None:
    """What is wrong with asking about this subject; None where nothing is."""
    if definition.subject_path is not None and subject is None:
        return f"The lifecycle keeps a journey for each {'.'.join(definition.subject_path)}: name one as the subject."
    if definition.subject_path is None and subject is not None:
        return "The lifecycle keeps one journey for each customer: leave the subject out."
    return None


def _opening(definition: Definition) -> str:
    if definition.opens is None:
        return "Any touchpoint opens one."
    return f"A touchpoint of type {_any_of(definition.opens)} opens one."


def _occasion(judgement: Judgement) -> str:
    situation, fact = judgement.situation, judgement.situation.fact
    stage = f"in {situation.stage}" if situation.journey else f"before the journey opened, from {situation.stage}"
    match judgement.occasion:
        case "touchpoint" | "identify":
            assert fact is not None
            what = f"{fact.type} {_text(fact.id)} was judged"
        case "timer":
            what = "a timer ran out and was judged"
        case "window":
            what = "a touchpoint left the window of a measure, and the conditions were judged"
        case _:
            what = f"version {situation.active.version} took effect, and the conditions were judged"
    return f"At {format_instant(situation.at)} {what} {stage}."


def _verdict(judgement: Judgement) -> str:
    stage, decided = judgement.situation.stage, judgement.decided
    if decided is None:
        return "No rule matched, so nothing happened."
    rule = decided.rule
    match judgement.verdict:
        case "moved":
            return f"Rule {rule.index} moved the journey from {stage} to {rule.to}."
        case "stayed":
            return f"Rule {rule.index} aims at {rule.to}, where the journey was already, so nothing happened."
        case _:
            if not decided.moves:
                return f"Rule {rule.index} was refused: {_not_allowed(stage, rule.to)}"
            failed = "; ".join(_guard(one) for one in decided.requires if not one.held)
            return f"Rule {rule.index} was refused at the entrance of {rule.to}: {failed}."


def _reached(judgement: Judgement) -> str:
    decision = judgement.decision
    return judgement.situation.stage if decision is None or decision.refusal is not None else decision.stage


def _line(event: Event) -> str:
    if not event.is_stay:
        why = _REFUSALS.get(event.reason or "", f"its {event.reason} did not hold")
        by = "an override" if event.rule is None else f"rule {event.rule}"
        return f"At {format_instant(event.at)} {by} was refused entry to {event.stage}: {why}."
    moved = f"opened in {event.stage}" if event.origin is None else f"moved from {event.origin} to {event.stage}"
    rule = "" if event.rule is None else f", by rule {event.rule} of version {event.definition_version}"
    touchpoint = "" if event.touchpoint is None else f" {_text(event.touchpoint)}"
    causes = {
        "touchpoint": f"at the touchpoint{touchpoint}",
        "timer": "when a timer ran out",
        "condition": f"on a condition{touchpoint and f', judged at{touchpoint}'}",
        "override": f"by the override{touchpoint}",
        "definition": f"when version {event.definition_version} took effect",
    }
    return f"It {moved} at {format_instant(event.at)} {causes[event.cause]}{rule}."


def _calls_for(rule: Rule, stage: str) -> str:
    name, timer = f"Rule {rule.index}", rule.timer
    if timer is not None:
        lasts = format_duration(timer.after)
        awaited = _any_of(timer.without) if timer.without else "a touchpoint"
        waits = "" if timer.without is None else f" without {awaited}"
        return f"{name} leads to {stage} after {lasts}{waits}."
    if rule.types is not None:
        return f"{name} leads to {stage} at a touchpoint of type {_any_of(rule.types)}."
    return f"{name} is a condition, judged at every touchpoint, and leads to {stage}."


def _guard(one: Examined) -> str:
    if one.error is not None:
        return f"{one.source} could not be told, so it did not hold: {one.error}{_seen(one)}"
    return f"{one.source} {'held' if one.held else 'did not hold'}{_seen(one)}"


def _present(one: Examined) -> str:
    if one.held is None:
        return f"{one.source}, which depends on the touchpoint{_seen(one)}"
    if one.error is not None:
        return f"{one.source}, which cannot be told now: {one.error}{_seen(one)}"
    return f"{one.source}, which {'holds' if one.held else 'does not hold'} now{_seen(one)}"


def _seen(one: Examined) -> str:
    values, missing = one.seen()
    seen = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    seen += [f"{name} is missing" for name in missing]
    return f" ({', '.join(seen)})" if seen else ""


def _is_entered_first(way: Way, definition: Definition) -> bool:
    """Whether a guard that does not hold asks for a measure that the touchpoint itself would change."""
    if way.rule.timer is not None:
        return False
    seen = [one.seen() for one in (*way.when, *way.requires) if not one.held]
    asked = {name for values, missing in seen for name in (*values, *missing)}
    return any(
        f"measures.{measure.name}" in asked
        and (measure.types is None or way.rule.types is None or measure.types & way.rule.types)
        for measure in definition.measures
    )


def _not_allowed(origin: str, target: str) -> str:
    return f"The lifecycle's moves do not allow {origin} to {target}."


def _about(subject: str | None) -> str:
    return "" if subject is None else f" about {_text(subject)}"


def _any_of(names: Collection[str]) -> str:
    *others, last = sorted(names)
    return f"{', '.join(others)} or {last}" if others else last


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
