"""Whether an endpoint is tried at all: parked while it fails, probed, and disabled when it stays away. Pure.

What fails again and again is parked, so that it takes no room from others and spends no attempts. A parked endpoint is
probed with one delivery at a time, ever more rarely, until one arrives.
"""

from __future__ import annotations

from typing import NamedTuple

from lifecycle_engine.outbox.retry import HOUR, MINUTE, SECOND
from lifecycle_engine.store.health import Health, Tally


class Limits(NamedTuple):
    """When an endpoint is parked, probed and disabled; spans of time in microseconds.

    Parked: `share` of at least `attempts` have failed within `window`. Probed: after `probe`, doubled each time, up to
    `longest`. Disabled: no success for `absent`, and messages given up that are `apart`. Others are told that it fails
    when it is parked, or nothing has arrived for a `window`.
    """

    attempts: int = 10
    share: float = 0.7
    window: int = 5 * MINUTE
    probe: int = 30 * SECOND
    longest: int = 10 * MINUTE
    absent: int = 5 * 24 * HOUR
    apart: int = 12 * HOUR

    def wait(self, probes: int) -> int:
        """How long after so many failed probes the next one is made."""
        return min(self.probe << min(probes, 30), self.longest)


_PARTS = 10
"""The window moves on in so many steps."""


class Seen(NamedTuple):
    """An endpoint's health after something has happened, and what others are to be told of that, if anything.

    `news` is `failing` or `recovered`.
    """

    health: Health
    news: str | None = None


def after_success(health: Health, now: int) -> Seen:
    """An attempt has succeeded: whatever was known to its disadvantage is forgotten."""
    was_parked = health.parked_until is not None
    outcomes = () if was_parked else health.outcomes
    better = health._replace(
        parked_until=None,
        probes=0,
        outcomes=outcomes,
        failing_since=None,
        last_success_at=now,
        first_exhausted_at=None,
        announced=False,
    )
    return Seen(better, "recovered" if health.announced else None)


def counted(health: Health, limits: Limits, now: int, attempts: int, failed: int) -> Health:
    """Adds attempts that ended now to the window."""
    step = max(1, limits.window // _PARTS)
    since = now - now % step
    recent = [tally for tally in health.outcomes if tally.since > now - limits.window and tally.since != since]
    this = next((tally for tally in health.outcomes if tally.since == since), Tally(since, 0, 0))
    recent.append(Tally(since, this.attempts + attempts, this.failed + failed))
    return health._replace(outcomes=tuple(recent))


def after_failure(health: Health, limits: Limits, now: int, *, is_probe: bool) -> Seen:
    """An attempt has failed, and was counted: the endpoint may have to be parked, or parked for longer."""
    since = now if health.failing_since is None else health.failing_since
    health = health._replace(failing_since=since)
    if health.parked_until is not None:
        # What was under way when it was parked tells nothing new.
        return Seen(_parked(health, limits, now, health.probes + 1) if is_probe else health)
    attempts = sum(tally.attempts for tally in health.outcomes)
    failed = sum(tally.failed for tally in health.outcomes)
    fails = now - since >= limits.window
    if attempts >= limits.attempts and failed >= limits.share * attempts:
        health, fails = _parked(health, limits, now, 0), True
    if not fails or health.announced:
        return Seen(health)
    return Seen(health._replace(announced=True), "failing")


def probing(health: Health, until: int) -> Health:
    """A probe is under way: nobody makes another one before an instant."""
    return health._replace(parked_until=until)


def after_giving_up(health: Health, limits: Limits, now: int) -> tuple[Health, bool]:
    """A message was given up; whether the endpoint has now been away for so long that it is disabled."""
    first = health.first_exhausted_at if health.first_exhausted_at is not None else now
    is_away = (
        health.failing_since is not None and now - health.failing_since >= limits.absent and now - first >= limits.apart
    )
    return health._replace(first_exhausted_at=first), is_away


def _parked(health: Health, limits: Limits, now: int, probes: int) -> Health:
    return health._replace(parked_until=now + limits.wait(probes), probes=probes)
