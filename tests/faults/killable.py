"""The daemon, made to kill itself at a named point: ``python -m tests.faults.killable run …``.

The arguments are those of ``gdn-bridge``. ``FAULT_POINT`` names the point, ``FAULT_COUNT`` how many times it is passed
before the process sends itself SIGKILL, ``FAULT_NOTE`` a file to which a line is written just before: the point, the
process id and the peak of its memory. With ``FAULT_WAIT`` passes count only after a SIGUSR2. Without ``FAULT_POINT`` it
is the plain daemon.

Points, each where a kill could lose something:

* ``after_receive``: messages were read, nothing is stored.
* ``in_commit``: rows are written, COMMIT is about to run (``FAULT_DELAY`` 0), or runs (that many seconds later, from
  another thread).
* ``before_puback``: the commit is done, nothing is acknowledged.
* ``after_send``: records were sent, no receipt was read.
* ``before_release``: receipts were read, the records are still in the outbox.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge import cli
from bridge.gdn.producer import ProducerLink
from bridge.outbox import Outbox
from bridge.path.intake import Intake
from bridge.path.pipeline import Pipeline
from tests.faults.schedule import POINTS


class Fuse:
    """Kills the process when its point has been passed ``FAULT_COUNT`` times."""

    def __init__(self, point: str, count: int, note: str, *, lit: bool) -> None:
        self._point = point
        self._left = count
        self._note = note
        self._lit = lit
        signal.signal(signal.SIGUSR2, self._light)

    def _light(self, _number: int, _frame: object) -> None:
        self._lit = True

    def burn(self) -> bool:
        """The point is passed; true if that was the last time."""
        if not self._lit:
            return False
        self._left -= 1
        return self._left == 0

    def kill(self) -> None:
        """Write the note, then SIGKILL."""
        status = Path("/proc/self/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]
        note = os.open(self._note, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(note, f"{self._point} {os.getpid()} {peak}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def passed(self) -> None:
        """The point is passed; kill if that was the last time."""
        if self.burn():
            self.kill()


def _arm_after_receive(fuse: Fuse) -> None:
    original = Intake.receive

    def wrapped(self: Intake, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        if self.is_waiting:
            fuse.passed()

    Intake.receive = wrapped  # type: ignore[method-assign]


def _arm_before_puback(fuse: Fuse) -> None:
    original = Intake.ack

    def wrapped(self: Intake, messages: Any) -> None:
        if messages:
            fuse.passed()
        original(self, messages)

    Intake.ack = wrapped  # type: ignore[method-assign]


def _arm_after_send(fuse: Fuse) -> None:
    send, step = ProducerLink.send, Pipeline._send
    sent = 0

    def counting(self: ProducerLink, records: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal sent
        sent += 1
        return send(self, records, *arguments, **named)

    def wrapped(self: Pipeline, *arguments: Any, **named: Any) -> Any:
        before = sent
        result = step(self, *arguments, **named)
        if sent > before:
            fuse.passed()
        return result

    ProducerLink.send = counting  # type: ignore[method-assign]
    Pipeline._send = wrapped  # type: ignore[method-assign]


def _arm_before_release(fuse: Fuse) -> None:
    original = Pipeline._store

    def wrapped(self: Pipeline, *arguments: Any, **named: Any) -> Any:
        if any(sender.delivery.wants_commit for sender in self.senders.values()):
            fuse.passed()
        return original(self, *arguments, **named)

    Pipeline._store = wrapped  # type: ignore[method-assign]


def _arm_in_commit(fuse: Fuse) -> None:
    delay = float(os.environ.get("FAULT_DELAY", "0"))
    open_outbox, store = Outbox.open, Pipeline._store
    storing = False

    def kill_soon() -> None:
        time.sleep(delay)
        fuse.kill()

    def trace(statement: str) -> None:
        if storing and statement.strip().upper().startswith("COMMIT") and fuse.burn():
            if delay:
                threading.Thread(target=kill_soon).start()
            else:
                fuse.kill()

    def opened(self: Outbox, *arguments: Any, **named: Any) -> Any:
        result = open_outbox(self, *arguments, **named)
        assert self._db is not None
        self._db.set_trace_callback(trace)
        return result

    def wrapped(self: Pipeline, batch: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal storing
        storing = bool(batch.rows)
        try:
            return store(self, batch, *arguments, **named)
        finally:
            storing = False

    Outbox.open = opened  # type: ignore[method-assign, assignment]
    Pipeline._store = wrapped  # type: ignore[method-assign]


ARM = {
    "after_receive": _arm_after_receive,
    "in_commit": _arm_in_commit,
    "before_puback": _arm_before_puback,
    "after_send": _arm_after_send,
    "before_release": _arm_before_release,
}
assert tuple(ARM) == POINTS


def main(argv: Sequence[str] | None = None) -> int:
    """Install the kill that the environment names, then run the daemon."""
    point = os.environ.get("FAULT_POINT")
    if point:
        lit = not os.environ.get("FAULT_WAIT")
        ARM[point](Fuse(point, int(os.environ["FAULT_COUNT"]), os.environ["FAULT_NOTE"], lit=lit))
    return cli.main(argv)


if __name__ == "__main__":
    sys.exit(main())
