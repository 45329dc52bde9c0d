"""Durations: what is taken, what it means in microseconds, and what is refused with a word on what to write."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.lifecycle.durations import LONGEST, SHORTEST, format_duration, parse_duration

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1s", SECOND),
        ("45s", 45 * SECOND),
        ("30m", 30 * MINUTE),
        ("6h", 6 * HOUR),
        ("14d", 14 * DAY),
        ("2w", 14 * DAY),
        ("007d", 7 * DAY),
        ("36500d", LONGEST),
        ("3153600000s", LONGEST),
        ("PT1S", SHORTEST),
        ("PT30M", 30 * MINUTE),
        ("P2W", 14 * DAY),
        ("P1DT6H", 30 * HOUR),
        ("P1W2DT3H4M5S", 9 * DAY + 3 * HOUR + 4 * MINUTE + 5 * SECOND),
        ("PT36H", 36 * HOUR),
    ],
)
def test_what_is_taken(text: str, microseconds: int) -> None:
    assert parse_duration(text) == microseconds


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        *((text, "months and years have no fixed length") for text in ("P1M", "P1Y", "P1Y6D", "P1MT5M", "P1M5D")),
        *((text, "months and years have no fixed length") for text in ("1y", "1mo", "3M", "2 years", "6 Months")),
        *((text, "is no duration; write 14d, 6h, 30m") for text in ("", "soon", "14", "d", "1.5d", "-1d", "1d6h", "P")),
        *(
            (text, "is no duration")
            for text in ("PT", "P1DT", "PT5.5M", "1D", " 1d", "1d\n", "p1d", "\u0661d", "P1D6H")
        ),
        *(
            (text, "is not between 1s and 36500d")
            for text in ("0s", "0d", "PT0S", "36501d", "P36500DT1S", "9" * 10 + "w")
        ),
        ("9" * 11 + "s", "is no duration"),
        (14, "a duration is a text such as 14d"),
        (True, "a duration is a text such as 14d"),
        (None, "a duration is a text such as 14d"),
        (["14d"], "a duration is a text such as 14d"),
    ],
)
def test_what_is_refused(given_: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        parse_duration(given_)
    assert len(str(raised.value)) < 200


def test_a_long_text_is_refused_at_once() -> None:
    for text in ("P" + "1" * 100_000 + "M", "1" * 100_000, "P" * 100_000, "P" + "1D" * 50_000):
        with pytest.raises(ValueError, match=r"^'.{1,80}"):
            parse_duration(text)


@given(st.integers(1, LONGEST // SECOND))
def test_what_is_written_is_read_the_same(seconds: int) -> None:
    assert parse_duration(format_duration(seconds * SECOND)) == seconds * SECOND


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(14 * DAY, "14d"), (90 * MINUTE, "90m"), (36 * HOUR, "36h"), (61 * SECOND, "61s"), (7 * DAY, "7d")],
)
def test_the_shortest_writing_in_one_unit(microseconds: int, text: str) -> None:
    assert format_duration(microseconds) == text
