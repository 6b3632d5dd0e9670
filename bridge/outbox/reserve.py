"""The reserve: a file beside the outbox that only takes up disk space.

On a full disk SQLite can't even delete rows; after the reserve is deleted it can.
"""

from __future__ import annotations

import os
from pathlib import Path

from bridge.errors import OutboxUnavailable

RESERVE_BYTES = 8 << 20
"""Twice what the write-ahead log holds between checkpoints."""


class Reserve:
    """The reserve of the outbox at a path."""

    def __init__(self, path: Path) -> None:
        self._outbox_path = path
        self._path = path.with_name(f"{path.name}.reserve")

    @property
    def exists(self) -> bool:
        """Whether it can be deleted for its space."""
        return self._path.exists()

    def create(self) -> None:
        """Allocate the file.

        Raises:
            OutboxUnavailable: the disk has too little space; there is no file.
        """
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Truncating to this size would only make a sparse file.
                os.posix_fallocate(handle, 0, RESERVE_BYTES)
            finally:
                os.close(handle)
        except OSError as exc:
            self.delete()
            raise OutboxUnavailable(
                f"the disk of the outbox {self._outbox_path} has no {RESERVE_BYTES} bytes left for a reserve: "
                f"{exc.strerror}"
            ) from exc

    def delete(self) -> None:
        """Give the space back to the disk."""
        self._path.unlink(missing_ok=True)
