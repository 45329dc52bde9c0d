"""The schedule of deliveries: what is tried again when, and what is given up."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.outbox.retry import (
    HOUR,
    MINUTE,
    SECOND,
    Again,
    Answer,
    Decision,
    Delivered,
    GivenUp,
    Schedule,
    decide,
)

NOW = 1_700_000_000 * SECOND
STANDARD = Schedule()
MIDDLE = 0.5
"""The chance that makes a delay neither shorter nor longer."""


def after(answer: Answer, attempts: int = 0, chance: float = MIDDLE) -> Decision:
    return decide(STANDARD, attempts, answer, NOW, chance)


def test_the_schedule_is_that_of_the_standard() -> None:
    delays = []
    for attempts in range(9):
        decision = after(Answer(500), attempts)
        assert isinstance(decision, Again)
        assert decision.spent
        delays.append((decision.due_at - NOW) // SECOND)
    assert delays == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert sum(delays) == 75 * 3600 + 35 * 60 + 5
    assert after(Answer(500), 9) == GivenUp("exhausted")


@given(status=st.integers(100, 599), attempts=st.integers(0, 20))
def test_only_2xx_is_success(status: int, attempts: int) -> None:
    assert (after(Answer(status), attempts) == Delivered()) == (200 <= status < 300)


@pytest.mark.parametrize("failure", ["dns", "tls", "refused", "reset", "timeout", "denied_address", "too_large"])
def test_what_has_no_answer_is_tried_again(failure: str) -> None:
    assert isinstance(after(Answer(None, failure)), Again)


def test_an_answer_that_breaks_off_is_no_success() -> None:
    assert isinstance(after(Answer(200, "timeout")), Again)


@given(chance=st.floats(0, 1, exclude_max=True), attempts=st.integers(0, 8))
def test_delays_vary_by_a_fifth(chance: float, attempts: int) -> None:
    decision = after(Answer(500), attempts, chance)
    assert isinstance(decision, Again)
    delay = STANDARD.delays[attempts + 1]
    assert 0.8 * delay - 1 <= decision.due_at - NOW <= 1.2 * delay


@pytest.mark.parametrize("answer", [Answer(429), Answer(502), Answer(503), Answer(504), Answer(None, "timeout")])
def test_who_is_overloaded_is_left_alone_for_a_minute(answer: Answer) -> None:
    decision = after(answer)
    assert isinstance(decision, Again)
    assert decision.due_at == NOW + MINUTE


@given(
    asked=st.integers(0, 10**9),
    attempts=st.integers(0, 8),
    status=st.sampled_from([429, 503, 500, 302]),
    as_date=st.booleans(),
)
def test_retry_after_is_kept_between_the_delay_and_a_day(asked: int, attempts: int, status: int, as_date: bool) -> None:
    value = str(asked)
    if as_date:
        value = format_datetime(datetime.fromtimestamp(NOW // SECOND + asked, UTC), usegmt=True)
    decision = after(Answer(status, retry_after=value), attempts)
    base = after(Answer(status), attempts)
    assert isinstance(decision, Again)
    assert isinstance(base, Again)
    assert decision.due_at == max(base.due_at, min(NOW + asked * SECOND, NOW + 24 * HOUR))


@pytest.mark.parametrize("nonsense", ["", "soon", "-5", "1e3", "Wed, 99 Foo 2026", "9" * 40, "٣", "\x00"])
def test_a_retry_after_that_says_nothing_is_as_none(nonsense: str) -> None:
    assert after(Answer(500, retry_after=nonsense)) == after(Answer(500))


def test_who_is_gone_gets_nothing_more() -> None:
    assert after(Answer(410)) == GivenUp("gone")
    assert Answer(410).disables == "gone"


def test_a_receiver_can_ask_for_an_end() -> None:
    assert after(Answer(500, directive="abort-message")) == GivenUp("aborted")
    assert Answer(500, directive="abort-message").disables is None
    assert after(Answer(500, directive=" Disable ")) == GivenUp("disabled")
    assert Answer(500, directive="disable").disables == "asked_to_stop"
    assert after(Answer(204, directive="disable")) == Delivered()
    assert Answer(204, directive="disable").disables == "asked_to_stop"


@pytest.mark.parametrize("failure", ["proxy", "local", "unsigned"])
def test_our_own_failures_use_up_nothing(failure: str) -> None:
    decision = after(Answer(None, failure), 9)
    assert decision == Again(NOW + MINUTE, spent=False)


def test_a_test_is_made_once() -> None:
    for answer in (Answer(500), Answer(429), Answer(None, "proxy"), Answer(None, "dns")):
        assert decide(STANDARD, 0, answer, NOW, MIDDLE, is_test=True) == GivenUp("test")
    assert decide(STANDARD, 0, Answer(200), NOW, MIDDLE, is_test=True) == Delivered()
