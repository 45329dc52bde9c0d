"""A process that cannot outlive whoever started it.

`Supervised` starts a command under this same file, run as a program:

    python supervisor.py USER ORPHAN_SIGNAL DIRECTORY COMMAND [ARGUMENT …]

Standard output gets one line, the command's process id; standard error gets whatever the command writes. Each byte on
standard input is the number of a signal to pass on. When standard input ends, or the starter is no longer this
process's parent, the starter is gone, however it went: the command is sent ORPHAN_SIGNAL, killed if it is still there
twelve seconds later, and DIRECTORY is removed. The exit code is the command's (128 plus the signal's number where a
signal ended it). USER is who the command runs as, `-` for whoever runs this; DIRECTORY may be `-`, too.

Standard library only, and nothing from this project, so that it starts in a moment and runs from anywhere.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ORPHAN_SECONDS = 12


class Supervised:
    """A running command; ended by a signal, by itself, or by the end of this process.

    Its output goes to `output`, a file or `subprocess.PIPE`; in the latter case it is read from `self.output`. Should
    this process end first, the command is sent `orphan_signal` and the directory `remove` goes with it.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        output: int | IO[bytes],
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        user: str = "-",
        orphan_signal: signal.Signals = signal.SIGTERM,
        remove: Path | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, user, str(int(orphan_signal)), remove or "-", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=cwd,
            env=environment,
            bufsize=0,
            start_new_session=True,
        )
        self.output = self._process.stderr
        assert self._process.stdout is not None
        self.pid = int(self._process.stdout.readline() or 0)
        """The command's process id; 0 if it could not be started."""

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; does nothing if it has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(bytes([number]))

    def wait(self, seconds: float) -> int:
        """Wait for its end and answer with its exit code; raises `subprocess.TimeoutExpired`."""
        code = self._process.wait(seconds)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        return code


def identity(user: str) -> dict[str, Any]:
    """The arguments that make `subprocess` start a process as `user`; none for `-`."""
    if user == "-":
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def main(user: str, orphan_signal: str, directory: str, *command: str) -> int:
    starter = os.getppid()
    for ignored in _IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
        preexec_fn=_restore_signals,
        **identity(user),
    )
    orphaned = threading.Event()

    def obey() -> None:
        # The parent is looked at, too, because a process that the starter forked may still hold the other end.
        while os.getppid() == starter:
            if select.select([0], [], [], 1)[0]:
                numbers = os.read(0, 64)
                if not numbers:
                    break
                for number in numbers:
                    child.send_signal(number)
        orphaned.set()
        child.send_signal(int(orphan_signal))
        try:
            child.wait(ORPHAN_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()

    threading.Thread(target=obey, daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{child.pid}\n".encode())
    code = child.wait()
    if orphaned.is_set() and directory != "-":
        shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):  # another server still has its directory there
            os.rmdir(os.path.dirname(directory))
    return code if code >= 0 else 128 - code


_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Only the starter decides when the command ends; the command itself gets these as usual."""


def _restore_signals() -> None:
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
