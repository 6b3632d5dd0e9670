"""The canary: a marked message that passes every step, from the broker to a row that a query finds.

Only a canary can distinguish a worker that accepts rows and drops them from one that has no rows to process. One
message is sent per round; rounds start at fixed intervals. It is published at QoS 0: a message that waits in a queue
would say nothing about the current state, and the round notices a lost one anyway.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from bridge.errors import GdnError, GdnUnavailable
from bridge.log import get_logger
from bridge.path.canary_tracker import CanaryMessage
from bridge.watch.checks import CountCheck, GdnApi, quote_query
from bridge.watch.health import CanaryStatus, CheckResult, HealthStatus

MARKER = "{marker}"
"""Placeholder for the round's marker in topic, payload and queries."""

RECEIPT_POLL = 0.25
"""Seconds between polls for the receipt; they cost no request."""

FIRST_QUERY_WAIT = 0.5
"""Seconds between the first query and the second. The wait doubles each time, since each query is a request."""

SLOW_AFTER = 30.0
"""The worker is reported as slow if a row takes this many seconds from its receipt."""

FOUND, LOST, NOT_PUBLISHED = ENDINGS = ("found", "lost", "not_published")

MAX_FOUND = 100
"""Maximum rows of a round that are counted."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CanaryTemplate:
    """The message and the queries of a round, with ``{marker}`` in each."""

    topic: str
    payload: str
    query: str
    """Returns one row for each row in the collection that the message became."""
    cleaning_query: str | None = None
    """Removes these rows; None keeps them."""


class Canary:
    """Sends marked messages and looks for their rows.

    Args:
        gdn: GDN's API.
        publish: has the pipeline publish a message and track it.
        template: the message and the queries.
        interval: seconds between the starts of two rounds, and the time limit of a round.
        is_rate_limited: whether rows of the canary's streams wait because of the rate limit.
        receipted: returns how many rows were receipted since the start, as ``RowLagTracker`` counts them.
        clock: monotonic seconds, the same clock as the pipeline's.
        new_marker: returns letters, digits and hyphens that were never used before.
    """

    name = "canary"

    def __init__(
        self,
        *,
        gdn: GdnApi,
        publish: Callable[[CanaryMessage], None],
        template: CanaryTemplate,
        interval: float,
        is_rate_limited: Callable[[], bool] = lambda: False,
        receipted: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
        new_marker: Callable[[], str] = lambda: f"canary-{secrets.token_hex(6)}",
    ) -> None:
        self.interval = interval
        self._gdn = gdn
        self._publish = publish
        self._template = template
        self._is_rate_limited = is_rate_limited
        self.query = template.query
        self._receipted = receipted
        self._clock = clock
        self._new_marker = new_marker
        self._message: CanaryMessage | None = None
        self._started_at = 0.0
        self._receipted_at_start = 0
        self._query_wait = FIRST_QUERY_WAIT

    def run(self, status: HealthStatus) -> CheckResult:
        """Start a round, or check how far its message has come. See ``Check``."""
        if status.canary is None:
            status = replace(status, canary=CanaryStatus(rounds=dict.fromkeys(ENDINGS, 0)))
        message, now = self._message, self._clock()
        if message is None:
            self._start_round(now)
            return CheckResult(status, pending=True, wait=RECEIPT_POLL)
        if message.trouble is not None:
            ending = NOT_PUBLISHED if message.published_at is None else LOST
            return self._end_round(status, ending, f"the canary to {message.topic} {message.trouble}")
        is_over = now - self._started_at >= self.interval
        if message.receipted_at is not None:
            return self._look_for_rows(status, message, message.receipted_at, is_over=is_over)
        if is_over and message.arrived_at is not None and self._is_rate_limited():
            self._message = None  # neither found nor lost
            note = "the canary waits behind rows that delivery.max_rate_rows or delivery.max_rate_bytes holds back"
            return CheckResult(status, note=note, wait=0.0)  # the next round is due already
        if is_over:
            return self._end_round(status, LOST, self._loss(message))
        return self._wait(status, RECEIPT_POLL)

    def _start_round(self, now: float) -> None:
        marker = self._new_marker()
        topic, payload = self._template.topic, self._template.payload
        self._message = CanaryMessage(topic.replace(MARKER, marker), payload.replace(MARKER, marker).encode(), marker)
        # Counted before the canary is sent: these rows come out before its own (row_loss.py).
        self._started_at, self._receipted_at_start = now, self._receipted()
        self._query_wait = FIRST_QUERY_WAIT
        self._publish(self._message)

    def _look_for_rows(
        self, status: HealthStatus, message: CanaryMessage, receipted_at: float, *, is_over: bool
    ) -> CheckResult:
        try:
            rows = self._gdn.query(_fill_in(self._template.query, message), max_rows=MAX_FOUND, check=True)
        except GdnError:
            if is_over:  # neither found nor lost: whether the row came out is unknown
                self._message = None
            raise
        if rows:
            status = self._found(status, message, len(rows))
            seconds = self._clock() - receipted_at
            note = None
            if seconds >= SLOW_AFTER:
                note = f"the canary's row came out {seconds:.0f} s after its receipt: the worker is slow"
            # Rows are counted at once: each later row that comes out can hide a lost one (row_loss.py).
            return replace(self._end_round(status, FOUND, None), note=note, triggers=CountCheck.name)
        if is_over:
            return self._end_round(status, LOST, self._loss(message))
        self._query_wait *= 2  # for the next query; this wait is the value before
        return self._wait(status, self._query_wait / 2)

    def _wait(self, status: HealthStatus, seconds: float) -> CheckResult:
        # Never beyond the end of the round: a loss is reported on time.
        left = self._started_at + self.interval - self._clock()
        return CheckResult(status, pending=True, wait=max(0.0, min(seconds, left)))

    def _found(self, status: HealthStatus, message: CanaryMessage, rows: int) -> HealthStatus:
        assert status.canary is not None
        assert message.published_at is not None
        assert message.arrived_at is not None
        assert message.receipted_at is not None
        seconds = {
            "mqtt": message.arrived_at - message.published_at,
            "receipt": message.receipted_at - message.arrived_at,
            "row": self._clock() - message.receipted_at,
        }
        removed = rows if self._clean_up(message) else 0
        canary = replace(
            status.canary,
            seconds=seconds,
            removed=status.canary.removed + removed,
            found_sent_at=self._started_at,
            due_rows=self._receipted_at_start + rows,
        )
        return replace(status, canary=canary)

    def _clean_up(self, message: CanaryMessage) -> bool:
        """Remove the canary's rows. Returns whether they may have been removed."""
        if self._template.cleaning_query is None:
            return False
        try:
            self._gdn.query(_fill_in(self._template.cleaning_query, message), max_rows=MAX_FOUND, check=True)
        except GdnError as exc:
            # Not a failure: the canary was found.
            log.warning("canary.not_cleaned", error=str(exc))
            # If the answer was lost, the rows may be gone: they must not count as rows that the worker lost.
            return isinstance(exc, GdnUnavailable)
        return True

    def _end_round(self, status: HealthStatus, ending: str, error: str | None) -> CheckResult:
        assert status.canary is not None
        self._message = None
        rounds = {**status.canary.rounds, ending: status.canary.rounds[ending] + 1}
        status = replace(status, canary=replace(status.canary, rounds=rounds))
        # An unpublished canary costs nothing and is sent again soon: the broker may just not be connected yet.
        wait = None if ending == NOT_PUBLISHED else max(0.0, self._started_at + self.interval - self._clock())
        return CheckResult(status, error, wait=wait)

    def _loss(self, message: CanaryMessage) -> str:
        """A sentence that says how far the lost canary came."""
        published = f"the canary was published to {message.topic}"
        if message.arrived_at is None:
            return f"{published}, but the broker did not deliver it within {self.interval:g} s"
        if message.receipted_at is None:
            return f"{published} and stored, but GDN did not receipt it within {self.interval:g} s"
        query = quote_query(_fill_in(self._template.query, message))
        return (
            f"GDN receipted the canary, but no row came out within {self.interval:g} s: the worker accepts rows and "
            f"drops them ({query} returns none)"
        )


def _fill_in(text: str, message: CanaryMessage) -> str:
    return text.replace(MARKER, message.marker)
