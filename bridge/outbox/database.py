"""The store's file: its connection, SQLite's errors in our words, and the reserve that helps on a full disk."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from bridge.errors import OutboxDamaged, OutboxUnavailable
from bridge.log import get_logger
from bridge.outbox import rescue

RESERVE_BYTES = 8 << 20
"""Of a file that only takes up room. On a full disk SQLite can't even delete; giving this room up, it can. Twice what
the write-ahead log holds between checkpoints."""

VACUUM_PAGES = 4096

RECALL = "SELECT value FROM memory WHERE key = ?"
RECALL_ALL = "SELECT key, value FROM memory WHERE substr(key, 1, ?) = ?"

T = TypeVar("T")

log = get_logger(__name__)


class Database:
    """One SQLite file. Who inherits it opens ``_db`` and closes it. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[sqlite3.Connection]:
        """All of what is done inside or nothing, synced; ``doing`` goes into the error's sentence.

        Raises:
            OutboxUnavailable, OutboxDamaged: as ``_translated``; nothing was changed.
        """
        with self._translated(doing) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self, doing: str) -> Iterator[sqlite3.Connection]:
        """The connection, with its errors in our words.

        Raises:
            OutboxUnavailable: the file can't be used now.
            OutboxDamaged: it is not what it should be.
        """
        try:
            yield self._db  # type: ignore[misc]  # None only before open, which sets it inside this block
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            text = f"can't {doing} the outbox {self._path}: {exc}"
            raise (OutboxDamaged if rescue.is_damage(exc) else OutboxUnavailable)(text) from exc

    def recall(self, key: str) -> str | None:
        """What ``remember`` last kept under the key.

        Raises:
            OutboxUnavailable: the store can't be read now.
        """
        with self._translated("read") as db:
            found = db.execute(RECALL, (key,)).fetchone()
        return None if found is None else str(found[0])

    def recall_all(self, prefix: str) -> dict[str, str]:
        """Everything that is kept under keys with this beginning.

        Raises:
            OutboxUnavailable: the store can't be read now.
        """
        with self._translated("read") as db:
            return dict(db.execute(RECALL_ALL, (len(prefix), prefix)).fetchall())

    # --- a full disk ----------------------------------------------------------------------------------------

    @property
    def _reserve(self) -> Path:
        return self._path.with_name(f"{self._path.name}.reserve")

    def _make_reserve(self) -> None:
        try:
            handle = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, RESERVE_BYTES)
            finally:
                os.close(handle)
        except OSError as exc:
            self._reserve.unlink(missing_ok=True)
            raise OutboxUnavailable(
                f"the disk of the outbox {self._path} has no {RESERVE_BYTES} bytes left for a reserve: {exc.strerror}"
            ) from exc

    def _renew_reserve(self) -> None:
        """Give room back to the disk and take up the reserve again, if it was given up."""
        if not self._reserve.exists():
            with self._translated("shrink") as db:
                db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._make_reserve()

    def _with_reserve(self, work: Callable[[], T]) -> T:
        """Do what makes room or lets deliveries go on, on a full disk with the room of the reserve."""
        try:
            return work()
        except OutboxUnavailable as exc:
            code = getattr(exc.__cause__, "sqlite_errorcode", 0) & 0xFF
            # A shared-memory file that can't grow is reported as an I/O error.
            if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) or not self._reserve.exists():
                raise
            log.warning("outbox.reserve_used", error=str(exc))
            self._reserve.unlink(missing_ok=True)
            if self._db is not None:
                with self._translated("checkpoint") as db:
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return work()
