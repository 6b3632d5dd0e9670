"""Directories on disk: a file that is synced is lost all the same while the entry of its name is not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM)


def make(directory: Path) -> None:
    """Make the directory with its parents if they are missing, and sync the whole path.

    Also where it is there: an earlier start may have been killed between making and syncing it.

    Raises:
        OSError: it can't be made or synced.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for parent in directory.absolute().parents:
        sync(parent)


def sync(directory: Path) -> None:
    """Make the creations, renames and removals in the directory durable.

    Does nothing where the file system can't do it, or where the directory may not be read.

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
