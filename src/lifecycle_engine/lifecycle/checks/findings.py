"""What checks find: errors, which no journey should ever be judged by, and warnings, which stop nothing."""

from __future__ import annotations

from collections.abc import Sequence

from lifecycle_engine.lifecycle.definitions import MAX_HINTS, MAX_PROBLEMS, Problem, closest


class Findings:
    """Collects at most 50 errors and 50 warnings, one for a place."""

    def __init__(self, errors: Sequence[Problem] = ()) -> None:
        self.errors = list(errors)
        self.warnings: list[Problem] = []
        self._places = {problem.pointer for problem in errors}

    def error(self, pointer: str, message: str, hint: str | None = None) -> None:
        self._add(self.errors, Problem(pointer, message, hint))

    def warning(self, pointer: str, message: str, hint: str | None = None) -> None:
        self._add(self.warnings, Problem(pointer, message, hint))

    def meant(self, word: str, choices: Sequence[str]) -> str | None:
        return closest(word, choices) if len(self.errors) + len(self.warnings) < MAX_HINTS else None

    def _add(self, problems: list[Problem], problem: Problem) -> None:
        if len(problems) < MAX_PROBLEMS and problem.pointer not in self._places:
            self._places.add(problem.pointer)
            problems.append(problem)
