"""The dead letters for a process that doesn't own the store: it reads, and marks what the owner is asked to do.

No transaction of it lasts: an open one would keep the owner's write-ahead log from being cut back.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from bridge.errors import ConfigError
from bridge.outbox import letters, schema
from bridge.outbox.database import Database
from bridge.outbox.letters import Letter, Selection, Wanted

PATIENCE = 10.0
"""Seconds to wait for a store that its owner writes to: much longer than a commit takes."""

PAUSE = 0.025
"""Seconds between two transactions. Without it an owner could wait for longer than it does (schema.BUSY_SECONDS)."""

PAGE = 500
"""Letters read or marked at a time."""

COUNTER = "SELECT value FROM books WHERE name = ?"


def check_is_there(path: Path) -> None:
    """See that there is a store.

    Raises:
        ConfigError: there is none.
    """
    if not path.exists():
        raise ConfigError(f"BRIDGE_OUTBOX__PATH: {path} is not there. No bridge has run with this path yet.")


class Visitor(Database):
    """Use it in a ``with``.

    Args:
        path: the store.
        may_mark: False opens it for reading alone.

    Every method raises ``OutboxUnavailable`` where the store can't be used now.
    """

    def __init__(self, path: Path, *, may_mark: bool = False) -> None:
        super().__init__(path)
        self._may_mark = may_mark

    def __enter__(self) -> Self:
        """Open the store.

        Raises:
            ConfigError: there is none, or another version of the bridge wrote it.
        """
        check_is_there(self._path)
        with self._translated("open"):
            mode = "rw" if self._may_mark else "ro"
            uri = f"{self._path.absolute().as_uri()}?mode={mode}"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=PATIENCE)
            try:
                found = schema.version(self._db)
                if found != len(schema.CHANGES):
                    raise ConfigError(
                        f"BRIDGE_OUTBOX__PATH: {self._path} has format {found}, this gdn-bridge reads "
                        f"{len(schema.CHANGES)}. A bridge of this version that starts with an older file takes it over."
                    )
                self._db.execute("PRAGMA synchronous = FULL")
            except BaseException:
                self._disconnect()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()

    def count(self, selection: Selection) -> int:
        """How many letters are meant."""
        with self._translated("read") as db:
            return letters.count(db, selection)

    def letters(self, selection: Selection, *, limit: int | None = None) -> Iterator[Letter]:
        """The letters that are meant, oldest first, read by and by."""
        after, left = 0, limit
        while left is None or left > 0:
            with self._translated("read") as db:
                page = letters.page(db, selection, after=after, limit=PAGE if left is None else min(PAGE, left))
            if not page:
                return
            yield from page
            after = page[-1].id
            left = None if left is None else left - len(page)

    def mark(self, selection: Selection, action: Wanted, *, limit: int | None = None) -> list[int]:
        """Ask the owner to replay or purge the letters that are meant; returns their ids, ascending."""
        marked: list[int] = []
        after = 0
        while limit is None or len(marked) < limit:
            if after:
                time.sleep(PAUSE)
            with self._translated("read") as db:
                page = letters.ids(
                    db, selection, after=after, limit=PAGE if limit is None else min(PAGE, limit - len(marked))
                )
            if not page:
                break
            with self._transaction("mark dead letters in") as db:
                marked += sorted(letters.mark(db, page, action))
            after = page[-1]
        return marked

    def waiting(self, marked: Sequence[int], action: Wanted) -> int:
        """How many letters wait for the action, from the first to the last of those that were marked."""
        if not marked:
            return 0
        with self._translated("read") as db:
            return letters.count_wanted(db, action, first=marked[0], last=marked[-1])

    def left(self, marked: Sequence[int]) -> Counter[str]:
        """How many of the letters there are still, by reason."""
        found: Counter[str] = Counter()
        with self._translated("read") as db:
            for at in range(0, len(marked), PAGE):
                found.update(letters.reasons(db, marked[at : at + PAGE]))
        return found

    def counter(self, name: str) -> int:
        """A counter beside the books."""
        with self._translated("read") as db:
            found = db.execute(COUNTER, (name,)).fetchone()
        return 0 if found is None else int(found[0])
