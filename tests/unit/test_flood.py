"""How many dead letters are too many."""

from __future__ import annotations

from lifecycle_engine.engine.flood import Flood


def test_all_that_comes_is_dead() -> None:
    flood = Flood(20)
    for left in range(20, 0, -1):
        assert flood.room == left
        flood.count(0, 1)
    assert flood.room == 0
    flood.forget()
    assert flood.room == 20


def test_one_in_twenty_goes_on_for_ever() -> None:
    flood = Flood(20)
    for _ in range(10_000):
        flood.count(19, 1)
    assert flood.room >= 19


def test_one_in_five_does_not() -> None:
    flood, dead = Flood(20), 0
    while flood.room:
        flood.count(4, 1)
        dead += 1
    assert dead < 40


def test_what_was_good_makes_up_for_what_follows_only_once() -> None:
    flood = Flood(20)
    flood.count(1_000_000, 0)
    assert flood.room == 20
