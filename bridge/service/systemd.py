"""Notifications to the service manager: ready, reloading, stopping, a status text and keep-alive pings (sd_notify(3)).

Each is a datagram to the socket named by $NOTIFY_SOCKET; without that variable nothing is sent. Main thread only.
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
"""Timeout in seconds for sending a datagram: a manager that doesn't read must not block the daemon."""

MAX_ERROR = 200
"""Characters of one part's error in the status text."""

MAX_STATUS = 1000
"""Characters of the status text. At four bytes each, and with the other assignments, it fits into the 4096 bytes of a
datagram that systemd reads (its NOTIFY_BUFFER_MAX).
"""

log = get_logger(__name__)


class ServiceManager:
    """The service manager that started this process, if there is one.

    Args:
        address: of its socket: a path, or ``@`` and a name in the abstract namespace; None if there is no manager.
        watchdog: seconds without a ping after which it kills the process; None if it expects no pings.
        clock: monotonic seconds.
        send: sends a datagram to an address in the format of the socket module; raises OSError.
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
        self._ping_interval = None if watchdog is None else watchdog / 2  # sd_watchdog_enabled(3) recommends half
        self._clock = clock
        self._pinged_at: float | None = None
        self._last_beat: float | None = None
        self._status: str | None = None
        self._error: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, pid: int | None = None) -> ServiceManager:
        """The manager that the environment names. Invalid values are ignored.

        Args:
            environ: with NOTIFY_SOCKET, WATCHDOG_USEC (microseconds) and WATCHDOG_PID.
            pid: of this process. If WATCHDOG_PID is another one, the variables were inherited and don't apply.
        """
        own_pid = str(os.getpid() if pid is None else pid)
        address = environ.get("NOTIFY_SOCKET", "")
        is_valid_address = address[:1] in {"/", "@"} and len(address) > 1
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_number = microseconds.isascii() and microseconds.isdigit() and len(microseconds) < 20
        is_watched = environ.get("WATCHDOG_PID", own_pid) == own_pid and is_number and int(microseconds) > 0
        return cls(
            address=address if is_valid_address else None,
            watchdog=int(microseconds) / 1e6 if is_watched else None,
        )

    def ready(self, status: str) -> None:
        """The daemon has started, or a reload has ended."""
        self._send("READY=1", status)

    def reloading(self) -> None:
        """A reload has begun; ``ready`` ends it. ``Type=notify-reload`` (systemd 253) requires the time."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", "reloading")

    def stopping(self, status: str, *, within: float) -> None:
        """The daemon is stopping. The manager is asked to wait ``within`` seconds for it."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(within * 1e6)}", status)

    def status(self, status: str) -> None:
        """Send the status text if it has changed."""
        if _one_line(status) != self._status:
            self._send(None, status)

    def ping(self, beat: float) -> None:
        """Send a keep-alive ping if one is due and ``beat`` has changed since the last one. Call it often."""
        if self._ping_interval is None or beat == self._last_beat:
            return
        now = self._clock()
        if self._pinged_at is None or now - self._pinged_at >= self._ping_interval:
            self._pinged_at, self._last_beat = now, beat
            self._deliver("WATCHDOG=1")

    def _send(self, assignments: str | None, status: str) -> None:
        line = _one_line(status)
        sent = self._deliver(f"{assignments}\nSTATUS={line}" if assignments else f"STATUS={line}")
        # None: the next ``status`` sends it again.
        self._status = line if sent else None

    def _deliver(self, text: str) -> bool:
        if self._address is None:
            return True  # nothing to send again
        try:
            self._send_datagram(text.encode(), self._address)
        except OSError as exc:
            # Each error is logged once: a manager that is gone would fail every tick.
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


def status_text(parts: Sequence[PartStatus], *, waiting: int, refused: str | None = None) -> str:
    """The bridge's status in words: which parts aren't connected and why, and how many records wait.

    Args:
        parts: of the bridge.
        waiting: records in the outbox.
        refused: why the last reload was refused; None if it wasn't, or if there was none.
    """
    not_connected = [_part_text(part) for part in parts if part.state != "connected"]
    records = {0: "no records waiting", 1: "1 record waiting"}.get(waiting, f"{waiting} records waiting")
    reload = [] if refused is None else [f"the last reload was refused: {refused}"]
    return "; ".join([*reload, "not connected" if not_connected else "connected", records, *not_connected])


def _part_text(part: PartStatus) -> str:
    error = "" if part.error is None else f" ({redacted(part.error)[:MAX_ERROR]})"
    return f"{part.name}: {part.state}{error}"


def _one_line(text: str) -> str:
    """The text on one line, so that untrusted text quoted in an error can't add an assignment."""
    return printable(redacted(text)[:MAX_STATUS])
