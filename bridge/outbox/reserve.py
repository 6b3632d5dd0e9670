"""The file beside the store that only takes up room: on a full disk SQLite can't even delete; given up, it can."""

from __future__ import annotations

import os
from pathlib import Path

from bridge.errors import OutboxUnavailable

RESERVE_BYTES = 8 << 20
"""Twice what the write-ahead log holds between checkpoints."""


class Reserve:
    """The reserve of the store at a path."""

    def __init__(self, path: Path) -> None:
        self._store = path
        self._path = path.with_name(f"{path.name}.reserve")

    @property
    def is_there(self) -> bool:
        """Whether it can be given up."""
        return self._path.exists()

    def take_up(self) -> None:
        """Make the file.

        Raises:
            OutboxUnavailable: the disk hasn't got the room; there is no file.
        """
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, RESERVE_BYTES)
            finally:
                os.close(handle)
        except OSError as exc:
            self.give_up()
            raise OutboxUnavailable(
                f"the disk of the outbox {self._store} has no {RESERVE_BYTES} bytes left for a reserve: {exc.strerror}"
            ) from exc

    def give_up(self) -> None:
        """Give the room back to the disk."""
        self._path.unlink(missing_ok=True)
