"""What a run shows while it lasts, on standard error."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class Progress:
    """A bar for the run, one for the load at hand, and a line for each figure that is known."""

    def __init__(self) -> None:
        # Redrawn seldom, because drawing takes from the cores that are measured.
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False),
            refresh_per_second=2,
        )
        self._whole = self._bars.add_task("all measurements", total=None)
        self._part = self._bars.add_task("starting PostgreSQL and Kafka", total=None)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.update(self._part, visible=False)
        self._bars.stop()

    def expect(self, steps: int) -> None:
        """How many steps the run has."""
        self._bars.update(self._whole, total=steps)

    def doing(self, what: str, total: int | None = None) -> None:
        """What comes next, and how much there is of it."""
        self._bars.reset(self._part, description=what, total=total)

    def advance(self, count: int) -> None:
        """So many more of what is being done are done."""
        self._bars.advance(self._part, count)

    def done(self, what: str) -> None:
        """One step of the run is done: its figure."""
        self._bars.advance(self._whole)
        self._bars.console.print(what)
