"""Explanations: what they say of worked examples, word for word, and that they always say what the fold did."""

from __future__ import annotations

import json
from bisect import bisect_right
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import BEGINNING, ActiveDefinition, Timeline, compile_definition
from lifecycle_engine.lifecycle.explanations import (
    Absence,
    Account,
    Judgement,
    Known,
    UnknownStageError,
    examine,
    explain_absence,
    explain_instant,
    explain_touchpoint,
)
from lifecycle_engine.lifecycle.fold import Definitions, fold, judge
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.lifecycle.journeys import Decision, Event, Phase
from lifecycle_engine.lifecycle.sentences import (
    absence_sentences,
    account_sentences,
    judgement_sentences,
    way_sentences,
)
from lifecycle_engine.lifecycle.situations import Situation
from lifecycle_engine.lifecycle.touchpoints import IDENTIFY, OVERRIDE, Touchpoint
from tests.lives import Life, compiled, in_order
from tests.unit.strategies import DAY, START, lives

pytestmark = pytest.mark.timeout(7200)
"""With `--hypothesis-profile=laws` the laws take minutes."""

# -- the law: an explanation says what the fold did ------------------------------------------------------------------


def folded(definitions: Definitions, life: Life) -> list[Event]:
    events: list[Event] = []
    fold(definitions, in_order(life.facts), tell=events.append, until=life.now)
    return events


@given(life=lives)
def test_every_verdict_is_what_the_fold_did(life: Life) -> None:
    definitions = compiled(life.lifecycles)
    judgements: list[Judgement] = []

    def explaining(rules: Any, situation: Situation) -> Decision | None:
        judgements.append(examine(rules, situation))
        assert judgements[-1].decision == judge(rules, situation)
        return judgements[-1].decision

    events: list[Event] = []
    fold(definitions, in_order(life.facts), tell=events.append, until=life.now, judge=explaining)
    assert events == folded(definitions, life)
    decided = [
        (each.situation.subject, each.situation.at, each.situation.phase, each.decision.rule, each.decision.stage)
        for each in judgements
        if each.decision is not None and not each.is_unseen
    ]
    by_rule = [event for event in events if event.rule is not None]
    assert decided == [(event.subject, event.at, event.phase, event.rule, event.stage) for event in by_rule]
    verdicts = [each.verdict for each in judgements if each.decision is not None and not each.is_unseen]
    assert verdicts == ["moved" if event.is_stay else "refused" for event in by_rule]
    for judgement in judgements:
        assert [trial.rule for trial in judgement.trials] == list(judgement.situation.definition.rules)
        for trial in judgement.trials:
            for one in (*trial.when, *trial.requires):
                assert one.held == one.guard.holds(judgement.situation.values)
                json.dumps(one.seen(), allow_nan=False)
        assert all(judgement_sentences(judgement))


@given(life=lives, data=st.data())
def test_a_touchpoint_is_explained_by_the_lines_that_it_caused(life: Life, data: st.DataObject) -> None:
    definitions, facts = compiled(life.lifecycles), in_order(life.facts)
    events = folded(definitions, life)
    for fact in data.draw(st.lists(st.sampled_from(facts), max_size=3)) if facts else ():
        for key, timeline in definitions.items():
            accounts = explain_touchpoint(Known(key, timeline, facts), fact)
            caused = [event for event in events if event.lifecycle == key and event.place == fact.place]
            assert sorted((line for account in accounts for line in account.lines), key=repr) == sorted(
                caused, key=repr
            )
            for account in accounts:
                assert_told(account)
                if account.untouched is not None:
                    assert not account.lines
                    continue
                if fact.type == OVERRIDE:
                    assert not account.judgements
                    continue
                (judgement,) = account.judgements or (None,)
                assert judgement is not None or fact.type == IDENTIFY
                if judgement is not None and not judgement.is_unseen:
                    led = [line.rule for line in account.lines if line.rule is not None]
                    assert led == ([] if judgement.decision is None else [judgement.decision.rule])


@given(life=lives, data=st.data())
def test_an_instant_is_explained_by_what_led_to_it(life: Life, data: st.DataObject) -> None:
    definitions, facts = compiled(life.lifecycles), in_order(life.facts)
    events = folded(definitions, life)
    journeys = sorted({(event.lifecycle, event.subject) for event in events}, key=str)
    instants = sorted({event.at for event in events} | {life.now, START})
    for key, subject in data.draw(st.lists(st.sampled_from(journeys), max_size=2)) if journeys else ():
        at = min(data.draw(st.sampled_from(instants)) + data.draw(st.sampled_from((0, 1, -1))), life.now)
        account = explain_instant(Known(key, definitions[key], facts), at, subject)
        told = [event for event in events if (event.lifecycle, event.subject) == (key, subject)]
        stays = [event for event in told if event.is_stay and event.at <= at]
        assert account.lines == tuple(event for event in told if event.at == at)
        assert account.transition == (stays[-1] if stays else None)
        assert_told(account)
        if (transition := account.transition) is None:
            assert account.journey is None
            continue
        assert account.journey is not None
        assert (account.journey.current.stage, account.journey.current.entered_at) == (
            transition.stage,
            transition.at,
        )
        led = account.decided_by
        assert (led is None) == (transition.cause in ("override", "definition"))
        if led is not None:
            decided = led.decision.rule if led.decision and led.decision.refusal is None else None
            assert (led.situation.at, decided) == (transition.at, transition.rule)
        assert explain_instant(Known(key, definitions[key], facts, events[-1].at), at, subject).lines == account.lines
        assert_absence(key, definitions[key], facts, at, account, told)


def assert_absence(
    key: str, timeline: Timeline, facts: list[Touchpoint], at: int, account: Account, told: list[Event]
) -> None:
    upto = facts[: bisect_right(facts, at, key=lambda fact: fact.occurred_at)]
    for stage in account.active.definition.stages:
        absence = explain_absence(Known(key, timeline, facts), at, stage, account.subject)
        assert absence.account.journey == account.journey
        assert account.journey is not None
        assert absence.is_there == (account.journey.current.stage == stage)
        assert list(absence.refusals) == [
            event for event in told if event.at <= at and not event.is_stay and event.stage == stage
        ]
        for way in absence.ways:
            assert way_sentences(way, absence)
            if way.due is None:
                continue
            # Unless something comes between, the clock runs out just then.
            due: list[tuple[int, int]] = []

            def noting(rules: Any, situation: Situation, due: list[tuple[int, int]] = due) -> Decision | None:
                if situation.phase == Phase.DEADLINE and situation.subject == account.subject:
                    due.append((situation.at, rules[0].index))
                return None

            assert way.due > at
            fold({key: timeline}, [], fold({key: timeline}, upto, until=at), until=way.due, judge=noting)
            if len(timeline) == 1 and not account.journey.is_pinned:
                assert (way.due, way.rule.index) in due
        assert absence_sentences(absence)


def assert_told(account: Account) -> None:
    assert all(account_sentences(account))
    for judgement in (*account.judgements, *([account.decided_by] if account.decided_by else [])):
        assert all(judgement_sentences(judgement))


# -- worked examples -------------------------------------------------------------------------------------------------

DOCUMENT: dict[str, Any] = {
    "lifecycle": "shop",
    "initial": "new",
    "opens": ["look", "buy"],
    "stages": [
        {"key": "new"},
        {"key": "buyer"},
        {"key": "loyal", "requires": ["measures.n >= 2", 'traits.plan == "gold"']},
        {"key": "gone"},
    ],
    "measures": {"n": {"count": "buy"}, "recent": {"count": "buy", "within": "2d"}},
    "moves": {"new": ["buyer", "loyal", "gone"], "buyer": ["loyal", "gone"], "gone": ["buyer"]},
    "rules": [
        {"on": ["rate", "refer"], "from": ["buyer", "gone"], "when": ["event.properties.rating >= 4"], "to": "loyal"},
        {"on": "buy", "from": "loyal", "to": "new"},
        {"on": "buy", "when": ["measures.n >= 1", "measures.n < 5"], "to": "buyer"},
        {"after": "3d", "without": "buy", "from": "buyer", "when": ["measures.recent == 0"], "to": "gone"},
        {"when": ["measures.recent >= 2"], "to": "loyal"},
        {"on": "leave", "to": "new"},
    ],
}


def timeline(*documents: dict[str, Any], days: tuple[int, ...] = ()) -> Timeline:
    instants = (BEGINNING, *(START + day * DAY for day in days))
    return tuple(
        ActiveDefinition(number, compile_definition(document, Cel()), since)
        for number, (document, since) in enumerate(zip(documents, instants, strict=True), 1)
    )


SHOP = timeline(DOCUMENT)


def fact(id_: str, type_: str, day: float, **properties: Any) -> Touchpoint:
    return Touchpoint(id_, "s", type_, START + round(day * DAY), "c", None, properties, {})


def override(id_: str, day: float, stage: str, until: float | None = None, lifecycle: str = "shop") -> Touchpoint:
    ends = {} if until is None else {"expires_at": format_instant(START + round(until * DAY))}
    return fact(id_, OVERRIDE, day, lifecycle=lifecycle, subject=None, stage=stage, reason="r", actor="a", **ends)


def day(number: float) -> str:
    return format_instant(START + round(number * DAY))


def of(active: Timeline, *facts: Touchpoint, subject: str | None = None) -> Account:
    """What the last of these did."""
    (account,) = explain_touchpoint(Known("shop", active, facts), facts[-1], subject)
    return account


def said(account: Account) -> list[str]:
    return [one for judgement in account.judgements for one in judgement_sentences(judgement)]


def at(active: Timeline, number: float, *facts: Touchpoint, subject: str | None = None) -> Account:
    return explain_instant(Known("shop", active, facts), START + round(number * DAY), subject)


def why_not(active: Timeline, number: float, stage: str, *facts: Touchpoint) -> Absence:
    return explain_absence(Known("shop", active, facts), START + round(number * DAY), stage)


LOOK, BUY, AGAIN = fact("l", "look", 0), fact("b1", "buy", 1), fact("b2", "buy", 2)


def test_every_rule_is_told_of_in_its_order() -> None:
    account = of(SHOP, LOOK, BUY)
    assert said(account) == [
        f'At {day(1)} buy "b1" was judged in new.',
        "Rule 0 was not tried: it is for touchpoints of type rate or refer, and this was buy.",
        "Rule 1 did not match: it starts from loyal, and the journey was in new.",
        "Rule 2 matched and decided: measures.n >= 1 held (measures.n = 1); measures.n < 5 held (measures.n = 1).",
        "Rule 3 was not tried: it is a timer, judged only when its clock runs out.",
        "Rule 4 was not tried: rule 2 had decided.",
        "Rule 5 was not tried: it is for touchpoints of type leave, and this was buy.",
        "Rule 2 moved the journey from new to buyer.",
    ]
    assert account_sentences(account) == [
        f"At {day(1)} the journey was in buyer, where it had been since {day(1)}.",
        f'It moved from new to buyer at {day(1)} at the touchpoint "b1", by rule 2 of version 1.',
    ]


def test_a_touchpoint_that_no_rule_concerns() -> None:
    opening = of(SHOP, LOOK)
    assert said(opening)[:2] == [
        f'At {day(0)} look "l" was judged before the journey opened, from new.',
        "Rule 0 was not tried: it is for touchpoints of type rate or refer, and this was look.",
    ]
    assert said(opening)[-3:] == [
        "Rule 5 was not tried: it is for touchpoints of type leave, and this was look.",
        "No rule matched, so nothing happened.",
        "This opened the journey, in new.",
    ]
    silent = timeline({**DOCUMENT, "rules": DOCUMENT["rules"][:4]})
    for account in (of(silent, LOOK), of(silent, LOOK, BUY, fact("l2", "look", 2))):
        assert [trial.outcome for trial in account.judgements[0].trials] == ["on", "on", "on", "timer"]
        assert account.judgements[0].verdict == "unmatched"
    assert said(of(silent, LOOK, BUY, fact("l2", "look", 2)))[0] == f'At {day(2)} look "l2" was judged in buyer.'
    later = at(silent, 3, LOOK)
    assert later.decided_by is not None
    assert judgement_sentences(later.decided_by)[-1] == "This opened the journey, in new."
    assert later.judgements == ()


def test_guards_that_err_or_miss_something_did_not_hold() -> None:
    account = of(SHOP, LOOK, BUY, fact("r", "rate", 2, rating="5"))
    assert said(account)[1] == (
        "Rule 0 did not match: event.properties.rating >= 4 could not be told, so it did not hold: "
        'No matching overloads found : _>=_(string, int64) (event.properties.rating = "5").'
    )
    account = of(SHOP, LOOK, BUY, fact("r", "rate", 2))
    assert said(account)[1].endswith("(event.properties.rating is missing).")
    assert said(account)[5] == "Rule 4 did not match: measures.recent >= 2 did not hold (measures.recent = 1)."


def test_refusals_name_what_was_wanting() -> None:
    account = of(SHOP, LOOK, BUY, fact("r", "rate", 2, rating=5))
    assert said(account)[-1] == (
        "Rule 0 was refused at the entrance of loyal: measures.n >= 2 did not hold (measures.n = 1); "
        'traits.plan == "gold" could not be told, so it did not hold: Key not found in map : "plan" '
        "(traits.plan is missing)."
    )
    assert account.judgements[0].decision == Decision(0, "loyal", "requires[0]")
    assert len(account_sentences(account)) == 2, "what rules were refused is told of where they were judged"
    account = of(SHOP, LOOK, BUY, fact("x", "leave", 2))
    assert said(account)[-1] == "Rule 5 was refused: The lifecycle's moves do not allow buyer to new."
    assert account.judgements[0].verdict == "refused"


def test_a_rule_that_aims_at_the_present_stage_decides_and_does_nothing() -> None:
    account = of(timeline({**DOCUMENT, "rules": DOCUMENT["rules"][:3]}), LOOK, BUY, AGAIN)
    assert account.judgements[0].verdict == "stayed"
    assert said(account)[-1] == "Rule 2 aims at buyer, where the journey was already, so nothing happened."
    assert account.judgements[0].trials[2].moves is None
    assert account.lines == ()


def test_a_timer_that_runs_out() -> None:
    account = at(SHOP, 4, LOOK, BUY)
    assert said(account) == [
        f"At {day(4)} a timer ran out and was judged in buyer.",
        "Rule 0 was not tried: it is for touchpoints of type rate or refer, and there was no touchpoint.",
        "Rule 1 was not tried: it is for touchpoints of type buy, and there was no touchpoint.",
        "Rule 2 was not tried: it is for touchpoints of type buy, and there was no touchpoint.",
        "Rule 3 matched and decided: measures.recent == 0 held (measures.recent = 0).",
        "Rule 4 was not tried: it is a condition, and none is judged when a timer runs out.",
        "Rule 5 was not tried: it is for touchpoints of type leave, and there was no touchpoint.",
        "Rule 3 moved the journey from buyer to gone.",
    ]
    assert account_sentences(account)[1] == (
        f"It moved from buyer to gone at {day(4)} when a timer ran out, by rule 3 of version 1."
    )
    assert account.decided_by == account.judgements[0]
    later = at(SHOP, 5, LOOK, BUY)
    assert later.judgements == ()
    assert later.decided_by is not None
    assert later.decided_by.situation.at == START + 4 * DAY


GOLD = fact("i", IDENTIFY, 2.5, traits={"plan": "gold"})


def test_identifies_and_windows_judge_the_conditions() -> None:
    account = of(SHOP, LOOK, BUY, AGAIN, GOLD)
    assert said(account)[0] == f'At {day(2.5)} $identify "i" was judged in buyer.'
    assert said(account)[-1] == "Rule 4 moved the journey from buyer to loyal."
    assert account_sentences(account)[-1] == (
        f'It moved from buyer to loyal at {day(2.5)} on a condition, judged at "i", by rule 4 of version 1.'
    )
    ends = at(SHOP, 3, LOOK, BUY, AGAIN)
    assert said(ends)[0] == (
        f"At {day(3)} a touchpoint left the window of a measure, and the conditions were judged in buyer."
    )
    assert said(ends)[5] == "Rule 4 did not match: measures.recent >= 2 did not hold (measures.recent = 1)."
    falls = {**DOCUMENT, "stages": [{"key": key} for key in ("new", "buyer", "loyal", "gone")]}
    falls["rules"] = [DOCUMENT["rules"][2], {"when": ["measures.recent == 0"], "from": "buyer", "to": "gone"}]
    assert account_sentences(at(timeline(falls), 3, LOOK, BUY))[-1] == (
        f"It moved from buyer to gone at {day(3)} on a condition, by rule 1 of version 1."
    )
    (nowhere,) = explain_touchpoint(Known("shop", SHOP, [GOLD, fact("z", "look", 9)]), GOLD)
    assert account_sentences(nowhere) == ["It was judged in no journey of shop: none was open."]


NEXT: dict[str, Any] = {
    **DOCUMENT,
    "stages": [{"key": "new"}, {"key": "customer"}, {"key": "loyal"}, {"key": "gone"}],
    "moves": "any",
    "rename": {"buyer": "customer"},
    "rules": [{"on": "buy", "to": "customer"}, {"when": ["measures.n >= 2"], "to": "loyal"}],
}


def test_a_switch_judges_the_conditions_of_the_new_version() -> None:
    active = timeline(DOCUMENT, NEXT, days=(4,))
    account = at(active, 4, LOOK, fact("b1", "buy", 2), fact("b2", "buy", 3))
    assert [line.cause for line in account.lines] == ["definition", "condition"]
    assert said(account)[0] == f"At {day(4)} version 2 took effect, and the conditions were judged in customer."
    assert (account.active.version, account.decided_by) == (2, account.judgements[0])
    only = at(active, 4, LOOK, fact("b1", "buy", 2))
    assert account_sentences(only)[-1] == f"It moved from buyer to customer at {day(4)} when version 2 took effect."
    assert only.decided_by is None
    before = at(active, 3, LOOK, fact("b1", "buy", 2), fact("b2", "buy", 3))
    assert before.active.version == 1
    opened = at(timeline({**NEXT, "rename": {}, "rules": []}, NEXT, days=(4,)), 5, LOOK)
    assert opened.decided_by is not None
    assert (opened.active.version, opened.decided_by.situation.active.version) == (2, 1)


def test_a_pin_hides_what_the_rules_do() -> None:
    pin = override("o", 0.5, "gone", until=3)
    account = of(SHOP, LOOK, pin, BUY)
    assert account.lines == ()
    assert account.judgements[0].is_unseen
    assert said(account)[-1] == "Unseen, beneath a pin: Rule 2 moved the journey from new to buyer."
    assert account_sentences(account) == [
        f"At {day(1)} the journey was in gone, where it had been since {day(0.5)}.",
        f"An operator has pinned it there until {day(3)}; the rules go on unseen.",
        "Beneath the pin it was in buyer.",
        f'It moved from new to gone at {day(0.5)} by the override "o".',
    ]
    pinned = of(SHOP, LOOK, BUY, override("o", 2, "buyer", until=3))
    assert account_sentences(pinned)[1:] == [
        f"An operator has pinned it there until {day(3)}; the rules go on unseen.",
        f'It moved from new to buyer at {day(1)} at the touchpoint "b1", by rule 2 of version 1.',
    ]
    (way,) = why_not(SHOP, 2, "gone", LOOK, BUY, override("o", 1.5, "loyal", until=9)).ways
    assert (way.is_from, way.due) == (True, START + 4 * DAY), "the rules go by the stage beneath"
    after = at(SHOP, 3, LOOK, pin, BUY)
    assert account_sentences(after)[-1] == f'It moved from gone to buyer at {day(3)} by the override "o".'
    assert after.decided_by is None


def test_an_override_is_not_judged() -> None:
    account = of(SHOP, override("o", 0, "loyal"))
    assert account.judgements == ()
    assert account_sentences(account)[-1] == f'It opened in loyal at {day(0)} by the override "o".'
    assert at(SHOP, 1, override("o", 0, "loyal")).decided_by is None
    unknown = of(SHOP, override("o", 0, "heaven"))
    assert account_sentences(unknown) == [
        f"No journey had opened by {day(0)}.",
        "A touchpoint of type buy or look opens one.",
        f"At {day(0)} an override was refused entry to heaven: there was no such stage.",
    ]
    for account in (
        of(SHOP, LOOK, override("o", 1, "new", lifecycle="other")),
        of(SHOP, override("o", 1, "new"), subject="x"),
    ):
        assert account.untouched == "other_journey"
    assert account_sentences(account) == ['It is not about the journey of shop about "x".']


PER: dict[str, Any] = {**DOCUMENT, "per": "properties.line"}


def test_why_a_touchpoint_touched_no_journey() -> None:
    per = timeline(PER)
    account = of(SHOP, fact("x", "leave", 0))
    assert account_sentences(account) == [
        "It touched no journey of shop: none was open, and only a touchpoint of type buy or look opens one."
    ]
    account = of(per, fact("x", "buy", 0, line=1.5))
    assert account_sentences(account) == [
        "It touched no journey of shop: its properties.line is neither a text nor a whole number."
    ]
    account = of(per, fact("x", "buy", 0, line="a"), subject="b")
    assert account_sentences(account) == ['It is not about the journey of shop about "b".']
    account = of(per, fact("x", "buy", 0, line=7), subject="7")
    assert (account.untouched, account.subject, account.lines[0].stage) == (None, "7", "buyer")
    both = [fact("a", "buy", 0, line="b"), fact("b", "buy", 0, line="a"), fact("i", IDENTIFY, 1)]
    assert [one.subject for one in explain_touchpoint(Known("shop", per, both), both[-1])] == ["a", "b"]
    assert of(per, *both, subject="b").subject == "b"
    assert of(per, *both, subject="c").untouched == "no_journey"


def test_no_journey_has_opened() -> None:
    assert account_sentences(at(SHOP, 0)) == [
        f"No journey had opened by {day(0)}.",
        "A touchpoint of type buy or look opens one.",
    ]
    anything = {name: value for name, value in PER.items() if name != "opens"}
    assert account_sentences(at(timeline(anything), 0, subject="x")) == [
        f'No journey about "x" had opened by {day(0)}.',
        "Any touchpoint opens one.",
    ]


def test_of_a_journey_that_cannot_be_it_is_not_said_that_it_had_not_opened() -> None:
    assert account_sentences(at(SHOP, 0, LOOK, subject="x")) == [
        "The lifecycle keeps one journey for each customer: leave the subject out."
    ]
    assert account_sentences(at(timeline(PER), 0, fact("x", "buy", 0, line="a"))) == [
        "The lifecycle keeps a journey for each properties.line: name one as the subject."
    ]


# -- why not ---------------------------------------------------------------------------------------------------------


def test_what_would_have_had_to_hold() -> None:
    absence = why_not(SHOP, 2, "loyal", LOOK, BUY, fact("r", "rate", 1.5, rating=5))
    assert absence_sentences(absence) == [
        f"At {day(2)} the journey was in buyer, where it had been since {day(1)}.",
        "It was not in loyal.",
        f'It moved from new to buyer at {day(1)} at the touchpoint "b1", by rule 2 of version 1.',
        f"At {day(1.5)} rule 0 was refused entry to loyal: its requires[0] did not hold.",
    ]
    rate, condition = absence.ways
    assert way_sentences(rate, absence) == [
        "Rule 0 leads to loyal at a touchpoint of type rate or refer.",
        "It asks that event.properties.rating >= 4, which depends on the touchpoint.",
        "loyal requires that measures.n >= 2, which does not hold now (measures.n = 1).",
        'loyal requires that traits.plan == "gold", which cannot be told now: Key not found in map : "plan" '
        "(traits.plan is missing).",
        f'The last time: At {day(1.5)} rate "r" was judged in buyer.',
        "Rule 0 matched and decided: event.properties.rating >= 4 held (event.properties.rating = 5).",
        "Rule 0 was refused at the entrance of loyal: measures.n >= 2 did not hold (measures.n = 1); "
        'traits.plan == "gold" could not be told, so it did not hold: Key not found in map : "plan" '
        "(traits.plan is missing).",
    ]
    assert way_sentences(condition, absence)[:2] == [
        "Rule 4 is a condition, judged at every touchpoint, and leads to loyal.",
        "It asks that measures.recent >= 2, which does not hold now (measures.recent = 1).",
    ]
    assert "A touchpoint enters the measures before it is judged." in way_sentences(condition, absence)
    assert way_sentences(condition, absence)[-2:] == [
        f'The last time: At {day(1.5)} rate "r" was judged in buyer.',
        "Rule 4 was not tried: rule 0 had decided.",
    ]


def test_what_keeps_a_journey_from_leaving() -> None:
    absence = why_not(SHOP, 2, "new", LOOK, BUY)
    assert absence_sentences(absence)[-1] == "Journeys open in new, unless a rule leads on at once."
    buy, leave = absence.ways
    assert way_sentences(buy, absence) == [
        "Rule 1 leads to new at a touchpoint of type buy.",
        "It starts from loyal, and the journey is in buyer.",
        "The lifecycle's moves do not allow buyer to new.",
        f'The last time: At {day(1)} buy "b1" was judged in new.',
        "Rule 1 did not match: it starts from loyal, and the journey was in new.",
    ]
    assert way_sentences(leave, absence)[-1] == "It has not been tried yet."


def test_when_a_timer_would_fire() -> None:
    (way,) = (absence := why_not(SHOP, 2, "gone", LOOK, BUY)).ways
    assert way_sentences(way, absence) == [
        "Rule 3 leads to gone after 3d without buy.",
        f"Its clock runs out at {day(4)}.",
        "It asks that measures.recent == 0, which does not hold now (measures.recent = 1).",
        "It has not been tried yet.",
    ]
    assert way_sentences(way := (absence := why_not(SHOP, 0, "gone", LOOK)).ways[0], absence)[1:3] == [
        "Its clock does not run.",
        "It starts from buyer, and the journey is in new.",
    ]
    assert way_sentences(absence.ways[0], absence)[3] == (
        "It asks that measures.recent == 0, which holds now (measures.recent = 0)."
    )
    unwatched = timeline({**DOCUMENT, "rules": DOCUMENT["rules"][:4]})
    (way,) = (absence := why_not(unwatched, 3.5, "gone", LOOK, BUY)).ways
    assert "It asks that measures.recent == 0, which holds now (measures.recent = 0)." in way_sentences(way, absence)
    rules = [{"after": "1d", "to": "gone"}, {"after": "2d", "without": "any", "to": "gone"}]
    absence = why_not(timeline({**DOCUMENT, "rules": rules}), 0, "gone", LOOK)
    assert [way_sentences(way, absence)[:2] for way in absence.ways] == [
        ["Rule 0 leads to gone after 1d.", f"Its clock runs out at {day(1)}."],
        ["Rule 1 leads to gone after 2d without a touchpoint.", f"Its clock runs out at {day(2)}."],
    ]


def test_what_the_history_has_not_got_to_has_not_happened() -> None:
    behind, there = Known("shop", SHOP, (LOOK, BUY), START + DAY), Known("shop", SHOP, (LOOK, BUY), START + 4 * DAY)
    assert explain_instant(behind, START + 5 * DAY).transition != explain_instant(there, START + 5 * DAY).transition
    account = explain_instant(behind, START + 5 * DAY)
    assert account_sentences(account)[0] == f"At {day(5)} the journey was in buyer, where it had been since {day(1)}."
    (way,) = explain_absence(behind, START + 5 * DAY, "gone").ways
    assert way.due == START + 4 * DAY
    late = Known("shop", SHOP, (LOOK, BUY, fact("l2", "look", 6)), START + DAY)
    assert explain_instant(late, START + 6 * DAY).transition == explain_instant(there, START + 5 * DAY).transition
    assert explain_instant(Known("shop", SHOP, (), START), START).journey is None


def test_why_not_before_the_opening() -> None:
    absence = why_not(SHOP, 0, "gone")
    assert absence_sentences(absence)[0] == f"No journey had opened by {day(0)}."
    assert absence.ways[0].due is None
    assert way_sentences(absence.ways[0], absence)[2] == "It starts from buyer, and the journey is in new."


def test_it_is_there() -> None:
    absence = why_not(SHOP, 2, "buyer", LOOK, BUY)
    assert (absence.is_there, absence.ways) == (True, ())
    assert absence_sentences(absence) == account_sentences(at(SHOP, 2, LOOK, BUY))


def test_no_rule_leads_there() -> None:
    absence = why_not(timeline({**DOCUMENT, "rules": []}), 1, "gone", LOOK, override("o", 0.5, "loyal"))
    assert absence_sentences(absence)[-1] == "No rule of version 1 aims at gone."
    with pytest.raises(UnknownStageError, match="version 1 of 'shop' has no stage 'x'; it has new, buyer, loyal, gone"):
        why_not(SHOP, 1, "x", LOOK)


def test_refused_moves_are_told_of() -> None:
    absence = why_not(SHOP, 3, "new", LOOK, BUY, fact("x", "leave", 2))
    assert f"At {day(2)} rule 5 was refused entry to new: the lifecycle's moves do not allow it." in absence_sentences(
        absence
    )


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guard", "values", "missing"),
    [
        ("event.properties.rating >= 4", {"event.properties.rating": 5}, []),
        ('event.properties["a b"].c == 1', {'event.properties["a b"].c': 1}, []),
        ("event.properties.rating.x == 1", {}, ["event.properties.rating.x"]),
        ("has(traits.x) && traits.x > event.properties.rating", {"event.properties.rating": 5}, ["traits.x"]),
        ('"event.properties.odd" == event.type', {"event.type": "buy"}, []),
        ("event.properties.list.size() > 0", {"event.properties.list": [*range(10), "…"]}, []),
        ('event.properties.text == ""', {"event.properties.text": "x" * 200 + "…"}, []),
        ("event.properties.few.size() > 0", {"event.properties.few": [1, {"deep": {"er": "…"}}]}, []),
        (
            "event.properties.many.size() > 0",
            {"event.properties.many": {**{f"k{n}": n for n in range(10)}, "…": "…"}},
            [],
        ),
        ("measures.huge > 1.0", {"measures.huge": "inf"}, []),
        ("measures.first == event.occurred_at", {"measures.first": day(0), "event.occurred_at": day(0)}, []),
        ("measures.best > 1", {}, ["measures.best"]),
        ("journey.visits.new == 0", {"journey.visits.new": 0}, []),
        ("journey.visits.size() == 0", {"journey.visits": {"new": 0, "buyer": 0, "loyal": 0, "gone": 0}}, []),
    ],
)
def test_a_guard_shows_what_it_mentions(guard: str, values: dict[str, Any], missing: list[str]) -> None:
    document = {
        **DOCUMENT,
        "rules": [{"on": "buy", "when": [guard], "to": "gone"}],
        "measures": {
            **DOCUMENT["measures"],
            "huge": {"sum": "properties.huge"},
            "first": {"first": "occurred_at"},
            "best": {"max": "properties.best"},
        },
    }
    properties = {
        "rating": 5,
        "a b": {"c": 1},
        "list": list(range(11)),
        "text": "x" * 201,
        "few": [1, {"deep": {"er": {"x": 1}}}],
        "many": {f"k{n}": n for n in range(11)},
        "huge": 1e308,
    }
    first, second = fact("b1", "buy", 0, **properties), fact("b2", "look", 0, huge=1e308)
    active = timeline({**document, "rules": [{**document["rules"][0], "on": ["buy", "look"]}]})
    account = of(active, first, second) if guard.startswith("measures.huge") else of(active, first)
    (one,) = account.judgements[0].trials[0].when
    seen = one.seen()
    assert (seen.values, list(seen.missing)) == (values, missing)
