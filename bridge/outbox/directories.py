"""Syncs directories: a power loss loses even a synced file if its directory entry was not synced."""

from __future__ import annotations

import errno
import os
from pathlib import Path

UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of a file system that can't sync directories or isn't writable, or of a directory that isn't readable."""


def make(directory: Path) -> None:
    """Create the directory and its parents if necessary, and sync the whole path.

    An existing directory is synced too: an earlier start may have been killed between creating and syncing it.

    Raises:
        OSError: it can't be created or synced.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for parent in directory.absolute().parents:
        sync(parent)


def sync(directory: Path) -> None:
    """Make the creations, renames and removals in the directory durable.

    Does nothing if the file system doesn't support it or the directory isn't readable.

    Raises:
        OSError: the disk failed.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as exc:
        if exc.errno not in UNSUPPORTED:
            raise
