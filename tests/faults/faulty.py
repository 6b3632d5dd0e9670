"""The daemon with a bug that loses messages at a power loss: ``python -m tests.faults.faulty FAULT run …``.

For the tests of ``power.py``, which must find each of these:

* ``normal``: SQLite's ``synchronous`` is NORMAL: a commit isn't synced.
* ``directory``: the bridge's own code syncs no directory.
* ``early_ack``: a message is acknowledged as soon as it is read.
* ``none``: the plain daemon.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import stat
import sys
from collections.abc import Sequence
from typing import Any

from bridge import cli
from bridge.mqtt.link import MqttLink


class NormalConnection(sqlite3.Connection):
    """Sets ``synchronous`` to NORMAL where FULL is asked for."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return super().execute(sql.replace("synchronous = FULL", "synchronous = NORMAL"), *parameters)


def _normal() -> None:
    sqlite3.connect = functools.partial(sqlite3.connect, factory=NormalConnection)  # type: ignore[assignment]


def _directory() -> None:
    sync = os.fsync

    def fsync(handle: int) -> None:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            sync(handle)

    os.fsync = fsync  # type: ignore[assignment]


def _early_ack() -> None:
    read, ack = MqttLink.read, MqttLink.ack

    def reading(self: MqttLink, received_at: int) -> Any:
        messages = read(self, received_at)
        ack(self, messages)
        self.flush()
        return messages

    MqttLink.read = reading  # type: ignore[method-assign]
    MqttLink.ack = lambda self, messages: 0  # type: ignore[method-assign]


FAULTS = {"none": lambda: None, "normal": _normal, "directory": _directory, "early_ack": _early_ack}


def main(argv: Sequence[str]) -> int:
    """Install the fault that the first argument names, then run the daemon with the other arguments."""
    fault, *rest = argv
    FAULTS[fault]()
    return cli.main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
