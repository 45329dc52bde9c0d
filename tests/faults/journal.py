"""The driver's journal: what was sent and what the answers were, each line out of the program before anything goes on.

It is written by a process that no test kills, and is all that the verifier believes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.stream import Touchpoint

OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"
"""The answers. Refused means that nothing was appended; unknown, that nobody knows."""
HTTP, TOPIC = "http", "topic"
"""The ways on which touchpoints are sent."""


@dataclass(frozen=True)
class Target:
    """Where the service and its parts are; without `bootstrap_servers` the log is a table of the database.

    `hooks` is the file that describes the receivers of webhooks, where there are any.
    """

    url: str
    database_url: str
    bootstrap_servers: str = ""
    topic: str = ""
    hooks: str = ""


@dataclass
class Sending:
    """One touchpoint, the way on which it was sent, and how often each answer came; the newest may be on its way."""

    touchpoint: Touchpoint
    way: str
    sent: int = 0
    answers: dict[str, int] = field(default_factory=lambda: {OK: 0, REFUSED: 0, UNKNOWN: 0})


class Answer(NamedTuple):
    """An answer over HTTP: its status, when it came by the monotonic clock, and how many seconds it took."""

    at: float
    seconds: float
    status: str
    accepted: int


@dataclass
class Record:
    """A journal that was read: the touchpoints by id, and the answers over HTTP in their order."""

    target: Target
    lifecycles: Sequence[Mapping[str, Any]]
    sendings: dict[str, Sending]
    answers: list[Answer]

    @property
    def slowest(self) -> float:
        """How many seconds the slowest answer over HTTP took."""
        return max((answer.seconds for answer in self.answers), default=0.0)

    def count(self, answer: str) -> int:
        """How often this was the answer, over all touchpoints."""
        return sum(sending.answers[answer] for sending in self.sendings.values())


class Journal:
    """A journal that is being written."""

    def __init__(self, path: Path, target: Target, lifecycles: Sequence[Mapping[str, Any]]) -> None:
        self._file = path.open("x", encoding="utf-8")
        self._requests = 0
        self._known: dict[str, Touchpoint] = {}
        self._write({"target": asdict(target), "lifecycles": lifecycles})

    def sends(self, way: str, touchpoints: Sequence[Touchpoint]) -> int:
        """Notes what is going to be sent; gives the number of the request."""
        self._requests += 1
        # What is in the journal already is only named: an outage is long, and nothing is sent so often as in one.
        told = [one["id"] if self._known.get(one["id"]) == one else one for one in touchpoints]
        self._known.update((one["id"], one) for one in touchpoints)
        self._write({"request": self._requests, "way": way, "touchpoints": told})
        return self._requests

    def answered(self, request: int, answers: Sequence[str], status: str, seconds: float) -> None:
        """Notes the answer for each touchpoint of a request, and what it was read from."""
        at = round(time.monotonic(), 3)
        self._write({"answered": request, "answers": answers, "status": status, "seconds": round(seconds, 3), "at": at})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


class JournalReader:
    """Reads a journal while it is being written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._record: Record | None = None
        self._requests: dict[int, list[Sending]] = {}

    def read(self) -> Record | None:
        """The journal as far as it is written; None where not even its first line is."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                written = file.read()
            whole = written[: written.rfind(b"\n") + 1]
            self._offset += len(whole)
            for line in whole.splitlines():
                self._add(json.loads(line))
        return self._record

    def _add(self, line: Mapping[str, Any]) -> None:
        if self._record is None:
            self._record = Record(Target(**line["target"]), line["lifecycles"], {}, [])
        elif "request" in line:
            record = self._record
            self._requests[line["request"]] = [_sending(record, one, line["way"]) for one in line["touchpoints"]]
        else:
            sendings = self._requests.pop(line["answered"])
            for sending, answer in zip(sendings, line["answers"], strict=True):
                sending.answers[answer] += 1
            if sendings[0].way == HTTP:
                accepted = line["answers"].count(OK)
                self._record.answers.append(Answer(line["at"], line["seconds"], line["status"], accepted))


def read_journal(path: Path) -> Record | None:
    """A journal as far as it is written; None where not even its first line is."""
    return JournalReader(path).read()


def _sending(record: Record, told: Touchpoint | str, way: str) -> Sending:
    touchpoint = record.sendings[told].touchpoint if isinstance(told, str) else told
    sending = record.sendings.setdefault(touchpoint["id"], Sending(touchpoint, way))
    if (sending.touchpoint, sending.way) != (touchpoint, way):
        raise ValueError(f"{touchpoint['id']} was sent twice, with another content or on another way")
    sending.sent += 1
    return sending
