"""The store in the hands of the process that owns it: locked, named, upgraded or rescued, helped on a full disk."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from bridge.errors import ConfigError, OutboxDamaged, OutboxUnavailable
from bridge.log import get_logger
from bridge.outbox import directories, rescue, schema
from bridge.outbox.database import Database
from bridge.outbox.lock import Lock, not_writable
from bridge.outbox.reserve import Reserve

FORGET = "DELETE FROM memory WHERE key = ?"
REMEMBER = "INSERT INTO memory VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

VACUUM_PAGES = 4096

T = TypeVar("T")

log = get_logger(__name__)


class OwnedDatabase(Database, ABC):
    """``open`` before use, ``close`` after. Not thread-safe: one thread at a time, the pipeline's once it runs."""

    def __init__(self, path: Path, *, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        super().__init__(path)
        # Age goes by one reading of the wall clock and the monotonic one after it: a clock that is set while the
        # bridge runs must not make records old.
        self._started = wall_clock() - clock()
        self._clock = clock
        self._lock = Lock(path)
        self._reserve = Reserve(path)
        self._opened_inode = 0
        self.name = ""
        """Of this store, for good: part of message ids and of the producer name."""

    @abstractmethod
    def _take_stock(self, db: sqlite3.Connection, *, is_copy: bool) -> None:
        """Read what is kept in memory of the file. A copy must forget what was handed over: it isn't the latest."""

    def open(self) -> None:
        """Open the store, making, upgrading or rescuing it.

        Raises:
            OutboxInUse: another bridge uses it, or a command in its place.
            ConfigError: the path can't be used.
            OutboxUnavailable: SQLite can't read the file now.
        """
        self._lock.take()
        try:
            rescue.finish(self._path)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            directories.sync(self._path.parent)  # SQLite does it for its log alone, and not in every build
        except OSError as exc:
            raise not_writable(self._path, exc) from exc
        try:
            try:
                self._with_reserve(self._load)
            except OutboxDamaged as exc:
                self._rescue(str(exc))
                self._load()
            try:
                self._reserve.take_up()
            except OutboxUnavailable as exc:
                log.warning("outbox.no_reserve", error=str(exc))
        except BaseException:
            self._let_go()
            raise

    def _load(self) -> None:
        with self._translated("open"):
            self._disconnect()
            self._db = db = schema.connect(str(self._path))
            self._check_version(db)
            schema.upgrade(db)
            if self.recall("closed") != "cleanly" and rescue.is_damaged(db):
                raise OutboxDamaged(f"the outbox {self._path} doesn't pass SQLite's check")
            name = self.recall("name")
            is_copy = name is not None and self.recall("seal") != f"{self._lock.seal} {self._inode()}"
            if is_copy:
                log.warning(
                    "outbox.replaced",
                    hint="this is a copy, or was put back from one: it gets a new name, so that ids and sequence "
                    "numbers given out since are not given out again",
                )
                name = None
            self._take_stock(db, is_copy=is_copy)
            self.name = name or secrets.token_hex(4)
            self._opened_inode = self._inode()
            self._seal(name=self.name, closed="")

    def _seal(self, **values: str) -> None:
        """Remember values, and with them a new seal: a copy has an older one than the lock's file, or another inode.

        Nothing tells a whole machine that was set back from one that was not.
        """
        seal = secrets.token_hex(8)
        self.remember(**values, seal=f"{seal} {self._opened_inode}")
        self._lock.write_seal(seal)

    def _inode(self) -> int:
        return self._path.stat().st_ino  # not the device: its number may change when the machine starts

    def _check_version(self, db: sqlite3.Connection) -> None:
        found = schema.version(db)
        if found > len(schema.CHANGES):
            raise ConfigError(
                f"BRIDGE_OUTBOX__PATH: {self._path} was written by a newer gdn-bridge (format {found}, "
                f"this one knows {len(schema.CHANGES)}). Run that version again, or give another path."
            )

    def _rescue(self, why: str) -> None:
        self._disconnect()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._started + self._clock()))
        try:
            saved = rescue.rescue(self._path, stamp=stamp)
        except (sqlite3.Error, OSError) as exc:
            raise OutboxUnavailable(f"the outbox {self._path} is damaged and can't be rescued now: {exc}") from exc
        log.error(
            "outbox.rescued",
            error=why,
            kept_at=str(saved.kept_at),
            records=saved.records,
            dead_letters=saved.dead_letters,
            lost="unknown: the books could not be read" if saved.lost is None else saved.lost,
        )

    def close(self) -> None:
        """Close the store; may be called twice."""
        if self._db is not None:
            try:
                self._seal(closed="cleanly")
            except (OutboxUnavailable, OutboxDamaged) as exc:
                log.warning("outbox.not_closed_cleanly", error=str(exc))  # the next start checks the file
        self._let_go()

    def _let_go(self) -> None:
        self._disconnect()
        self._lock.release()

    def _now(self) -> float:
        return self._started + self._clock()

    # --- memory ---------------------------------------------------------------------------------------------

    def remember(self, **values: str) -> None:
        """Keep texts under their keys, durably; an empty one is forgotten.

        Raises:
            OutboxUnavailable: they were not kept.
        """
        self._with_reserve(lambda: self._remember(values))

    def _remember(self, values: Mapping[str, str]) -> None:
        with self._transaction("write to") as db:
            db.executemany(REMEMBER, [(key, value) for key, value in values.items() if value])
            db.executemany(FORGET, [(key,) for key, value in values.items() if not value])

    # --- a full disk ----------------------------------------------------------------------------------------

    def probe(self) -> None:
        """See that the store takes again after it did not: give room back to the disk, take up the reserve, write.

        Raises:
            OutboxUnavailable: it doesn't.
        """
        if not self._reserve.is_there:
            with self._translated("shrink") as db:
                db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._reserve.take_up()
        self._remember({"probe": str(int(self._now()))})

    def _with_reserve(self, work: Callable[[], T]) -> T:
        """Do what makes room or lets deliveries go on, on a full disk with the room of the reserve."""
        try:
            return work()
        except OutboxUnavailable as exc:
            code = getattr(exc.__cause__, "sqlite_errorcode", 0) & 0xFF
            # A shared-memory file that can't grow is reported as an I/O error.
            if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) or not self._reserve.is_there:
                raise
            log.warning("outbox.reserve_used", error=str(exc))
            self._reserve.give_up()
            if self._db is not None:
                with self._translated("checkpoint") as db:
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return work()
