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
CONFIGURATION = ROOT / "pyproject.toml"
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
        return _resolve(ROOT, *(["--upgrade"] if arguments.upgrade else []))
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        shutil.copy(CONFIGURATION, copy)
        shutil.copytree(ROOT / "requirements", copy / "requirements")
        if code := _resolve(copy):
            return code
        files = [Path("requirements", f"{name}.txt") for name in NAMES]
        stale = [file for file in files if (ROOT / file).read_bytes() != (copy / file).read_bytes()]
    for file in stale:
        print(f"error: {file} does not follow from {file.with_suffix('.in')}: run `make lock`", file=sys.stderr)
    return 1 if stale else 0


def _resolve(root: Path, *options: str) -> int:
    """Resolve every file in turn. From `root`, because the paths as given are written into the files."""
    uv = Path(sys.executable).with_name("uv")
    for name in NAMES:
        files = [f"requirements/{name}.in", "--output-file", f"requirements/{name}.txt"]
        if code := subprocess.run([uv, "pip", "compile", "--quiet", *options, *files], cwd=root).returncode:
            return code
    return 0


def _move_cutoff() -> None:
    cutoff = (datetime.now(UTC) - COOLDOWN).strftime("%Y-%m-%dT00:00:00Z")
    text = re.sub(r'(?m)^exclude-newer = ".*"$', f'exclude-newer = "{cutoff}"', CONFIGURATION.read_text())
    CONFIGURATION.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
