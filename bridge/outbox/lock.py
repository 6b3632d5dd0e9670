"""Ownership of the outbox: the lock file beside it, and how a copy of the outbox is detected."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from bridge.errors import OutboxInUse, SettingError
from bridge.log import get_logger
from bridge.outbox import directories

SEAL = re.compile(rb"[0-9a-f]{16}")

log = get_logger(__name__)


class LockFile:
    """The lock file of the outbox at a path. The kernel releases the lock when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            OutboxInUse: another process holds it.
            SettingError: the outbox's directory isn't writable.
        """
        try:
            if not Path(f"{self._path}.lock").exists():  # else an earlier start has synced the directories
                directories.make(self._path.parent)
            # Not truncated: it holds the seal.
            self._handle = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise not_writable(self._path, exc) from exc
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self.release()
            raise OutboxInUse(
                "outbox.path",
                f"{self._path} is in use by another bridge, or by `gdn-bridge deadletter`. "
                "Give each bridge its own outbox (and its own MQTT client id).",
            ) from exc

    def release(self) -> None:
        """Release the lock; may be called twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @property
    def seal(self) -> str:
        """The seal in the lock file; empty if it has none. Only while the lock is held."""
        assert self._handle is not None
        content = os.pread(self._handle, 64, 0)
        return content.decode() if SEAL.fullmatch(content) else ""

    def write_seal(self, seal: str) -> None:
        """Replace the seal, durably, after the outbox has stored it."""
        assert self._handle is not None
        try:
            os.pwrite(self._handle, seal.encode(), 0)
            os.ftruncate(self._handle, len(seal))
            os.fsync(self._handle)
        except OSError as exc:
            log.warning("outbox.not_sealed", error=exc.strerror)


def not_writable(path: Path, exc: OSError) -> SettingError:
    """The error for an outbox that can't be written."""
    return SettingError(
        "outbox.path",
        f"{path} can't be opened for writing: {exc.strerror}. Give a file in a directory that the bridge may write to.",
    )
