"""What the service manager is told: ready, reloading, stopping, a sentence on the state, signs of life (sd_notify(3)).

One datagram each to the socket that $NOTIFY_SOCKET names; without it nothing is sent. Main's thread only.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence

from bridge.log import get_logger, redacted
from bridge.parts import PartStatus
from bridge.text import printable

SEND_TIMEOUT = 1.0
"""Seconds that a datagram may take: a manager that doesn't read must not stop the daemon."""

MAX_ERROR = 200
"""Characters of one part's error in the status."""

MAX_STATUS = 1000
"""Characters of the status: of four bytes each, with what goes before, within the 4096 bytes that systemd reads of a
datagram (its NOTIFY_BUFFER_MAX).
"""

log = get_logger(__name__)


class ServiceManager:
    """The manager that started this process, or nobody.

    Args:
        address: of its socket: a path, or ``@`` and a name in the abstract namespace; None: nobody listens.
        watchdog: seconds without a sign of life after which it ends the process; None: it doesn't watch.
        clock: monotonic seconds.
        send: a datagram to an address, as the socket module writes it; raises OSError.
    """

    def __init__(
        self,
        *,
        address: str | None,
        watchdog: float | None,
        clock: Callable[[], float] = time.monotonic,
        send: Callable[[bytes, str], object] | None = None,
    ) -> None:
        self._address = None if address is None else f"\0{address[1:]}" if address.startswith("@") else address
        self._send_datagram = _send_datagram if send is None else send
        self._every = None if watchdog is None else watchdog / 2  # sd_watchdog_enabled(3) recommends half
        self._clock = clock
        self._alive_at: float | None = None
        self._last_beat: float | None = None
        self._status: str | None = None
        self._error: str | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], *, pid: int | None = None) -> ServiceManager:
        """The one that the environment names. What is written there and makes no sense counts as not set.

        Args:
            environ: with NOTIFY_SOCKET, WATCHDOG_USEC (microseconds) and WATCHDOG_PID.
            pid: of this process, which WATCHDOG_PID must name if it is set: the variables are inherited.
        """
        address = environ.get("NOTIFY_SOCKET", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid() if pid is None else pid)) == str(pid or os.getpid())
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_number = microseconds.isascii() and microseconds.isdigit() and len(microseconds) < 20
        return cls(
            address=address if address[:1] in {"/", "@"} and len(address) > 1 else None,
            watchdog=int(microseconds) / 1e6 if is_ours and is_number and int(microseconds) else None,
        )

    def ready(self, status: str) -> None:
        """The daemon is up, or has done with a reload."""
        self._send("READY=1", status)

    def reloading(self) -> None:
        """A reload begins; ``ready`` ends it. The time is what ``Type=notify-reload`` (systemd 253) asks for."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", "reloading")

    def stopping(self, status: str, *, within: float) -> None:
        """The daemon has begun to stop, and will have ended ``within`` seconds: the manager shall wait that long."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(within * 1e6)}", status)

    def status(self, status: str) -> None:
        """The state in a sentence; sent if it is another than last time."""
        if _one_line(status) != self._status:
            self._send(None, status)

    def alive(self, beat: float) -> None:
        """A sign of life, if one is due and ``beat`` has changed since the last; to be called often."""
        if self._every is None or beat == self._last_beat:
            return
        now = self._clock()
        if self._alive_at is None or now - self._alive_at >= self._every:
            self._alive_at, self._last_beat = now, beat
            self._deliver("WATCHDOG=1")

    def _send(self, assignments: str | None, status: str) -> None:
        line = _one_line(status)
        sent = self._deliver(f"{assignments}\nSTATUS={line}" if assignments else f"STATUS={line}")
        self._status = line if sent else None

    def _deliver(self, text: str) -> bool:
        if self._address is None:
            return True
        try:
            self._send_datagram(text.encode(), self._address)
        except OSError as exc:
            if str(exc) != self._error:
                self._error = str(exc)
                log.warning("notify.failed", error=str(exc))
            return False
        self._error = None
        return True


def _send_datagram(data: bytes, address: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SEND_TIMEOUT)
        sock.sendto(data, address)


def sentence(parts: Sequence[PartStatus], *, waiting: int, refused: str | None = None) -> str:
    """The bridge's state for people: what isn't connected and why, and what waits.

    Args:
        parts: of the bridge.
        waiting: records in the outbox.
        refused: why the last reload changed nothing; None: it did, or there was none.
    """
    told = [_of_part(part) for part in parts if part.state != "connected"]
    count = {0: "nothing waits", 1: "1 record waits"}.get(waiting, f"{waiting} records wait")
    said = [] if refused is None else [f"the last reload was refused: {refused}"]
    return "; ".join([*said, "not connected" if told else "connected", count, *told])


def _of_part(part: PartStatus) -> str:
    error = "" if part.error is None else f" ({redacted(part.error)[:MAX_ERROR]})"
    return f"{part.name}: {part.state}{error}"


def _one_line(text: str) -> str:
    """The text, unable to hold a second assignment: errors may quote what a stranger sent."""
    return printable(redacted(text)[:MAX_STATUS])
