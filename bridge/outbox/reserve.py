"""The reserve: a file beside the outbox that only takes up disk space.

On a full disk SQLite can't even delete rows; after the reserve is deleted it can.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bridge.errors import OutboxUnavailable

RESERVE_BYTES = 8 << 20
"""Twice what the write-ahead log holds between checkpoints."""

SIZES = tuple(RESERVE_BYTES >> n for n in range(6))
"""From the whole size down to 256 KiB: on a small or full disk it is as large as fits."""


class Reserve:
    """The reserve of the outbox at a path. The disk must also have half its size free for the outbox itself."""

    def __init__(self, path: Path) -> None:
        self._outbox_path = path
        self._path = path.with_name(f"{path.name}.reserve")
        self._usual = SIZES[-1]

    @property
    def usual(self) -> int:
        """Bytes that it had when it was last created."""
        return self._usual

    @property
    def size(self) -> int:
        """Size of the file in bytes; 0 if there is none."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def has_room(self) -> bool:
        """Whether it has its usual size, and the outbox has room beside it."""
        return self.size >= self._usual and self._disk_has(self._usual)

    def could_be_restored(self, *, with_room: int) -> bool:
        """Whether ``restore`` could allocate the usual size with ``with_room`` more bytes free on the disk."""
        return self._disk_has(self._usual, more=with_room)

    def create(self) -> None:
        """Allocate as much as the disk has room for; a smaller size doesn't replace a larger one.

        Raises:
            OutboxUnavailable: the disk has no room; there is no reserve.
        """
        if self.size > RESERVE_BYTES:  # a kill interrupted _allocate
            os.truncate(self._path, RESERVE_BYTES)
        existing = self.size
        self._allocate_first([size for size in SIZES if size > existing], or_keep=existing)
        self._usual = max(self.size, SIZES[-1])

    def restore(self, *, or_less: bool) -> None:
        """Allocate the usual size again; ``or_less``: as much of it as the disk has room for.

        Raises:
            OutboxUnavailable: the disk has too little room.
        """
        sizes = [size for size in SIZES if size <= self._usual]
        self._allocate_first(sizes if or_less else sizes[:1], or_keep=0)

    def delete(self) -> None:
        """Give the space back to the disk."""
        self._path.unlink(missing_ok=True)

    def _allocate_first(self, sizes: Sequence[int], *, or_keep: int) -> None:
        if not any(self._disk_has(size) and self._allocate(size) for size in sizes) and not or_keep:
            raise OutboxUnavailable(
                f"the disk of the outbox {self._outbox_path} has no room for a reserve of {sizes[-1]} bytes, and half "
                "as much for the outbox"
            )

    def _disk_has(self, size: int, *, more: int = 0) -> bool:
        # Checked before allocating: a failed attempt would fill the disk for a moment, also for other programs.
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return True
        return disk.f_bavail * disk.f_frsize + self.size + more >= size + size // 2

    def _allocate(self, size: int) -> bool:
        existing = self.size
        if existing == size:
            return True
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            # Truncating to the size would only make a sparse file. The further half proves that the outbox has room.
            os.posix_fallocate(handle, 0, size + size // 2)
            os.ftruncate(handle, size)
        except OSError:  # such as a quota, which statvfs may not show
            os.ftruncate(handle, existing)
            if not existing:
                self.delete()
            return False
        finally:
            os.close(handle)
        return True
