"""The driver's journal: what was sent and what the answers were, each line on the disk before anything goes on.

It is written by a process that no test kills, and is all that the verifier believes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.stream import Touchpoint

OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"
"""The answers. Refused means that nothing was appended; unknown, that nobody knows."""


@dataclass(frozen=True)
class Target:
    """Where the service and its parts are; without `bootstrap_servers` the log is a table of the database."""

    url: str
    database_url: str
    bootstrap_servers: str = ""
    topic: str = ""


@dataclass
class Sending:
    """One touchpoint, the way on which it was sent, and how often each answer came; the newest may be on its way."""

    touchpoint: Touchpoint
    way: str
    sent: int = 0
    answers: dict[str, int] = field(default_factory=lambda: {OK: 0, REFUSED: 0, UNKNOWN: 0})


@dataclass
class Record:
    """A journal that was read: the touchpoints by id, and how many seconds the slowest answer took."""

    target: Target
    lifecycles: Sequence[Mapping[str, Any]]
    sendings: dict[str, Sending]
    slowest: float

    def count(self, answer: str) -> int:
        """How often this was the answer, over all touchpoints."""
        return sum(sending.answers[answer] for sending in self.sendings.values())


class Journal:
    """A journal that is being written."""

    def __init__(self, path: Path, target: Target, lifecycles: Sequence[Mapping[str, Any]]) -> None:
        self._file = path.open("x", encoding="utf-8")
        self._requests = 0
        self._write({"target": asdict(target), "lifecycles": lifecycles})

    def sends(self, way: str, touchpoints: Sequence[Touchpoint]) -> int:
        """Notes what is going to be sent; gives the number of the request."""
        self._requests += 1
        self._write({"request": self._requests, "way": way, "touchpoints": touchpoints})
        return self._requests

    def answered(self, request: int, answers: Sequence[str], status: str, seconds: float) -> None:
        """Notes the answer for each touchpoint of a request, and what it was read from."""
        self._write({"answered": request, "answers": answers, "status": status, "seconds": round(seconds, 3)})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_journal(path: Path) -> Record | None:
    """The journal as far as it is written; None where not even its first line is."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    if not lines:
        return None
    header = json.loads(lines[0])
    record = Record(Target(**header["target"]), header["lifecycles"], {}, 0.0)
    requests: dict[int, list[Sending]] = {}
    for line in map(json.loads, lines[1:]):
        if "request" in line:
            requests[line["request"]] = [_sending(record, one, line["way"]) for one in line["touchpoints"]]
        else:
            record.slowest = max(record.slowest, line["seconds"])
            for sending, answer in zip(requests[line["answered"]], line["answers"], strict=True):
                sending.answers[answer] += 1
    return record


def _sending(record: Record, touchpoint: Touchpoint, way: str) -> Sending:
    sending = record.sendings.setdefault(touchpoint["id"], Sending(touchpoint, way))
    if (sending.touchpoint, sending.way) != (touchpoint, way):
        raise ValueError(f"{touchpoint['id']} was sent twice, with another content or on another way")
    sending.sent += 1
    return sending
