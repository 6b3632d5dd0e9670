"""The store's file: its connection, and SQLite's errors in our words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.errors import OutboxDamaged, OutboxUnavailable
from bridge.outbox import rescue

RECALL = "SELECT value FROM memory WHERE key = ?"
RECALL_ALL = "SELECT key, value FROM memory WHERE substr(key, 1, ?) = ?"


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
