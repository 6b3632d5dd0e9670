"""Access to dead letters for a process that doesn't own the outbox: it reads them, and marks them for the owner.

No transaction stays open: it would keep the owner from truncating its write-ahead log.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from bridge.errors import SettingError
from bridge.outbox import dead_letters, schema
from bridge.outbox.database import Database
from bridge.outbox.dead_letters import RequestedAction, Selection, StoredDeadLetter
from bridge.outbox.ownership import check_path

PATIENCE = 10.0
"""Seconds to wait for an outbox that its owner writes to: much longer than a commit takes."""

PAUSE = 0.025
"""Seconds between two transactions. Without it the owner might wait longer than schema.BUSY_SECONDS."""

PAGE = 500
"""Dead letters read or marked at a time."""

COUNTER = "SELECT value FROM books WHERE name = ?"


def check_exists(path: Path) -> None:
    """Check that the outbox exists.

    Raises:
        SettingError: it doesn't.
    """
    if not path.exists():
        raise SettingError("outbox.path", f"{path} doesn't exist. No bridge has run with this path yet.")


class DeadLetterClient(Database):
    """A context manager: opened on entry, closed on exit.

    Every method raises ``OutboxUnavailable`` if the outbox can't be used now.

    Args:
        path: the outbox.
        may_mark: False opens it read-only.
    """

    def __init__(self, path: Path, *, may_mark: bool = False) -> None:
        super().__init__(path)
        self._may_mark = may_mark

    def __enter__(self) -> Self:
        """Open the outbox.

        Raises:
            SettingError: it doesn't exist, isn't an outbox, or another version of the bridge wrote it.
        """
        check_exists(self._path)
        check_path(self._path)
        with self._translated("open"):
            mode = "rw" if self._may_mark else "ro"
            uri = f"{self._path.absolute().as_uri()}?mode={mode}"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=PATIENCE)
            try:
                found = schema.version(self._db)
                if found != len(schema.CHANGES):
                    raise SettingError(
                        "outbox.path",
                        f"{self._path} has format {found}, this gdn-bridge reads format {len(schema.CHANGES)}. "
                        "The bridge upgrades an older outbox when it starts.",
                    )
                self._db.execute("PRAGMA synchronous = FULL")  # a mark that was reported survives a power loss
            except BaseException:
                self._disconnect()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()

    def count(self, selection: Selection) -> int:
        """How many dead letters are selected."""
        with self._translated("read") as db:
            return dead_letters.count(db, selection)

    def dead_letters(self, selection: Selection, *, limit: int | None = None) -> Iterator[StoredDeadLetter]:
        """The selected dead letters, oldest first, read in pages."""
        after, left = 0, limit
        while left is None or left > 0:
            with self._translated("read") as db:
                page = dead_letters.page(db, selection, after=after, limit=PAGE if left is None else min(PAGE, left))
            if not page:
                return
            yield from page
            after = page[-1].id
            left = None if left is None else left - len(page)

    def mark(self, selection: Selection, action: RequestedAction, *, limit: int | None = None) -> list[int]:
        """Request that the owner replays or purges the selected dead letters; returns their ids, ascending."""
        marked: list[int] = []
        after = 0
        while limit is None or len(marked) < limit:
            if after:
                time.sleep(PAUSE)
            with self._translated("read") as db:
                page = dead_letters.ids(
                    db, selection, after=after, limit=PAGE if limit is None else min(PAGE, limit - len(marked))
                )
            if not page:
                break
            with self._transaction("mark dead letters in") as db:
                marked += sorted(dead_letters.mark(db, page, action))
            after = page[-1]
        return marked

    def count_pending(self, marked: Sequence[int], action: RequestedAction) -> int:
        """How many dead letters still wait for the action, from the first to the last of the marked ids."""
        if not marked:
            return 0
        with self._translated("read") as db:
            return dead_letters.count_requested(db, action, first=marked[0], last=marked[-1])

    def count_remaining(self, marked: Sequence[int]) -> Counter[str]:
        """How many of the marked dead letters still exist, by reason."""
        found: Counter[str] = Counter()
        with self._translated("read") as db:
            for at in range(0, len(marked), PAGE):
                found.update(dead_letters.count_by_reason(db, marked[at : at + PAGE]))
        return found

    def counter(self, name: str) -> int:
        """A counter that is stored beside the books."""
        with self._translated("read") as db:
            found = db.execute(COUNTER, (name,)).fetchone()
        return 0 if found is None else int(found[0])
