"""The canary: a marked message that goes the whole way, from the broker to a row that a query finds.

Only this tells a worker that takes rows and swallows them from one that has nothing to do. A round is a message; the
next one begins an interval after the last one began. The message is published at QoS 0: a canary that waited in a
queue would tell nothing of now, and one that is lost is told by its absence.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from bridge.errors import GdnError, GdnUnavailable
from bridge.log import get_logger
from bridge.path.canary_tracker import CanaryMessage
from bridge.watch.checks import CheckedGdn, CountCheck, shown_query
from bridge.watch.health import CanaryStatus, CheckResult, HealthStatus

MARKER = "{marker}"
"""Stands for the round's marker in topic, payload and queries."""

LOOK = 0.25
"""Seconds between looks whether the message has come as far as a receipt; they ask nobody."""

FIRST_QUERY = 0.5
"""Seconds from the first query to the second; each wait after it is twice as long, since each is a request."""

LATE = 30.0
"""Seconds from receipt to row before it is said that the worker is late."""

FOUND, LOST, NOT_PUBLISHED = ENDINGS = ("found", "lost", "not_published")

MAX_FOUND = 100
"""Rows of a round that are counted."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CanaryTemplate:
    """What is published and asked; ``{marker}`` stands in each for the round's marker."""

    topic: str
    payload: str
    query: str
    """Gives a row for each row of the collection that the message became."""
    cleaning_query: str | None = None
    """Removes these rows; None leaves them."""


class Canary:
    """Sends marked messages and looks for their rows.

    Args:
        rest: asked.
        launch: has a message published and followed.
        song: what is published and asked.
        interval: seconds from the beginning of a round to that of the next; also what a round may take.
        receipted: rows that GDN has receipted since the start, of those that the canary is to be told from; any thread.
        clock: monotonic seconds, the same as the data path's.
        new_marker: letters, digits and hyphens that were never used before.
    """

    name = "canary"

    def __init__(
        self,
        *,
        rest: CheckedGdn,
        launch: Callable[[CanaryMessage], None],
        song: CanaryTemplate,
        interval: float,
        receipted: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
        new_marker: Callable[[], str] = lambda: f"canary-{secrets.token_hex(6)}",
    ) -> None:
        self.interval = interval
        self._rest = rest
        self._launch = launch
        self._song = song
        self._receipted = receipted
        self._clock = clock
        self._new_marker = new_marker
        self._flight: CanaryMessage | None = None
        self._began_at = 0.0
        self._began_after = 0
        self._query_wait = FIRST_QUERY

    def ask(self, known: HealthStatus) -> CheckResult:
        """Begin a round, or look how far it has come: see ``Check``."""
        if known.canary is None:
            known = replace(known, canary=CanaryStatus(rounds=dict.fromkeys(ENDINGS, 0)))
        flight, now = self._flight, self._clock()
        if flight is None:
            self._begin(now)
            return CheckResult(known, pending=True, wait=LOOK)
        if flight.trouble is not None:
            ending = NOT_PUBLISHED if flight.published_at is None else LOST
            return self._end(known, ending, f"the canary to {flight.topic} {flight.trouble}")
        is_over = now - self._began_at >= self.interval
        if flight.receipted_at is None:
            return self._end(known, LOST, self._absence(flight)) if is_over else self._later(known, LOOK)
        try:
            rows = self._rest.query(_marked(self._song.query, flight), max_rows=MAX_FOUND, check=True)
        except GdnError:
            if is_over:
                self._flight = None
            raise
        if rows:
            known = self._came_through(known, flight, len(rows))
            taken = self._clock() - flight.receipted_at
            note = f"the canary's row came out {taken:.0f} s after its receipt: the worker is late"
            finding = self._end(known, FOUND, None)
            return replace(finding, note=note if taken >= LATE else None, then=CountCheck.name)
        if is_over:
            return self._end(known, LOST, self._absence(flight))
        self._query_wait *= 2
        return self._later(known, self._query_wait / 2)

    def _begin(self, now: float) -> None:
        marker = self._new_marker()
        song = self._song
        topic = song.topic.replace(MARKER, marker)
        self._flight = CanaryMessage(topic, song.payload.replace(MARKER, marker).encode(), marker)
        self._began_at, self._began_after, self._query_wait = now, self._receipted(), FIRST_QUERY
        self._launch(self._flight)

    def _later(self, known: HealthStatus, wait: float) -> CheckResult:
        left = self._began_at + self.interval - self._clock()
        return CheckResult(known, pending=True, wait=max(0.0, min(wait, left)))

    def _came_through(self, known: HealthStatus, flight: CanaryMessage, rows: int) -> HealthStatus:
        assert known.canary is not None
        assert flight.published_at is not None
        assert flight.arrived_at is not None
        assert flight.receipted_at is not None
        seconds = {
            "mqtt": flight.arrived_at - flight.published_at,
            "receipt": flight.receipted_at - flight.arrived_at,
            "row": self._clock() - flight.receipted_at,
        }
        removed = rows if self._may_be_cleaned(flight) else 0
        canary = replace(
            known.canary,
            seconds=seconds,
            removed=known.canary.removed + removed,
            found_from=self._began_at,
            found_after=self._began_after + rows,
        )
        return replace(known, canary=canary)

    def _may_be_cleaned(self, flight: CanaryMessage) -> bool:
        if self._song.cleaning_query is None:
            return False
        try:
            self._rest.query(_marked(self._song.cleaning_query, flight), max_rows=MAX_FOUND, check=True)
        except GdnError as exc:
            # The message did come through; a row that stays is no reason to say it didn't.
            log.warning("canary.not_cleaned", error=str(exc))
            # An answer that was lost says nothing of the rows: they must not be taken for rows that the worker lost.
            return isinstance(exc, GdnUnavailable)
        return True

    def _end(self, known: HealthStatus, ending: str, error: str | None) -> CheckResult:
        assert known.canary is not None
        self._flight = None
        rounds = {**known.canary.rounds, ending: known.canary.rounds[ending] + 1}
        known = replace(known, canary=replace(known.canary, rounds=rounds))
        # One that wasn't published costs nobody anything and is tried again soon: the broker may just not be there yet.
        rest = None if ending == NOT_PUBLISHED else max(0.0, self._began_at + self.interval - self._clock())
        return CheckResult(known, error, wait=rest)

    def _absence(self, flight: CanaryMessage) -> str:
        """How far it came."""
        sent = f"the canary was published to {flight.topic}"
        if flight.arrived_at is None:
            return f"{sent} and the broker did not hand it over within {self.interval:g} s"
        if flight.receipted_at is None:
            return f"{sent} and stored, and GDN did not receipt it within {self.interval:g} s"
        query = shown_query(_marked(self._song.query, flight))
        return (
            f"GDN receipted the canary, but no row came out within {self.interval:g} s: the worker takes rows and "
            f"swallows them ({query} gives none)"
        )


def _marked(text: str, flight: CanaryMessage) -> str:
    return text.replace(MARKER, flight.marker)
