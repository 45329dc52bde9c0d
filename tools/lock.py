"""Resolve `requirements/*.in` into `requirements/*.txt`, as [tool.uv.pip] in pyproject.toml says.

What is locked stays as it is as long as it fits; `--upgrade` takes the newest versions that have been public for a
week. `--check` writes nothing and ends with 1 if a file is not what it should be.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
NAMES = ("build", "runtime", "development")  # development is held to what runtime got
COOLDOWN = timedelta(days=7)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.lock", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the files are up to date")
    parser.add_argument("--upgrade", action="store_true", help="take newer versions")
    arguments = parser.parse_args()
    if arguments.upgrade:
        _move_cutoff()
    if not arguments.check:
        return max(_resolve(REQUIREMENTS, name, *(["--upgrade"] if arguments.upgrade else [])) for name in NAMES)
    with tempfile.TemporaryDirectory() as copy:
        directory = Path(copy, "requirements")
        shutil.copytree(REQUIREMENTS, directory)
        for name in NAMES:
            if code := _resolve(directory, name):
                return code
        stale = [name for name in NAMES if not _same(f"{name}.txt", directory)]
    for name in stale:
        print(f"error: requirements/{name}.txt does not follow from {name}.in: run `make lock`", file=sys.stderr)
    return 1 if stale else 0


def _resolve(directory: Path, name: str, *options: str) -> int:
    """Run the resolver where its paths, which it writes into the file, are the same as everywhere else."""
    configuration = ROOT / "pyproject.toml"
    command = ["uv", "pip", "compile", "--quiet", "--config-file", configuration, *options]
    files = [f"{directory.name}/{name}.in", "--output-file", f"{directory.name}/{name}.txt"]
    return subprocess.run([Path(sys.executable).with_name("uv"), *command[1:], *files], cwd=directory.parent).returncode


def _same(file: str, directory: Path) -> bool:
    return (REQUIREMENTS / file).read_bytes() == (directory / file).read_bytes()


def _move_cutoff() -> None:
    configuration = ROOT / "pyproject.toml"
    cutoff = (datetime.now(UTC) - COOLDOWN).strftime("%Y-%m-%dT00:00:00Z")
    text = re.sub(r'(?m)^exclude-newer = ".*"$', f'exclude-newer = "{cutoff}"', configuration.read_text())
    configuration.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
