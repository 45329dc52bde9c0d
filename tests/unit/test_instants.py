"""Instants: RFC 3339 outside, microseconds inside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.lifecycle.instants import format_instant, parse_instant

FIRST = parse_instant("0001-01-01T00:00:00Z")
LAST = parse_instant("9999-12-31T23:59:59.999999Z")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:00.0000019999Z", 1),
        ("1969-12-31T23:59:59.9999999Z", -1),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T18:30:00.000-05:30", 0),
        ("1970-01-01T00:00:00-00:00", 0),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
        ("0001-01-01T23:59:00+23:59", FIRST),
        ("9999-12-31T00:00:59.999999-23:59", LAST),
    ],
)
def test_rfc_3339(text: str, instant: int) -> None:
    assert parse_instant(text) == instant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be RFC 3339"),
        ("2026-03-01", "must be RFC 3339"),
        ("2026-03-01T12:00:00", "must be RFC 3339 with an offset"),
        ("2026-03-01 12:00:00Z", "must be RFC 3339"),
        ("2026-03-01T12:00Z", "must be RFC 3339"),
        ("20260301T120000Z", "must be RFC 3339"),
        ("2026-03-01T12:00:00,5Z", "must be RFC 3339"),
        ("2026-03-01T12:00:00.Z", "must be RFC 3339"),
        ("2026-03-01T12:00:00+2", "must be RFC 3339"),
        ("2026-03-01T12:00:00+24:00", "must be RFC 3339"),
        ("2026-03-01T12:00:00Z\n", "must be RFC 3339"),
        ("2026-03-01T12:00:0٣Z", "must be RFC 3339"),
        ("12026-03-01T12:00:00Z", "must be RFC 3339"),
        ("2026-03-01T12:00:00." + "0" * 100_000 + "Z", "must be RFC 3339"),
        ("2026-02-29T12:00:00Z", "is not a time that exists"),
        ("2026-13-01T12:00:00Z", "is not a time that exists"),
        ("2026-03-01T12:00:60Z", "is not a time that exists"),
        ("2026-03-01T25:00:00Z", "is not a time that exists"),
        ("0000-01-01T00:00:00Z", "is not a time that exists"),
        ("0001-01-01T00:00:00+00:01", "is not within the years 1 to 9999"),
        ("9999-12-31T23:59:59-00:01", "is not within the years 1 to 9999"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_instant(text)


@given(st.integers(FIRST, LAST))
def test_what_is_written_is_read_back(instant: int) -> None:
    text = format_instant(instant)
    assert parse_instant(text) == instant
    assert datetime.fromisoformat(text) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)
