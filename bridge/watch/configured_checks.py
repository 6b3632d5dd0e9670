"""Creates the checks that the settings ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
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
from bridge.watch.row_loss import CountableTable, InputRows, RowLagTracker, countable_tables, keeps_row_order
from bridge.watch.table_check import TableCheck, WatchedTable

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
    used: Callable[[], Collection[str]],
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
        used: returns the streams that the bridge feeds; called by the health thread.
        publish: has the pipeline publish a canary and track it; called by any thread.
        on_worker_state: called with each state of the worker that GDN returns.

    Raises:
        SettingError: no route matches the canary's topic.
    """
    health = settings.health
    checks: list[Check] = [
        WorkerCheck(gdn=gdn, worker_name=worker.name, interval=health.worker_interval, on_state=on_worker_state)
    ]
    tables = _watched_tables(settings, worker, routes, snapshot)
    if tables:
        checks.append(TableCheck(gdn=gdn, tables=tables, used=used, interval=health.query_interval))
    elif query := health.query or default_query(worker):
        checks.append(CountCheck(gdn=gdn, query=query, interval=health.query_interval))
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
        checks.append(_canary(settings, routes, gdn, publish, snapshot, tables))
    _warn_of_quota(settings, checks)
    return checks


def watched_streams(settings: Settings, worker: Worker, routes: Sequence[Route]) -> frozenset[str]:
    """The streams whose rows are counted, or that the canary goes through.

    A canary in several streams shows only that its rows come out of one of them.
    """
    counted = {stream for table in _countable_tables(settings, worker) for stream in table.streams}
    canary_streams = _canary_streams(settings, routes)
    return frozenset(counted.union(canary_streams if len(canary_streams) == 1 else ()))


def unwatched_streams(settings: Settings, worker: Worker, routes: Sequence[Route]) -> list[str]:
    """The streams of the routes that aren't among ``watched_streams``. A plain Pulsar has no worker to watch."""
    if settings.gdn.kind == "pulsar":
        return []
    return sorted({route.stream for route in routes} - watched_streams(settings, worker, routes))


def _countable_tables(settings: Settings, worker: Worker) -> tuple[CountableTable, ...]:
    # A query of the operator's own need not count the rows of the worker's tables.
    return () if settings.health.query else countable_tables(worker)


def _watched_tables(
    settings: Settings, worker: Worker, routes: Sequence[Route], snapshot: Callable[[], Snapshot]
) -> list[WatchedTable]:
    """The tables that can be counted. The one in which canaries prove a loss is the first."""
    tables = _countable_tables(settings, worker)
    canary_table = _canary_table(settings, worker, routes, tables)
    cleaned = _named_in(settings.canary.cleaning_query or "", tables) if settings.canary.enabled else []
    return [
        WatchedTable(
            table,
            RowLagTracker(_input_rows(table.streams, snapshot), keeps_order=table == canary_table),
            is_cleaned=table in cleaned,
        )
        for table in sorted(tables, key=lambda table: table != canary_table)  # False is sorted before True
    ]


def _canary_table(
    settings: Settings, worker: Worker, routes: Sequence[Route], tables: Sequence[CountableTable]
) -> CountableTable | None:
    """The table whose rows come out in the same order as the canary's; None if no table's rows certainly do."""
    if not settings.canary.enabled or not keeps_row_order(worker):
        return None
    # A stream may feed several tables: the canary's query names the one that it reads.
    queried = _named_in(settings.canary.query or "", tables)
    # There is no order between two streams.
    is_in_order = len(queried) == 1 and len(queried[0].streams) == 1
    return queried[0] if is_in_order and queried[0].streams == _canary_streams(settings, routes) else None


def _named_in(query: str, tables: Sequence[CountableTable]) -> list[CountableTable]:
    # As a whole word: one collection's name may be part of another's.
    return [table for table in tables if re.search(rf"(?<!\w){re.escape(table.collection)}(?!\w)", query)]


def _input_rows(streams: Sequence[str], snapshot: Callable[[], Snapshot]) -> Callable[[], InputRows]:
    def input_rows() -> InputRows:
        now = snapshot()
        durations = now.traffic.receipt_durations
        receipted = sum(sum(durations[stream].counts) for stream in streams if stream in durations)
        return InputRows(receipted, now.books.outbox)

    return input_rows


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
    tables: Sequence[WatchedTable],
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
        receipted=lambda: tables[0].tracker.input_rows().receipted if tables else 0,
    )


def _warn_of_quota(settings: Settings, checks: Sequence[Check]) -> None:
    """Warn if the checks need more requests than their share of the budget: those beyond it aren't made."""
    requests = sum(DAY / check.interval * (CANARY_REQUESTS if isinstance(check, Canary) else 1) for check in checks)
    share = settings.gdn.requests_per_day // 2  # as in budget.py
    if share and requests > share:
        log.warning(
            "health.over_quota",
            requests_a_day=round(requests),
            allowed=share,
            hint="checks get half of gdn.requests_per_day, and no requests beyond it: use longer intervals",
        )
