"""The checks that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bridge.books import Snapshot
from bridge.config import Settings
from bridge.errors import ConfigError
from bridge.log import get_logger
from bridge.mapping import Route
from bridge.mapping.topics import TopicTemplate
from bridge.path.canary_tracker import CanaryMessage
from bridge.streamql.syntax import Worker
from bridge.watch.canary import MARKER, Canary, CanaryTemplate
from bridge.watch.checks import CheckedGdn, CountCheck, Expectation, QueryCheck, WorkerCheck, default_query
from bridge.watch.health import Check
from bridge.watch.row_loss import RowLag, RowsIn, streams_of_single_rows, works_in_order

DAY = 86400.0

CANARY_REQUESTS = 3
"""Requests of a round that comes through: two queries until the row is there, one to clean up."""

log = get_logger(__name__)


def make_checks(
    *,
    settings: Settings,
    worker: Worker,
    routes: Sequence[Route],
    rest: CheckedGdn,
    snapshot: Callable[[], Snapshot],
    launch: Callable[[CanaryMessage], None],
    saw: Callable[[Any], object] = lambda _state: None,
) -> list[Check]:
    """The checks, in the order in which they are shown.

    Args:
        settings: checked.
        worker: the definition.
        routes: checked.
        rest: asked by the checks.
        snapshot: of the data path; any thread.
        launch: has a message of the canary published and followed; any thread.
        saw: is shown the worker's state as it was found.

    Raises:
        ConfigError: no route takes the canary's topic.
    """
    health = settings.health
    interval = health.worker_interval
    checks: list[Check] = [WorkerCheck(rest=rest, worker_name=worker.name, interval=interval, saw=saw)]
    query = health.query or default_query(worker)
    lag = None if health.query else _lag(worker, snapshot, canary_streams=_canary_streams(settings, routes))
    if query is not None:
        checks.append(CountCheck(rest=rest, query=query, interval=health.query_interval, lag=lag))
    checks += [
        QueryCheck(
            name=f"check {check.name}",
            rest=rest,
            query=check.query,
            interval=check.period,
            expectation=Expectation(
                min=check.min, equals=check.equals, rows=check.rows, changes_within=check.changes_within
            ),
        )
        for check in health.checks
    ]
    if settings.canary.enabled:
        checks.append(_canary(settings, routes, rest, launch, lag))
    _warn_of_quota(settings, checks)
    return checks


def _lag(worker: Worker, snapshot: Callable[[], Snapshot], *, canary_streams: Sequence[str]) -> RowLag | None:
    streams = streams_of_single_rows(worker)
    if not streams:
        return None

    def rows_in() -> RowsIn:
        now = snapshot()
        durations = now.traffic.receipt_durations
        receipted = sum(sum(durations[stream].counts) for stream in streams if stream in durations)
        return RowsIn(receipted, now.books.outbox)

    # Two streams keep no order between them.
    return RowLag(rows_in, keeps_order=len(streams) == 1 and streams == canary_streams and works_in_order(worker))


def _canary_streams(settings: Settings, routes: Sequence[Route]) -> tuple[str, ...]:
    """Of the routes that take the canary's topic."""
    if not settings.canary.enabled or settings.canary.topic is None:
        return ()
    topic = settings.canary.topic.replace(MARKER, "canary")
    taking = [route.stream for route in routes if TopicTemplate.parse(route.topic).match(topic) is not None]
    return tuple(dict.fromkeys(taking))


def _canary(
    settings: Settings,
    routes: Sequence[Route],
    rest: CheckedGdn,
    launch: Callable[[CanaryMessage], None],
    lag: RowLag | None,
) -> Canary:
    canary = settings.canary
    assert canary.topic is not None
    assert canary.query is not None
    if not _canary_streams(settings, routes):
        raise ConfigError("canary.topic: no route takes it; give a topic that devices could publish to")
    song = CanaryTemplate(canary.topic, canary.payload, canary.query, canary.cleaning_query)
    return Canary(
        rest=rest,
        launch=launch,
        song=song,
        interval=canary.interval,
        receipted=lambda: 0 if lag is None else lag.rows_in().receipted,
    )


def _warn_of_quota(settings: Settings, checks: Sequence[Check]) -> None:
    """A check costs a request; what goes beyond their share of the plan isn't asked."""
    requests = sum(DAY / check.interval * (CANARY_REQUESTS if isinstance(check, Canary) else 1) for check in checks)
    share = settings.gdn.requests_per_day // 2
    if share and requests > share:
        log.warning(
            "health.over_quota",
            requests_a_day=round(requests),
            allowed=share,
            hint="checks beyond half of gdn.requests_per_day are not made: give them longer intervals",
        )
