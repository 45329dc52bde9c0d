"""How long something may take."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Processor time, so that a busy machine doesn't count; and what traces each line makes all of it slower."""
    allowed = seconds if sys.gettrace() is None else 10 * seconds
    begun = time.process_time()
    yield
    assert time.process_time() - begun < allowed
