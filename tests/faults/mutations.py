"""Takes out what keeps effects from happening twice, one thing at a time, and sees whether the tests notice.

    python -m tests.faults.mutations [TEST …]

The tree is copied, the copy is changed by replacing an exact text, and the tests run with the copy. A text that is no
longer there is an error: the mutation must follow the code. Prints which test was red under which mutation, and fails
if any mutation left all tests green, or if any test was red without one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
COPIED = ("src", "tests", "tools", "migrations", "pyproject.toml")
TESTS = ("tests/faults", "--deselect", "tests/faults/test_verifier.py", "tests/integration/test_queue.py")
"""What is run where nothing is named."""
GREEN, RED, MISSING = "green", "RED", "?"


@dataclass(frozen=True)
class Mutation:
    """One text of one file, and what is put in its place."""

    name: str
    path: str
    text: str
    replacement: str

    def apply(self, tree: Path) -> None:
        """Changes the copy. Raises ValueError unless the text is there once."""
        file = tree / self.path
        content = file.read_text(encoding="utf-8")
        if content.count(self.text) != 1:
            raise ValueError(f"{self.path} has {self.text!r} {content.count(self.text)} times: adapt {self.name!r}")
        file.write_text(content.replace(self.text, self.replacement), encoding="utf-8")


MUTATIONS = (
    Mutation(
        "no compare-and-set",
        "src/lifecycle_engine/store/positions.py",
        '"AND log_position.next = given.first RETURNING',
        '"RETURNING',
    ),
    Mutation(
        "no de-duplication",
        "src/lifecycle_engine/engine/batch.py",
        "return [item for name, item in first.items() if name in fresh]",
        "return list(first.values())",
    ),
    Mutation(
        "no row lock",
        "src/lifecycle_engine/store/rows.py",
        'lock="FOR UPDATE OF locked"',
        'lock=""',
    ),
    Mutation(
        "timers lock no row",
        "src/lifecycle_engine/store/rows.py",
        'lock_free="FOR UPDATE OF locked SKIP LOCKED"',
        'lock_free=""',
    ),
    Mutation(
        "results need no lease",
        "src/lifecycle_engine/store/deliveries.py",
        'AND webhook_delivery.lease = given.lease "\n    f"AND webhook_delivery.status',
        '"\n    f"AND webhook_delivery.status',
    ),
    Mutation(
        "what is claimed is not leased",
        "src/lifecycle_engine/outbox/queue.py",
        "lease, until = secrets.randbits(62), now + policy.lease",
        "lease, until = secrets.randbits(62), now",
    ),
    Mutation(
        "lanes are not kept",
        "src/lifecycle_engine/store/deliveries.py",
        "(_table.customer.is_(None)) | ~is_behind,",
        "(_table.customer.is_(None)) | ~is_behind | (_table.id > 0),",
    ),
    Mutation(
        "what is muted is told",
        "src/lifecycle_engine/outbox/fan_out.py",
        "[change for change in changes if not change.muted]",
        "list(changes)",
    ),
)


def run(tree: Path, tests: Sequence[str]) -> dict[str, str]:
    """Runs the tests with the code of `tree`; test -> green or red."""
    results = tree / "results.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={results}", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    imported = subprocess.run(
        [sys.executable, "-c", "import lifecycle_engine; print(lifecycle_engine.__file__)"],
        cwd=tree,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    if not Path(imported).is_relative_to(tree):
        raise ValueError(f"the tests would run with {imported.strip()}")
    with (tree / "output.txt").open("wb") as output:
        subprocess.run(command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    if not results.exists():
        raise ValueError("the tests did not run:\n" + (tree / "output.txt").read_text(errors="replace")[-3_000:])
    cases = ElementTree.parse(results).getroot().iter("testcase")
    return {
        f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}": (
            RED if case.find("failure") is not None or case.find("error") is not None else GREEN
        )
        for case in cases
    }


def table(results: Mapping[str, Mapping[str, str]]) -> str:
    """Mutation -> test -> result, with a line for each test."""
    tests = list(dict.fromkeys(test for outcome in results.values() for test in outcome))
    rows = [["test", *results], *([test, *(results[name].get(test, MISSING) for name in results)] for test in tests)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutations", description=__doc__.split("\n")[0])
    parser.add_argument("tests", nargs="*", help="as pytest takes them (default: all that can notice)")
    tests = parser.parse_args().tests or TESTS
    results: dict[str, dict[str, str]] = {}
    for mutation in (None, *MUTATIONS):
        name = mutation.name if mutation else "as it is"
        sys.stderr.write(f"{name} …\n")
        with tempfile.TemporaryDirectory(prefix="lifecycle-mutation-") as directory:
            tree = Path(directory)
            for item in COPIED:
                source = ROOT / item
                if source.is_dir():
                    shutil.copytree(source, tree / item, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, tree / item)
            if mutation:
                mutation.apply(tree)
            results[name] = run(tree, tests)
    sys.stdout.write(table(results) + "\n")
    before, *after = results.values()
    failed = [test for test, result in before.items() if result == RED]
    survived = [name for name, outcome in list(results.items())[1:] if RED not in outcome.values()]
    for test in failed:
        sys.stderr.write(f"error: {test} is red as it is\n")
    for name in survived:
        sys.stderr.write(f"error: no test noticed: {name}\n")
    return 1 if failed or survived or not after else 0


if __name__ == "__main__":
    sys.exit(main())
