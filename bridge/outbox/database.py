"""The outbox's SQLite file: connection, transactions and saved values; SQLite's errors as the bridge's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.errors import OutboxDamaged, OutboxUnavailable
from bridge.outbox import rescue

READ_VALUE = "SELECT value FROM memory WHERE key = ?"
READ_VALUES = "SELECT key, value FROM memory WHERE substr(key, 1, ?) = ?"


class Database:
    """One SQLite file. A subclass opens ``_db`` and closes it. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()  # SQLite keeps its log beside the file that a link leads to
        self._db: sqlite3.Connection | None = None
        self._damage: str | None = None  # found since it was opened

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[sqlite3.Connection]:
        """A synced transaction: everything inside it happens, or nothing.

        Args:
            doing: for the error message, such as "commit to".

        Raises:
            OutboxUnavailable, OutboxDamaged: as ``_translated``; nothing was changed.
        """
        with self._translated(doing) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                # Without this the connection would stay in the transaction and every later BEGIN would fail.
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self, doing: str) -> Iterator[sqlite3.Connection]:
        """The connection, with SQLite's errors translated.

        Args:
            doing: for the error message, such as "read".

        Raises:
            OutboxUnavailable: the file can't be used now.
            OutboxDamaged: its content is damaged.
        """
        try:
            yield self._db  # type: ignore[misc]  # None only before open, which sets it inside this block
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            text = f"can't {doing} the outbox {self._path}: {exc}"
            if rescue.is_damage(exc):
                self._damage = text
                raise OutboxDamaged(text) from exc
            raise OutboxUnavailable(text) from exc

    def saved_value(self, key: str) -> str | None:
        """The text that ``save_values`` last stored under the key; None if there is none.

        Raises:
            OutboxUnavailable: the outbox can't be read now.
        """
        with self._translated("read") as db:
            found = db.execute(READ_VALUE, (key,)).fetchone()
        return None if found is None else str(found[0])

    def saved_values(self, prefix: str) -> dict[str, str]:
        """All saved texts whose keys start with the prefix, by key.

        Raises:
            OutboxUnavailable: the outbox can't be read now.
        """
        with self._translated("read") as db:
            return dict(db.execute(READ_VALUES, (len(prefix), prefix)).fetchall())
