"""When a delivery is tried again, and when it is given up. Pure: time and chance are arguments.

The schedule and the waits are those of the Standard Webhooks specification
(github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md): only 2xx is success, redirects are not
followed, 410 disables the endpoint. All spans of time are in microseconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

SECOND = 1_000_000
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND

_GONE = 410
_WAITS_LONGER = frozenset({429, 502, 503, 504})
_ALSO_WAIT_LONGER = frozenset({"timeout"})
_NOT_THEIRS = frozenset({"proxy", "local", "unsigned"})
"""What went wrong on our side, and says nothing about the receiver."""
_DISABLE, _ABORT = "disable", "abort-message"
_DELTA_SECONDS = re.compile(r"[0-9]{1,18}").fullmatch


class Schedule(NamedTuple):
    """How often and when; `delays` are from one attempt to the next, the first from when it was queued.

    `jitter` is the part by which a delay may be shorter or longer, `least` how long at least who answers that it is
    overloaded is left alone, `most` what it may ask for.
    """

    delays: tuple[int, ...] = (
        0, 5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR
    )  # fmt: skip
    jitter: float = 0.2
    least: int = MINUTE
    most: int = 24 * HOUR

    @property
    def span(self) -> int:
        """The time from the first attempt to the last, at the longest."""
        return int(sum(self.delays) * (1 + self.jitter))


class Answer(NamedTuple):
    """What came of an attempt: a status, or why there was no whole answer; and the headers that speak to the sender."""

    status: int | None
    failure: str | None = None
    retry_after: str | None = None
    directive: str | None = None
    """The header `webhook-delivery`."""

    @property
    def is_success(self) -> bool:
        return self.failure is None and self.status is not None and 200 <= self.status < 300

    @property
    def counts(self) -> bool:
        """Whether it says something about the receiver."""
        return self.failure not in _NOT_THEIRS

    @property
    def disables(self) -> str | None:
        """Why the endpoint gets nothing any more: `gone` or `asked_to_stop`."""
        if self.status == _GONE:
            return "gone"
        return "asked_to_stop" if self.directive is not None and self.directive.strip().lower() == _DISABLE else None

    @property
    def aborts(self) -> bool:
        """Whether the receiver never wants this message."""
        return self.directive is not None and self.directive.strip().lower() == _ABORT


class Delivered(NamedTuple):
    """It has arrived."""


class Again(NamedTuple):
    """It is tried again at an instant; `spent` tells whether an attempt of its schedule is used up."""

    due_at: int
    spent: bool


class GivenUp(NamedTuple):
    """It is not tried again: `exhausted`, `aborted`, `gone`, `disabled` or `test`."""

    reason: str


Decision = Delivered | Again | GivenUp


def decide(
    schedule: Schedule, attempts: int, answer: Answer, now: int, chance: float, *, is_test: bool = False
) -> Decision:
    """What becomes of a delivery after an answer at `now`; `attempts` were made before, `chance` is in [0, 1).

    A test is made once, whatever comes of it.
    """
    if answer.is_success:
        return Delivered()
    if reason := answer.disables:
        return GivenUp("gone" if reason == "gone" else "disabled")
    if answer.aborts:
        return GivenUp("aborted")
    if is_test:
        return GivenUp("test")
    if not answer.counts:
        return Again(now + _varied(schedule, schedule.least, chance), spent=False)
    made = attempts + 1
    if made >= len(schedule.delays):
        return GivenUp("exhausted")
    base = _varied(schedule, schedule.delays[made], chance)
    if answer.status in _WAITS_LONGER or answer.failure in _ALSO_WAIT_LONGER:
        base = max(base, schedule.least)
    asked = _asked(answer.retry_after, now)
    return Again(now + (base if asked is None else min(max(asked, base), max(schedule.most, base))), spent=True)


def _varied(schedule: Schedule, delay: int, chance: float) -> int:
    return int(delay * (1 + schedule.jitter * (2 * chance - 1)))


def _asked(retry_after: str | None, now: int) -> int | None:
    """How long Retry-After (RFC 9110, section 10.2.3) asks to wait: seconds, or a date. None for anything else."""
    if retry_after is None:
        return None
    value = retry_after.strip()
    if _DELTA_SECONDS(value):
        return int(value) * SECOND
    try:
        date = parsedate_to_datetime(value)
        at = date if date.tzinfo else date.replace(tzinfo=UTC)
        return int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * SECOND - now
    except (ValueError, OverflowError, TypeError):
        return None
