"""A namespace for processes and mounts: it ends with its first process, and that with whoever started it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

OWN = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child")
"""Goes before a command; its process is the first one's parent."""


def children(pid: int) -> list[int]:
    """The processes that a process has started; none if it has ended."""
    with suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
