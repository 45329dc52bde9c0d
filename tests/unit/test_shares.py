"""Who may send how much: nobody takes the room of others, and rates hold to the attempt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.outbox.shares import share
from lifecycle_engine.outbox.throttle import SECOND, begins, taken

NAMES = st.text("abcdefgh", min_size=1, max_size=1)
COUNTS = st.dictionaries(NAMES, st.integers(0, 300))


@given(slots=st.integers(1, 200), held=COUNTS, wanted=COUNTS)
def test_nobody_gets_more_than_there_is_or_than_asked_for(
    slots: int, held: dict[str, int], wanted: dict[str, int]
) -> None:
    given_ = share(slots, held, wanted)
    assert all(0 < count <= wanted[name] for name, count in given_.items())
    assert sum(given_.values()) <= max(0, slots - sum(held.values()))


def test_endpoints_that_never_let_go_leave_room() -> None:
    held: dict[str, int] = {}
    for _ in range(50):
        for name, count in share(200, held, {f"hung{n}": 1000 for n in range(9)}).items():
            held[name] = held.get(name, 0) + count
    assert set(held.values()) == {20}
    assert share(200, held, {"healthy": 5}) == {"healthy": 5}


def test_one_alone_gets_half() -> None:
    assert share(200, {}, {"one": 1000}) == {"one": 100}


def test_who_has_least_comes_first() -> None:
    assert share(10, {"flooded": 5}, {"flooded": 100, "quiet": 1}) == {"quiet": 1}


@given(rate=st.integers(1, 1000), waits=st.lists(st.integers(0, 2 * SECOND), max_size=40), count=st.integers(1, 50))
def test_no_second_has_more_attempts_than_the_rate(rate: int, waits: list[int], count: int) -> None:
    now, until, starts = 10**15, None, []
    for wait in waits:
        now += wait
        if found := begins(rate, until, now, now + SECOND // 2)[:count]:
            starts += found
            until = taken(rate, found[-1])
    assert starts == sorted(starts)
    assert all(later - earlier >= SECOND for earlier, later in zip(starts, starts[rate:], strict=False))
