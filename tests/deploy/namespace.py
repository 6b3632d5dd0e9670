"""A namespace for processes and mounts: it ends with its first process, which ends with its starter."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

OWN = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child")
"""Prefix of a command: runs it as the first process of a new namespace."""


def children(pid: int) -> list[int]:
    """The child processes of a process; none if it has ended."""
    with suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
