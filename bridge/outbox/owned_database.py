"""The database in the process that owns it: locking, name, upgrade, rescue from damage, and use on a full disk."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from bridge.errors import OutboxDamaged, OutboxUnavailable, SettingError
from bridge.log import get_logger
from bridge.outbox import directories, ownership, rescue, schema
from bridge.outbox.database import Database
from bridge.outbox.lock import LockFile, not_writable
from bridge.outbox.reserve import RESERVE_BYTES, Reserve
from bridge.timing import CLOCK_IS_SET_FROM, clock_is_set

HAS_BOOKS = "SELECT 1 FROM books LIMIT 1"
DELETE_VALUE = "DELETE FROM memory WHERE key = ?"
SAVE_VALUE = "INSERT INTO memory VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

SHRINK_PAGES = 64
SHRINK_STEPS = 32
"""Pages that a probe frees per step, and its steps: the pipeline waits meanwhile."""

PAGE_BYTES = 4096
CHECKPOINT_PAGES = 1000
"""Pages in the write-ahead log at which it is moved into the file; at most as many as half the reserve holds."""

T = TypeVar("T")

log = get_logger(__name__)


class OwnedDatabase(Database, ABC):
    """Call ``open`` before use, ``close`` after it. Not thread-safe: the pipeline thread uses it once that runs."""

    def __init__(self, path: Path, *, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        super().__init__(path)
        # The wall clock is read once, the monotonic clock from then on: setting the wall clock while the bridge runs
        # must not make records old.
        self._clock_offset = wall_clock() - clock()
        self._clock = clock
        self._lock = LockFile(self._path)
        self._reserve = Reserve(self._path)
        self._opened_inode = 0
        self.name = ""
        """Of this outbox; part of message ids and of the producer name. Changes only when it was copied or rescued."""

    @abstractmethod
    def _load_totals(self, db: sqlite3.Connection, *, is_copy: bool) -> None:
        """Read the totals that are kept in memory.

        A copy must forget its seen messages: it may not hold the latest.
        """

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._db is not None

    def open(self) -> None:
        """Open the outbox; create, upgrade or rescue it if necessary.

        Raises:
            OutboxInUse: another bridge or a command uses it.
            SettingError: the path can't be used.
            OutboxUnavailable: SQLite can't read the file now.
        """
        ownership.check_path(self._path)
        self._lock.acquire()
        try:
            # First: the next line would create an empty file where the rescued one belongs.
            rescue.finish(self._path)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            if not self._lock.seal and ownership.is_blank(self._path):
                os.truncate(self._path, 0)  # SQLite takes only an empty file for a new one
            directories.sync(self._path.parent)  # SQLite syncs it only for its log, and not in every build
        except OSError as exc:
            raise not_writable(self._path, exc) from exc
        try:
            try:
                if self._damage is not None:  # since it was last open: SQLite's check may not find it
                    raise OutboxDamaged(self._damage)
                self._with_reserve(self._load)
            except OutboxDamaged as exc:
                self._rescue(str(exc))
                self._load()
            try:
                self.enlarge_reserve()
            except OutboxUnavailable as exc:
                log.warning("outbox.no_reserve", error=str(exc))
        except BaseException:
            self._disconnect_and_unlock()
            raise

    def _load(self) -> None:
        self._disconnect()
        try:
            damage = rescue.find_log_damage(self._path)
        except OSError as exc:
            raise OutboxUnavailable(f"can't read the outbox {self._path}: {exc.strerror}") from exc
        if damage is not None:  # once SQLite has opened the file, it is too late
            raise OutboxDamaged(damage.why)
        with self._translated("open"):
            self._db = db = schema.connect(str(self._path))
            self._check_format(db)
            if self._lock.seal and self._is_blank(db):
                raise OutboxDamaged(f"the outbox {self._path} is blank, although its lock file shows that it was used")
            self._upgrade(db)
            name = self.saved_value("name")
            is_copy = name is not None and not self._is_sealed()
            if is_copy and _was_used(db):
                log.warning(
                    "outbox.replaced",
                    hint="this file is a copy or was restored from one: it gets a new name, so that no record id or "
                    "sequence number is used twice",
                )
            if name is None:
                log.info("outbox.created", path=str(self._path.absolute()))
            self._load_totals(db, is_copy=is_copy)
            self._damage = None
            self.name = secrets.token_hex(4) if name is None or is_copy else name
            self._opened_inode = self._inode()
            self._save_with_new_seal(name=self.name, closed="")  # until close, any end is an unclean one

    def _is_sealed(self) -> bool:
        """Whether the file is the one that this lock file belongs to. A copy has older seals, or another inode.

        A whole machine that was restored from a snapshot can't be detected.
        """
        seal, _, inode = (self.saved_value("seal") or "").partition(" ")
        # After a crash between the two steps of a renewal, the lock file still has the previous seal.
        expected = {seal, self.saved_value("previous_seal")}
        return inode == str(self._inode()) and self._lock.seal in expected

    def _save_with_new_seal(self, **values: str) -> None:
        """Save values and a new seal: first in the outbox, beside the seal that the lock file still has; then there."""
        seal = secrets.token_hex(8)
        self.save_values(**values, seal=f"{seal} {self._opened_inode}", previous_seal=self._lock.seal)
        self._lock.write_seal(seal)

    def _inode(self) -> int:
        return self._path.stat().st_ino  # not the device: its number may change when the machine starts

    def _check_format(self, db: sqlite3.Connection) -> None:
        if not self._lock.seal and schema.is_foreign(db):  # its tables are in its log, where check_path doesn't look
            raise ownership.not_an_outbox(self._path)
        found = schema.version(db)
        if found > len(schema.CHANGES):
            raise SettingError(
                "outbox.path",
                f"{self._path} was written by a newer gdn-bridge (format {found}, this one reads formats up to "
                f"{len(schema.CHANGES)}). Run that version again, or give another path.",
            )

    def _upgrade(self, db: sqlite3.Connection) -> None:
        """Upgrade an older file, and check the file for damage if it may have some: the check reads all of it."""
        is_older = 0 < schema.version(db) < len(schema.CHANGES)
        # Before the changes: on a damaged file they could destroy what a rescue can still read.
        is_damaged = is_older and rescue.is_damaged(db)
        if not is_damaged:
            schema.upgrade(db)
            is_damaged = not is_older and self.saved_value("closed") != "cleanly" and rescue.is_damaged(db)
        if is_damaged:
            raise OutboxDamaged(f"the outbox {self._path} doesn't pass SQLite's check")

    def _is_blank(self, db: sqlite3.Connection) -> bool:
        found = schema.version(db)
        has_values = found > 1  # format 1 has no table for them
        return not found or (has_values and self.saved_value("name") is None and not _was_used(db))

    def _rescue(self, why: str) -> None:
        self._disconnect()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
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
            lost=_shown(saved.lost),
            dead_letters_lost=_shown(saved.dead_letters_lost),
            hint="sequence numbers, messages seen and what Sparkplug nodes declared are forgotten: rows may be stored "
            "twice, and the nodes are asked to declare their metrics again",
        )

    def close(self) -> None:
        """Close the outbox; may be called twice."""
        if self._db is not None and self._damage is None:  # with damage, the next start must check the file
            try:
                self._save_with_new_seal(closed="cleanly")
            except (OutboxUnavailable, OutboxDamaged) as exc:
                log.warning("outbox.not_closed_cleanly", error=str(exc))  # the next start checks the file
        self._disconnect_and_unlock()

    def _disconnect_and_unlock(self) -> None:
        self._disconnect()
        self._lock.release()

    def _now(self) -> float:
        return self._clock_offset + self._clock()

    @property
    def _ages_count_from(self) -> float:
        """Seconds since the epoch. What was stored before, with a clock that wasn't set, has no known age."""
        return CLOCK_IS_SET_FROM if clock_is_set(self._now()) else 0.0

    # --- saved values ---------------------------------------------------------------------------------------

    def save_values(self, **values: str) -> None:
        """Store texts under their keys, durably; an empty text deletes its key.

        Raises:
            OutboxUnavailable: nothing was changed.
        """
        self._with_reserve(lambda: self._save_values(values))

    def _save_values(self, values: Mapping[str, str]) -> None:
        with self._transaction("write to") as db:
            db.executemany(SAVE_VALUE, [(key, value) for key, value in values.items() if value])
            db.executemany(DELETE_VALUE, [(key,) for key, value in values.items() if not value])

    # --- a full disk ----------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Check that the outbox can be written again: shrink the file, recreate the reserve, write.

        Raises:
            OutboxUnavailable: it can't.
        """
        if not self._reserve.has_room:
            if self._reserve.could_be_restored(with_room=self._unused_bytes()):
                self._with_reserve(self._shrink)
            else:  # the reserve is for releases, not to make room for more messages
                self._shrink()
            # The usual size, so that an outbox that fills the disk doesn't hold and resume all the time. If other files
            # fill it, there may never be room for that again.
            is_small = self._path.stat().st_size <= self._reserve.usual // 4
            self._reserve.restore(or_less=is_small)
        # Without _with_reserve: a probe that needs the reserve has failed.
        self._save_values({"probe": str(int(self._now()))})

    def _unused_bytes(self) -> int:
        """Bytes on disk that the outbox would give back if it were shrunk as far as possible."""
        with self._translated("read") as db:
            (pages,), (free,) = (db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count"))
        files = (self._path, Path(f"{self._path}-wal"))
        on_disk = sum(file.stat().st_size for file in files if file.exists())
        return on_disk - int(pages - free) * PAGE_BYTES

    def _shrink(self) -> None:
        """Give freed pages back to the disk, in steps that need little room in the log."""
        with self._translated("shrink") as db:
            self._checkpoint(db)
            for _ in range(SHRINK_STEPS):
                # Not by execute: it does one step of a statement without columns, and a step frees only one page.
                db.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")
                self._checkpoint(db)
                if not db.execute("PRAGMA freelist_count").fetchone()[0]:
                    break

    def enlarge_reserve(self) -> None:
        """Create the reserve, or make it larger if the disk had too little room before.

        Raises:
            OutboxUnavailable: there is no reserve, and no room for one.
        """
        try:
            self._reserve.create()
        finally:
            with self._translated("set up") as db:
                pages = self._reserve.usual // 2 // PAGE_BYTES
                db.execute(f"PRAGMA wal_autocheckpoint = {min(pages, CHECKPOINT_PAGES)}").fetchall()

    @property
    def reserve_shortage(self) -> str | None:
        """Which bytes the reserve lacks, as a sentence; None: it has all."""
        size = self._reserve.size
        if size >= RESERVE_BYTES:
            return None
        if size:
            return f"the disk is small or nearly full: the reserve has {size} of {RESERVE_BYTES} bytes"
        return (
            f"there is no reserve, because the disk has no room for one: if it is full, delivered records can't be "
            f"released. Free some space on the disk of {self._path}"
        )

    @staticmethod
    def _checkpoint(db: sqlite3.Connection) -> None:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _with_reserve(self, work: Callable[[], T]) -> T:
        """Do ``work``, which must not fail for lack of space: on a full disk, delete the reserve and try again."""
        try:
            return work()
        except OutboxUnavailable as exc:
            code = getattr(exc.__cause__, "sqlite_errorcode", 0) & 0xFF
            # SQLite reports a shared-memory file that can't grow as an I/O error.
            is_disk_full = code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
            if not is_disk_full or not self._reserve.size:
                raise
            log.warning("outbox.reserve_used", error=str(exc))
            self._reserve.delete()
            if self._db is not None:
                with self._translated("checkpoint") as db:
                    self._checkpoint(db)
            return work()


def _was_used(db: sqlite3.Connection) -> bool:
    """Whether anything was ever counted in it."""
    return db.execute(HAS_BOOKS).fetchone() is not None


def _shown(lost: int | None) -> int | str:
    return "unknown: the latest books could not be read" if lost is None else lost
