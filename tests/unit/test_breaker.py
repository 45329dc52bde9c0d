"""When an endpoint is parked, probed, disabled; and that others learn of it."""

from __future__ import annotations

from lifecycle_engine.outbox.breaker import (
    Limits,
    after_failure,
    after_giving_up,
    after_success,
    counted,
    probing,
)
from lifecycle_engine.outbox.retry import HOUR, MINUTE, SECOND
from lifecycle_engine.store.health import Health

LIMITS = Limits()
NOW = 1_700_000_000 * SECOND


def failed(health: Health, now: int, *, is_probe: bool = False) -> tuple[Health, str | None]:
    return after_failure(counted(health, LIMITS, now, 1, 1), LIMITS, now, is_probe=is_probe)


def succeeded(health: Health, now: int) -> tuple[Health, str | None]:
    return after_success(counted(health, LIMITS, now, 1, 0), now)


def parked() -> Health:
    health = Health("ep")
    for second in range(10):
        health, _ = failed(health, NOW + second * SECOND)
    return health


def test_ten_failures_in_a_row_park() -> None:
    health = Health("ep")
    for second in range(9):
        health, news = failed(health, NOW + second * SECOND)
        assert (health.parked_until, news) == (None, None)
    health, news = failed(health, NOW + 9 * SECOND)
    assert health.parked_until == NOW + 39 * SECOND
    assert news == "failing"


def test_two_failures_of_three_do_not_park() -> None:
    health = Health("ep")
    for second in range(300):
        now = NOW + second * SECOND
        health, news = succeeded(health, now) if second % 3 == 0 else failed(health, now)
        assert (health.parked_until, news) == (None, None)


def test_three_failures_of_four_park() -> None:
    health = Health("ep")
    for second in range(20):
        now = NOW + second * SECOND
        health, _ = succeeded(health, now) if second % 4 == 0 else failed(health, now)
        if health.parked_until is not None:
            return
    raise AssertionError("never parked")


def test_failures_that_are_long_past_do_not_count() -> None:
    health = Health("ep")
    for minute in range(100):
        health, _ = failed(health, NOW + minute * MINUTE)
        assert health.parked_until is None


def test_probes_come_ever_more_rarely() -> None:
    health, waits, now = parked(), [], NOW + 9 * SECOND
    for _ in range(7):
        assert health.parked_until is not None
        now = health.parked_until
        health = probing(health, now + 20 * SECOND)
        health, news = failed(health, now, is_probe=True)
        assert news is None
        assert health.parked_until is not None
        waits.append((health.parked_until - now) // SECOND)
    assert waits == [60, 120, 240, 480, 600, 600, 600]


def test_what_was_under_way_does_not_prolong_the_wait() -> None:
    health = parked()
    later, news = failed(health, NOW + 12 * SECOND)
    assert (later.parked_until, later.probes, news) == (health.parked_until, 0, None)


def test_one_success_opens_it_again() -> None:
    health, news = succeeded(parked(), NOW + 40 * SECOND)
    assert news == "recovered"
    assert health.parked_until is None
    health, news = failed(health, NOW + 41 * SECOND)
    assert (health.parked_until, news) == (None, None)


def test_a_quiet_endpoint_is_told_of_after_five_minutes() -> None:
    health, news = failed(Health("ep"), NOW)
    assert news is None
    health, news = failed(health, NOW + 6 * MINUTE)
    assert (health.parked_until, news) == (None, "failing")
    health, news = failed(health, NOW + 60 * MINUTE)
    assert news is None
    assert succeeded(health, NOW + 61 * MINUTE)[1] == "recovered"


def test_five_days_and_two_messages_half_a_day_apart_disable() -> None:
    health, _ = failed(Health("ep"), NOW)
    health, is_away = after_giving_up(health, LIMITS, NOW + 120 * HOUR)
    assert not is_away
    health, is_away = after_giving_up(health, LIMITS, NOW + 131 * HOUR)
    assert not is_away
    assert after_giving_up(health, LIMITS, NOW + 132 * HOUR)[1]


def test_a_success_between_two_messages_keeps_it() -> None:
    health, _ = failed(Health("ep"), NOW)
    health, _ = after_giving_up(health, LIMITS, NOW + 76 * HOUR)
    health, _ = succeeded(health, NOW + 77 * HOUR)
    health, _ = failed(health, NOW + 78 * HOUR)
    assert not after_giving_up(health, LIMITS, NOW + 132 * HOUR)[1]
