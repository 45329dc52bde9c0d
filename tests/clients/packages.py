"""npm's packages for tests, installed by npm itself beside the environment that runs them, once for each list."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
INSTALL_SECONDS = 240


class InstallError(Exception):
    """The packages could not be installed; the text says why."""


def node() -> tuple[Path, dict[str, str]]:
    """Node.js, and an environment in which it finds the packages. Raises InstallError."""
    commands = Path(sys.executable).parent
    wanted = (PROGRAMS / "package.json").read_bytes()
    folder = commands.parent / f"node-packages-{sha256(wanted).hexdigest()[:12]}"
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = folder / "installed"
    if not done.exists():
        folder.mkdir(exist_ok=True)
        (folder / "package.json").write_bytes(wanted)
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            ended = subprocess.run(
                [commands / "npm", "install", *options],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstallError(f"npm did not install the packages of {PROGRAMS / 'package.json'}: {error}") from None
        if ended.returncode:
            raise InstallError(
                f"npm did not install the packages of {PROGRAMS / 'package.json'}:\n{ended.stderr[-2000:]}"
            )
        done.touch()
    return commands / "node", {**environment, "NODE_PATH": str(folder / "node_modules")}
