"""How long something may take."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

YARDSTICK_SECONDS = 0.05
"""What `_yardstick` takes with the whole of a core for itself, where the limits were set (Python 3.11)."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Processor time, so that waiting for a busy machine doesn't count.

    Cores that are shared make processor time longer too, and so does what traces each line: what is above the limit is
    measured against a yardstick that runs beside it.
    """
    begun = time.process_time()
    yield
    spent = time.process_time() - begun
    if spent >= seconds:
        slowness = max(_yardstick() / YARDSTICK_SECONDS, 1.0)
        assert spent < seconds * slowness * (1 if sys.gettrace() is None else 10)


def _yardstick() -> float:
    begun = time.process_time()
    for number in range(200_000):
        str(number).rjust(8).strip().partition(".")
    return time.process_time() - begun
