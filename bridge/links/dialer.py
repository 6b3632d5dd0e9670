"""Dialling: what blocks (name look-up, connect, TLS, OTP, upgrade), in threads away from the data path.

A ``Dialer`` keeps one link dialled, in a thread of its own: it connects with back-off, hands the link over and
sleeps until it is told that the link was lost. Any thread may ask it to stop.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from bridge.errors import BridgeError
from bridge.log import get_logger
from bridge.parts import PartStatus, State
from bridge.timing import Pace, PacedBackoff


class Closes(Protocol):
    """What a link must be able to do here."""

    def close(self) -> object:
        """End the connection."""


L = TypeVar("L", bound=Closes)

log = get_logger(__name__)


class Dialer(Generic[L]):
    """Keeps one link dialled.

    Args:
        name: of the part, in statuses and logs.
        connect: dials once, blocking; raises a BridgeError or OSError.
        hand_over: takes the connected link, from the dialling thread.
        gate: nothing is dialled before it is set.
        steady_after: seconds that a link must have done its work for the back-off to start from its base again.
        rng: of the back-off.
        clock: monotonic seconds.
        wall_clock: seconds since the epoch.
        wake: where the dialling thread waits.
    """

    def __init__(
        self,
        *,
        name: str,
        connect: Callable[[], L],
        hand_over: Callable[[L], None],
        gate: threading.Event | None = None,
        steady_after: float = 10.0,
        rng: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        wake: threading.Condition | None = None,
    ) -> None:
        self.name = name
        self._connect = connect
        self._hand_over = hand_over
        self._gate = gate
        self._backoff = PacedBackoff(rng=rng)
        self._steady_after = steady_after
        self._clock = clock
        self._wall_clock = wall_clock
        self._wake = threading.Condition() if wake is None else wake
        # All under _wake, whose lock is re-entrant:
        self._stopping = False
        self._held: str | None = None  # why nothing is dialled
        self._linked = False  # from before the hand-over until the loss
        self._up_at: float | None = None
        self._lasted = 0.0  # seconds that the last link did its work
        self._lost_at_pace: Pace | None = None
        self._own = PartStatus(name, "starting", wall_clock(), None, None)  # the status if nothing is held
        self.attempts = 0
        self.failures: Mapping[str, int] = {"lost": 0, **{pace.name.lower(): 0 for pace in Pace}}
        """By cause: the ``Pace`` of what failed, ``lost`` for a link that stood. Swapped whole, read by any thread."""
        self.beat: int | None = None
        """The number of the attempt under way, None while there is none; for the watchdog."""
        self.status = self._own  # swapped whole, read by any thread

    # --- any thread ---------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Dial no more; may be called twice."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()

    def hold(self, reason: str) -> None:
        """Dial no more until ``resume``; the status says why. May be called again, with another reason.

        A link that stands is left alone, and not replaced once it is lost. One that is being dialled is closed when it
        connects, unless it was on its way to ``hand_over`` already.
        """
        with self._wake:
            self._held = reason
            self._show()

    def resume(self) -> None:
        """Dial again, once the back-off allows it. Without a ``hold`` nothing happens."""
        with self._wake:
            self._held = None
            self._show()
            self._wake.notify_all()

    def up(self) -> None:
        """The link does its work: for MQTT after the SUBACK, for a producer at once."""
        with self._wake:
            self._up_at = self._clock()
            self._move("connected")

    def trouble(self, error: str) -> None:
        """The link stands but doesn't do its work."""
        with self._wake:
            self._move("failing", error)

    def lost(self, error: str, *, pace: Pace | None = None) -> None:
        """The link is gone; dial again, at once if it had held.

        Args:
            error: why.
            pace: of the failure, if it is one that dialling at once makes worse, such as ``Pace.TAKEN_OVER``: then
                that much is waited, however long the link had held.
        """
        with self._wake:
            self._linked = False
            self._lasted = 0.0 if self._up_at is None else self._clock() - self._up_at
            self._lost_at_pace = pace
            self._count("lost" if pace is None else pace.name.lower())
            self._move("waiting", error)
            self._wake.notify_all()

    # --- the dialling thread ------------------------------------------------------------------------------

    def run(self) -> None:
        """The thread's body: dial, hand over, wait for the loss, again; until asked to stop."""
        while self._may_dial():
            link = self._dial()
            if link is not None and self._is_wanted(link):
                self._hand_over(link)
                self._wait_for_loss()

    def _may_dial(self) -> bool:
        """Wait until nothing speaks against an attempt, and begin it. False: stop."""
        while self._gate is not None and not self._stopping and not self._gate.wait(0.2):
            pass
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._held is None)
            if self._stopping:
                return False
            self.attempts += 1
            self.beat = self.attempts
            # The last error stays readable while the next attempt is under way.
            self._move("connecting", self._own.error)
            return True

    def _dial(self) -> L | None:
        """The link, or None after the back-off that a failure asks for."""
        try:
            return self._connect()
        except (BridgeError, OSError) as exc:
            failure = exc
        finally:
            self.beat = None
        if isinstance(failure, BridgeError):
            pace, retry_after = failure.pace, failure.retry_after
        else:
            pace, retry_after = Pace.UNREACHABLE, None
        wait = self._backoff.next(pace, retry_after)
        with self._wake:
            self._count(pace.name.lower())
        log.warning("link.refused", link=self.name, error=str(failure), retry_in=round(wait, 2))
        self._back_off(wait, str(failure))
        return None

    def _is_wanted(self, link: L) -> bool:
        """Whether the link may still be handed over; closes it otherwise."""
        with self._wake:
            self._up_at = None
            self._linked = not self._stopping and self._held is None
            if self._linked:
                return True
            self._move("waiting")
        link.close()
        return False

    def _wait_for_loss(self) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or not self._linked)
            if self._stopping:
                return
            steady = self._lasted >= self._steady_after
            pace = self._lost_at_pace
            if steady:
                # What ended the link is forgotten later: two bridges that take each other's session over would
                # go on for ever, each holding for a while.
                self._backoff.reset(except_for=pace if pace is not None and self._lasted <= pace.cap else None)
            if not steady or pace is not None:
                self._back_off(self._backoff.next(pace or Pace.UNREACHABLE), self._own.error)

    def _back_off(self, seconds: float, error: str | None) -> None:
        with self._wake:
            self._move("waiting", error, next_attempt_at=self._wall_clock() + seconds)
            self._wake.wait_for(lambda: self._stopping, timeout=seconds)

    # --- under _wake --------------------------------------------------------------------------------------

    def _count(self, cause: str) -> None:
        self.failures = {**self.failures, cause: self.failures[cause] + 1}

    def _move(self, state: State, error: str | None = None, *, next_attempt_at: float | None = None) -> None:
        self._own = self._own.moved(state, at=self._wall_clock(), error=error, next_attempt_at=next_attempt_at)
        self._show()

    def _show(self) -> None:
        if self._held is not None and self._own.state in {"starting", "waiting"}:
            self.status = self.status.moved("waiting", at=self._wall_clock(), error=self._held)
        else:
            self.status = self._own
