"""Creates the checks that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bridge.books import Snapshot
from bridge.config import Settings
from bridge.errors import SettingError
from bridge.log import get_logger
from bridge.mapping import Route
from bridge.mapping.topics import TopicTemplate
from bridge.path.canary_tracker import CanaryMessage
from bridge.streamql.syntax import Worker
from bridge.watch.canary import MARKER, Canary, CanaryTemplate
from bridge.watch.checks import CountCheck, Expectation, GdnApi, QueryCheck, WorkerCheck, default_query
from bridge.watch.health import Check
from bridge.watch.row_loss import InputRows, RowLagTracker, keeps_row_order, one_to_one_streams

DAY = 86400.0

CANARY_REQUESTS = 3
"""Requests of a round in which the canary is found: two queries until the row is there, and one to clean up."""

log = get_logger(__name__)


def make_checks(
    *,
    settings: Settings,
    worker: Worker,
    routes: Sequence[Route],
    gdn: GdnApi,
    snapshot: Callable[[], Snapshot],
    publish: Callable[[CanaryMessage], None],
    on_worker_state: Callable[[Any], object] = lambda _state: None,
) -> list[Check]:
    """Create the checks, in the order in which the status shows them.

    Args:
        settings: validated.
        worker: the definition.
        routes: validated.
        gdn: GDN's API.
        snapshot: of the pipeline; called by any thread.
        publish: has the pipeline publish a canary and track it; called by any thread.
        on_worker_state: called with each state of the worker that GDN returns.

    Raises:
        SettingError: no route matches the canary's topic.
    """
    health = settings.health
    checks: list[Check] = [
        WorkerCheck(gdn=gdn, worker_name=worker.name, interval=health.worker_interval, on_state=on_worker_state)
    ]
    query = health.query or default_query(worker)
    # A query of the operator's own need not count the rows of the worker's table.
    lag = None if health.query else _row_lag(worker, snapshot, canary_streams=_canary_streams(settings, routes))
    if query is not None:
        checks.append(CountCheck(gdn=gdn, query=query, interval=health.query_interval, lag=lag))
    checks += [
        QueryCheck(
            name=f"check {check.name}",
            gdn=gdn,
            query=check.query,
            interval=check.period,
            expectation=Expectation(
                min=check.min, equals=check.equals, rows=check.rows, changes_within=check.changes_within
            ),
        )
        for check in health.checks
    ]
    if settings.canary.enabled:
        checks.append(_canary(settings, routes, gdn, publish, snapshot, lag))
    _warn_of_quota(settings, checks)
    return checks


def _row_lag(
    worker: Worker, snapshot: Callable[[], Snapshot], *, canary_streams: Sequence[str]
) -> RowLagTracker | None:
    streams = one_to_one_streams(worker)
    if not streams:
        return None

    def input_rows() -> InputRows:
        now = snapshot()
        durations = now.traffic.receipt_durations
        receipted = sum(sum(durations[stream].counts) for stream in streams if stream in durations)
        return InputRows(receipted, now.books.outbox)

    # There is no order between two streams.
    is_canary_stream = len(streams) == 1 and streams == canary_streams
    return RowLagTracker(input_rows, keeps_order=is_canary_stream and keeps_row_order(worker))


def _canary_streams(settings: Settings, routes: Sequence[Route]) -> tuple[str, ...]:
    """The streams of the routes that match the canary's topic."""
    if not settings.canary.enabled or settings.canary.topic is None:
        return ()
    topic = settings.canary.topic.replace(MARKER, "canary")
    streams = [route.stream for route in routes if TopicTemplate.parse(route.topic).match(topic) is not None]
    return tuple(dict.fromkeys(streams))


def _canary(
    settings: Settings,
    routes: Sequence[Route],
    gdn: GdnApi,
    publish: Callable[[CanaryMessage], None],
    snapshot: Callable[[], Snapshot],
    lag: RowLagTracker | None,
) -> Canary:
    canary = settings.canary
    assert canary.topic is not None
    assert canary.query is not None
    streams = _canary_streams(settings, routes)
    if not streams:
        raise SettingError("canary.topic", "no route matches it; use a topic that devices could publish to")
    return Canary(
        gdn=gdn,
        publish=publish,
        template=CanaryTemplate(canary.topic, canary.payload, canary.query, canary.cleaning_query),
        interval=canary.interval,
        is_rate_limited=lambda: any(snapshot().traffic.rate_limited.get(stream) for stream in streams),
        receipted=lambda: 0 if lag is None else lag.input_rows().receipted,
    )


def _warn_of_quota(settings: Settings, checks: Sequence[Check]) -> None:
    """Warn if the checks need more requests than their share of the budget: those beyond it aren't made."""
    requests = sum(DAY / check.interval * (CANARY_REQUESTS if isinstance(check, Canary) else 1) for check in checks)
    share = settings.gdn.requests_per_day // 2
    if share and requests > share:
        log.warning(
            "health.over_quota",
            requests_a_day=round(requests),
            allowed=share,
            hint="checks get half of gdn.requests_per_day, and no requests beyond it: use longer intervals",
        )
