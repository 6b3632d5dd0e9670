"""Dialling: the steps that block (name look-up, connect, TLS, OTP, upgrade), in threads of their own.

A ``Dialer`` keeps one link connected, in a thread of its own: it connects with back-off, hands the link over and sleeps
until ``lost`` is called. Any thread may ask it to stop.
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
    """What a dialler needs of a link."""

    def close(self) -> object:
        """End the connection."""


L = TypeVar("L", bound=Closes)

log = get_logger(__name__)


class Dialer(Generic[L]):
    """Keeps one link connected.

    Args:
        name: of the part, in statuses and logs.
        connect: dials once, blocking; raises a BridgeError or OSError.
        hand_over: takes the connected link; called in the dialling thread.
        gate: nothing is dialled until it is set.
        steady_after: seconds that a link must have worked for the back-off to start from its base again.
        rng: for the jitter of the back-off, 0 to 1.
        clock: monotonic seconds.
        wall_clock: seconds since the epoch.
        wake: the condition that the dialling thread waits on.
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
        self._linked = False  # from just before the hand-over until the loss
        self._working_since: float | None = None
        self._worked_for = 0.0  # seconds that the last link worked
        self._loss_pace: Pace | None = None
        self._dials_at_once = False  # after this loss
        self._unheld_status = PartStatus(name, "starting", wall_clock(), None, None)  # the status without a hold
        self.attempts = 0
        self.failures: Mapping[str, int] = {"lost": 0, **{pace.name.lower(): 0 for pace in Pace}}
        """By the ``Pace`` of the failure; ``lost`` for an established link. Replaced as a whole, read by any thread."""
        self.beat: int | None = None
        """The number of the attempt under way, None while there is none; for the watchdog."""
        self.status = self._unheld_status  # replaced as a whole, read by any thread

    # --- any thread ---------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Stop dialling; may be called twice."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()

    def hold(self, reason: str) -> None:
        """Stop dialling until ``resume``; the status shows the reason. May be called again, with another reason.

        An established link is left alone, and not replaced once it is lost. One that is being dialled is closed when
        it connects, unless it is about to be handed over.
        """
        with self._wake:
            self._held = reason
            self._update_status()

    def resume(self) -> None:
        """Dial again, once the back-off allows it. Without a ``hold`` it does nothing."""
        with self._wake:
            self._held = None
            self._update_status()
            self._wake.notify_all()

    def up(self) -> None:
        """Note that the link works: for MQTT after the SUBACK, for a producer at once."""
        with self._wake:
            self._working_since = self._clock()
            self._set_state("connected")

    def failing(self, error: str) -> None:
        """Note that the link is connected but doesn't work."""
        with self._wake:
            self._set_state("failing", error)

    def lost(self, error: str, *, pace: Pace | None = None, at_once: bool = False) -> None:
        """The link is gone; dial again, at once if it had worked for ``steady_after`` seconds.

        Args:
            error: why.
            pace: of a failure that dialling at once makes worse, such as ``Pace.TAKEN_OVER``: its wait applies however
                long the link had worked.
            at_once: dial without any wait, because ``connect`` tries another peer next.
        """
        with self._wake:
            self._linked = False
            self._worked_for = 0.0 if self._working_since is None else self._clock() - self._working_since
            self._loss_pace = pace
            self._dials_at_once = at_once
            self._count("lost" if pace is None else pace.name.lower())
            self._set_state("waiting", error)
            self._wake.notify_all()

    # --- the dialling thread ------------------------------------------------------------------------------

    def run(self) -> None:
        """The thread's body: dial, hand over and wait for the loss, until asked to stop."""
        while self._wait_until_allowed():
            link = self._dial()
            if link is not None and self._accept(link):
                self._hand_over(link)
                self._wait_for_loss()

    def _wait_until_allowed(self) -> bool:
        """Wait until an attempt is allowed, and count it as begun. False: stop."""
        # Polled: a stop doesn't set the gate.
        while self._gate is not None and not self._stopping and not self._gate.wait(0.2):
            pass
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._held is None)
            if self._stopping:
                return False
            self.attempts += 1
            self.beat = self.attempts
            # The status keeps the last error while the next attempt is under way.
            self._set_state("connecting", self._unheld_status.error)
            return True

    def _dial(self) -> L | None:
        """The link, or None after a failure and its back-off."""
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
        log.warning("link.dial_failed", link=self.name, error=str(failure), retry_in=round(wait, 2))
        self._back_off(wait, str(failure))
        return None

    def _accept(self, link: L) -> bool:
        """Whether the link may be handed over; closes it if a stop or a hold came meanwhile."""
        with self._wake:
            self._working_since = None
            # Before the hand-over: the new owner may report the loss at once.
            self._linked = not self._stopping and self._held is None
            if self._linked:
                return True
            self._set_state("waiting")
        link.close()
        return False

    def _wait_for_loss(self) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or not self._linked)
            if self._stopping or self._dials_at_once:
                return
            was_steady = self._worked_for >= self._steady_after
            pace = self._loss_pace
            if was_steady:
                # The pace of the loss is reset only if the link worked for longer than the pace's longest wait: else
                # two bridges that take over each other's session would alternate forever at short intervals.
                outlasted = pace is None or self._worked_for > pace.cap
                self._backoff.reset(except_for=None if outlasted else pace)
            if not was_steady or pace is not None:
                self._back_off(self._backoff.next(pace or Pace.UNREACHABLE), self._unheld_status.error)

    def _back_off(self, seconds: float, error: str | None) -> None:
        with self._wake:
            self._set_state("waiting", error, next_attempt_at=self._wall_clock() + seconds)
            self._wake.wait_for(lambda: self._stopping, timeout=seconds)

    # --- under _wake --------------------------------------------------------------------------------------

    def _count(self, cause: str) -> None:
        self.failures = {**self.failures, cause: self.failures[cause] + 1}

    def _set_state(self, state: State, error: str | None = None, *, next_attempt_at: float | None = None) -> None:
        self._unheld_status = self._unheld_status.moved(
            state, at=self._wall_clock(), error=error, next_attempt_at=next_attempt_at
        )
        self._update_status()

    def _update_status(self) -> None:
        if self._held is not None and self._unheld_status.state in {"starting", "waiting"}:
            self.status = self.status.moved("waiting", at=self._wall_clock(), error=self._held)
        else:
            self.status = self._unheld_status
