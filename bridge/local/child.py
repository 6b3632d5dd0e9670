"""Child processes that don't outlive the demonstration, however it ends.

``python -m bridge.local.child run PARENT PROGRAM ARGUMENT…`` becomes the program; the kernel sends it SIGTERM when the
parent's thread that started it ends. ``python -m bridge.local.child clean DIRECTORY`` waits until its standard input,
a pipe from the parent, is closed, and removes the directory.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
"""Option of prctl(2). The setting survives execve(2)."""

REMOVE_SECONDS = 30.0
"""Time for removing the directory: the children that are ending may still write to it."""


def command(*arguments: str) -> list[str]:
    """The command line that starts a program as a child of the calling thread's process.

    The calling thread must live as long as the child: its end counts as the parent's.
    """
    return [sys.executable, "-m", "bridge.local.child", "run", str(os.getpid()), *arguments]


def cleaner(directory: str) -> list[str]:
    """The command line that removes the directory once its standard input is closed."""
    return [sys.executable, "-m", "bridge.local.child", "clean", directory]


def _run(parent: int, program: list[str]) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # the parent ended before prctl, so no signal will come
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 - the caller's command


def _clean(directory: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a terminal sends them to the whole group
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    deadline = time.monotonic() + REMOVE_SECONDS
    while os.path.isdir(directory) and time.monotonic() < deadline:  # noqa: PTH112 - pathlib would slow the start
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.2)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        _run(int(sys.argv[2]), sys.argv[3:])
    else:
        _clean(sys.argv[2])
