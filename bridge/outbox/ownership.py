"""Checks that files at the outbox's path belong to an outbox: those of other programs must not be changed or moved."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bridge.errors import SettingError
from bridge.outbox import schema, wal
from bridge.outbox.lock import SEAL
from bridge.outbox.reserve import RESERVE_BYTES

SQLITE_MAGIC = b"SQLite format 3\0"
SHM_VERSIONS = (b"\0" * 4, wal.VERSION.to_bytes(4, sys.byteorder))
"""First bytes of a write-ahead log's index: zeros until SQLite initialises it."""

BLOCK = 4096
"""Bytes read from the start of a file."""
LARGEST_PAGE = 65536


def check_path(path: Path) -> None:
    """Check that all files at the path and beside it belong to an outbox. Changes nothing.

    Raises:
        SettingError: a file doesn't; the message names it.
    """
    if path.exists() and not path.is_file():
        raise SettingError("outbox.path", f"{path} is not a regular file. Give the path of a file for the outbox.")
    try:
        _check(path)
    except OSError:  # not readable; the bridge can't change it either
        return


def not_an_outbox(path: Path) -> SettingError:
    """The error for a file that isn't an outbox."""
    return SettingError(
        "outbox.path",
        f"{path} exists and is not an outbox of gdn-bridge. Give the path of a new file, or of an outbox. If this is "
        "a damaged outbox, move it away.",
    )


def _check(path: Path) -> None:
    if SEAL.fullmatch(_head(_beside(path, ".lock"))):
        return
    if _has_content(path):
        if _is_outbox(path):
            return
        if not (is_blank(path) or _looks_like_log(_beside(path, "-wal"))):
            raise not_an_outbox(path)
    for suffix, is_ours in BESIDE.items():
        beside = _beside(path, suffix)
        if _has_content(beside) and not is_ours(beside):
            raise SettingError(
                "outbox.path",
                f"{beside} exists and was not written by gdn-bridge, which needs this name beside the outbox "
                f"{path}. Give the outbox another path, or move that file away.",
            )


def _is_outbox(path: Path) -> bool:
    """Whether it is a SQLite file with our tables or without tables. A damaged one counts as ours."""
    if not _head(path).startswith(SQLITE_MAGIC):
        return False
    # Immutable: otherwise even a reader would create files beside it.
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as db:
            return not schema.is_foreign(db)
    except sqlite3.Error:
        return True


def is_blank(path: Path) -> bool:
    """Whether a file contains only zeros: a power loss may leave a new file like this."""
    return path.stat().st_size <= LARGEST_PAGE and not path.read_bytes().strip(b"\0")


def _looks_like_log(path: Path) -> bool:
    return int.from_bytes(_head(path)[:4], "big") in (wal.MAGIC_LITTLE, wal.MAGIC_BIG)


def _looks_like_index(path: Path) -> bool:
    return _head(path)[:4] in SHM_VERSIONS


def _looks_like_reserve(path: Path) -> bool:
    return path.stat().st_size <= 2 * RESERVE_BYTES and not _head(path).strip(b"\0")


def _looks_like_rescue(path: Path) -> bool:
    return _head(path).startswith(SQLITE_MAGIC) or not _head(path).strip(b"\0")


BESIDE: dict[str, Callable[[Path], bool]] = {
    ".lock": is_blank,
    ".reserve": _looks_like_reserve,
    ".rescue": _looks_like_rescue,
    "-wal": _looks_like_log,
    "-shm": _looks_like_index,
}
"""Suffixes of the files that the bridge writes or deletes, and how to recognise its own."""


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}{suffix}")


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _head(path: Path) -> bytes:
    """The first bytes of a file; empty if there is none."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        return file.read(BLOCK)
