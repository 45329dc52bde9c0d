"""Rates of requests: how many pass, what is told of them, and that the fields are as the standard has them."""

from __future__ import annotations

import pytest
from http_sfv.list import List
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.api.keys.rates import Rate, judge, parse_rate, policy_fields

SECOND = 1_000_000
START = 1_700_000_000 * SECOND


def test_the_whole_quota_may_come_at_once_and_grows_back_evenly() -> None:
    rate, whole_at = Rate(3, 60), None
    for remaining in (2, 1, 0):
        verdict = judge(rate, whole_at, START)
        assert (verdict.passes, verdict.remaining) == (True, remaining)
        whole_at = verdict.whole_at
    refused = judge(rate, whole_at, START)
    assert (refused.passes, refused.remaining, refused.retry_after, refused.reset) == (False, 0, 20, 60)
    assert not judge(rate, refused.whole_at, START + 20 * SECOND - 1).passes
    passed = judge(rate, refused.whole_at, START + 20 * SECOND)
    assert passed.passes
    assert judge(rate, passed.whole_at, START + 3600 * SECOND).remaining == 2


@given(
    st.integers(1, 50),
    st.integers(1, 60),
    st.lists(st.integers(0, 5 * SECOND), min_size=1, max_size=200),
)
def test_no_more_pass_than_the_quota_and_what_grew_back(requests: int, seconds: int, waits: list[int]) -> None:
    rate, whole_at, now, passed = Rate(requests, seconds), None, START, 0
    for wait in waits:
        now += wait
        verdict = judge(rate, whole_at, now)
        assert verdict.passes == (verdict.retry_after == 0)
        assert 0 <= verdict.remaining < requests
        if not verdict.passes:
            assert judge(rate, verdict.whole_at, now + verdict.retry_after * SECOND).passes
        whole_at, passed = verdict.whole_at, passed + verdict.passes
    # Rounded down to the microsecond, what a request costs may let one more through in a long while.
    assert passed <= requests + (now - START) * requests / (seconds * SECOND) + 1


@given(st.integers(1, 999_999_999), st.integers(1, 99_999), st.integers(0, 3))
def test_the_fields_are_structured(requests: int, seconds: int, before: int) -> None:
    rate, whole_at = Rate(requests, seconds), None
    for _ in range(before):
        whole_at = judge(rate, whole_at, START).whole_at
    (name, policy), (other_name, left) = policy_fields(rate, judge(rate, whole_at, START))
    assert (name, other_name) == (b"ratelimit-policy", b"ratelimit")
    parsed_policy, parsed_left = List(), List()
    parsed_policy.parse(policy)
    parsed_left.parse(left)
    ((told_policy, told),) = ((one.value, dict(one.params)) for one in parsed_policy)
    assert (told_policy, told) == ("default", {"q": requests, "w": seconds})
    ((told_policy, parameters),) = ((one.value, dict(one.params)) for one in parsed_left)
    assert told_policy == "default"
    assert set(parameters) == {"r", "t"}
    assert 0 <= parameters["r"] <= requests
    assert 0 <= parameters["t"] <= seconds + 1


@pytest.mark.parametrize("text", ["0/1", "1/0", "1", "1/", "/1", "-1/60", "1/60 ", "1.5/2", "9999999999/1"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="REQUESTS/SECONDS"):
        parse_rate(text)


def test_no_rate_is_none() -> None:
    assert parse_rate("") is None
    assert parse_rate("6000/60") == Rate(6000, 60)
