"""What is in the window of a measure with `within`."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

_FEW = 64
"""Entries that have left and may stay in a list that is shared."""


class Window:
    """The entries of a window in their order, and for a sum its total (`whole`). Never changed, only followed.

    Windows that follow one another share their lists, each with a place in them of its own, so that to take an entry in
    or to let some go costs the same however many there are. What is at its end in the list appends to it; whoever goes
    on from an older one begins a list of its own.
    """

    __slots__ = ("_end", "_instants", "_start", "_values", "whole")

    def __init__(self, instants: list[int], values: list[Any], whole: Any, start: int = 0, end: int = 0) -> None:
        self._instants = instants
        self._values = values
        self._start = start
        self._end = end
        self.whole = whole

    @classmethod
    def of(cls, plain: list[Any]) -> Window:
        """From `plain`, which stays as it is."""
        instants, values, whole = plain
        return cls([*instants], [*values], whole, 0, len(instants))

    @property
    def plain(self) -> list[Any]:
        """[instants, values, whole] for what carries states; a count has no values."""
        return [self._instants[self._start : self._end], self.values, self.whole]

    def __len__(self) -> int:
        return self._end - self._start

    def __eq__(self, other: object) -> bool:
        return self.plain == (other.plain if isinstance(other, Window) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.plain)

    @property
    def values(self) -> list[Any]:
        return self._values[self._start : self._end]

    @property
    def first_value(self) -> Any:
        return self._values[self._start]

    @property
    def last_value(self) -> Any:
        return self._values[self._end - 1]

    @property
    def first_instant(self) -> int:
        return self._instants[self._start]

    def until(self, instant: int) -> int:
        """How many of the entries are of an instant or before it."""
        return bisect_right(self._instants, instant, self._start, self._end) - self._start

    def holds(self, instant: int) -> bool:
        """Whether an entry is of this very instant."""
        index = bisect_right(self._instants, instant, self._start, self._end) - 1
        return index >= self._start and self._instants[index] == instant

    def head(self, count: int) -> list[Any]:
        """The values of the first so many entries."""
        return self._values[self._start : self._start + count]

    def without(self, count: int, whole: Any) -> Window:
        """What is left without the first so many entries."""
        return Window(self._instants, self._values, whole, self._start + count, self._end)

    def counting(self, instant: int) -> Window:
        """With one more entry, which has no value."""
        instants, values, start, end = self._room()
        instants.append(instant)
        return Window(instants, values, self.whole, start, end + 1)

    def taking(self, instant: int, value: Any, whole: Any) -> Window:
        """With one more entry."""
        instants, values, start, end = self._room()
        instants.append(instant)
        values.append(value)
        return Window(instants, values, whole, start, end + 1)

    def _room(self) -> tuple[list[int], list[Any], int, int]:
        """Lists that end where this window does, and its place in them."""
        start, end = self._start, self._end
        if end == len(self._instants) and start <= end - start + _FEW:
            return self._instants, self._values, start, end
        return self._instants[start:end], self._values[start:end], 0, end - start
