"""The status server: /livez, /readyz, /metrics and a page for people. The only prometheus_client.

Threads of its own read values that other parts swap whole; nothing here asks or waits for anyone.
"""

from __future__ import annotations

import html
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge import __version__
from bridge.books import Snapshot
from bridge.errors import ConfigError
from bridge.health import HealthStatus, PartStatus, is_ready
from bridge.log import redacted

REQUEST_SECONDS = 5.0
"""A client has this long for its next bytes: a silent one must not hold a thread."""

CONNECTION_SECONDS = 10.0
"""A connection lives this long at most: one that drips bytes must not hold a thread either."""

MAX_CLIENTS = 32

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Collector(Collector):
    """Builds every metric from one reading of the values, so that a scrape is consistent in itself."""

    def __init__(self, server: StatusServer) -> None:
        self._server = server

    def collect(self) -> Iterable[Metric]:
        s = self._server
        snapshot, health, parts = s.snapshot(), s.health(), s.parts()
        books, traffic, store = snapshot.books, snapshot.traffic, snapshot.store
        info = GaugeMetricFamily("gdn_bridge_info", "The running version.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield _counter("received", "Records received: a row each, or a message that can't become rows.", books.received)
        yield _counter("delivered", "Records that GDN receipted and that left the outbox.", books.delivered)
        yield _by("dead_lettered", "Records set aside as dead letters.", "reason", books.dead_lettered)
        yield _by("dropped", "Records dropped by policy.", "reason", books.dropped)
        yield GaugeMetricFamily("gdn_bridge_outbox_records", "Records in the outbox.", value=books.outbox)
        yield GaugeMetricFamily("gdn_bridge_outbox_bytes", "Bytes of the records in the outbox.", value=store.bytes)
        yield GaugeMetricFamily(
            "gdn_bridge_outbox_oldest_seconds", "How long the oldest record waits.", value=store.oldest_age
        )
        yield GaugeMetricFamily("gdn_bridge_dead_letters", "Dead letters kept.", value=store.dead_letters)
        yield _counter("dead_letters_purged", "Dead letters that made room for newer ones.", store.dead_letters_purged)
        yield GaugeMetricFamily(
            "gdn_bridge_holding",
            "Whether nothing is taken from the broker, because the outbox can take no more.",
            value=float(store.holding is not None),
        )
        yield _counter("sessions_lost", "Times that the broker had lost the session.", traffic.sessions_lost)
        if traffic.broker_dropped is not None:
            yield GaugeMetricFamily(
                "gdn_bridge_broker_dropped",
                "Messages that the broker says it dropped, for any client, since it started.",
                value=traffic.broker_dropped,
            )
        for window, used in s.requests().items():
            yield GaugeMetricFamily(f"gdn_bridge_gdn_requests_last_{window}", "Requests made to GDN.", value=used)
        yield _counter(
            "mqtt_messages", "PUBLISH packets read since the start, repetitions included.", traffic.mqtt_messages
        )
        yield _counter(
            "mqtt_repetitions",
            "Of these, those that were told to be stored already (delivery.deduplicate), since the start.",
            traffic.repetitions,
        )
        yield _counter("acked", "PUBACKs sent since the start.", traffic.acked)
        yield _counter("sends", "Records sent to GDN since the start, repetitions included.", traffic.sends)
        yield _counter("receipts", "Receipts from GDN since the start, refusals included.", traffic.receipts)
        yield _by("reconnects", "Connection attempts after the first.", "link", traffic.reconnects)
        connected = GaugeMetricFamily("gdn_bridge_part_connected", "Whether the part works now.", labels=["part"])
        for part in parts:
            connected.add_metric([part.name], float(part.state == "connected"))
        yield connected
        yield GaugeMetricFamily("gdn_bridge_ready", "Whether messages go all the way now.", value=is_ready(parts))
        if health.worker_active is not None:
            yield GaugeMetricFamily(
                "gdn_bridge_worker_active", "Whether the worker is active.", value=health.worker_active
            )
        if health.count is not None:
            yield GaugeMetricFamily(
                "gdn_bridge_query_result", "The health query's number, by default the rows out.", value=health.count
            )


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"gdn_bridge_{name}", text, value=value)


def _by(name: str, text: str, label: str, values: Any) -> Metric:
    family = CounterMetricFamily(f"gdn_bridge_{name}", text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


class StatusServer:
    """Serves what the callables give.

    Args:
        host: address to listen on.
        port: 0 takes a free one (``port`` tells which, after ``start``).
        live: whether the data path still turns.
        parts: every part, for readiness.
        snapshot: of the data path.
        health: what GDN last said.
        requests: made to GDN in the running ``minute`` and ``day``.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        live: Callable[[], bool],
        parts: Callable[[], Sequence[PartStatus]],
        snapshot: Callable[[], Snapshot],
        health: Callable[[], HealthStatus],
        requests: Callable[[], Mapping[str, int]],
    ) -> None:
        self.host = host
        self.port = port
        self.live = live
        self.parts = parts
        self.snapshot = snapshot
        self.health = health
        self.requests = requests
        self._registry = CollectorRegistry(auto_describe=False)
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen and serve.

        Raises:
            ConfigError: the address can't be listened on.
        """
        try:
            self._server = _Server((self.host, self.port), self)
        except OSError as exc:
            raise ConfigError(
                f"BRIDGE_STATUS__LISTEN: {self.host}:{self.port} can't be listened on: {exc.strerror or exc}. "
                "Give another address or port."
            ) from exc
        self.port = self._server.server_address[1]
        self._registry.register(_Collector(self))
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="status", daemon=True).start()

    def stop(self) -> None:
        """Serve no more; may be called twice."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def metrics(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def readiness(self) -> dict[str, Any]:
        """What /readyz says."""
        parts = self.parts()
        snapshot = self.snapshot()
        books, store = snapshot.books, snapshot.store
        return {
            "ready": is_ready(parts),
            "parts": [
                {
                    "name": part.name,
                    "state": part.state,
                    "since": _iso(part.since),
                    # The far end's words are in it, and it may repeat what we said to it.
                    "error": None if part.error is None else redacted(part.error),
                    "next_attempt": _iso(part.next_attempt_at),
                }
                for part in parts
            ],
            "books": {
                "received": books.received,
                "delivered": books.delivered,
                "outbox": books.outbox,
                "dead_lettered": sum(books.dead_lettered.values()),
                "dropped": sum(books.dropped.values()),
                "balanced": books.balanced,
            },
            "outbox": {
                "bytes": store.bytes,
                "oldest_seconds": round(store.oldest_age, 1),
                "dead_letters": store.dead_letters,
                "dead_letters_purged": store.dead_letters_purged,
                "holding": store.holding,
            },
            "broker": {
                "sessions_lost": snapshot.traffic.sessions_lost,
                "messages_dropped": snapshot.traffic.broker_dropped,
            },
            "health": {"worker_active": self.health().worker_active, "query_result": self.health().count},
        }

    def page(self) -> str:
        """The page for people."""
        readiness = self.readiness()
        rows = "".join(
            f"<tr><td>{html.escape(part['name'])}<td>{part['state']}<td>{part['since']}"
            f"<td>{html.escape(part['error'] or '')}<td>{part['next_attempt'] or ''}"
            for part in readiness["parts"]
        )
        tables = "".join(
            f"<h2>{title}</h2><table>"
            + "".join(
                f"<tr><td>{name.replace('_', ' ')}<td>{html.escape(str(value if value is not None else '-'))}"
                for name, value in readiness[group].items()
            )
            + "</table>"
            for title, group in (("Books", "books"), ("Outbox", "outbox"), ("Broker", "broker"))
        )
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
            "<title>gdn-bridge</title><style>body{font:15px sans-serif;margin:2em}td,th{padding:.2em 1em;"
            f"text-align:left}}</style><h1>gdn-bridge: {'ready' if readiness['ready'] else 'not ready'}</h1>"
            f"<table><tr><th>part<th>state<th>since<th>last error<th>next attempt{rows}</table>"
            f"{tables}<p>version {__version__} · <a href='metrics'>metrics</a> · "
            "<a href='readyz'>readiness</a></html>"
        )


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], status: StatusServer) -> None:
        self.status = status
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._lock = threading.Lock()
        self._since: dict[Any, float] = {}  # under _lock: open connections, and when they came
        self._places = threading.BoundedSemaphore(MAX_CLIENTS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without http.server's look-up of a name nobody uses: it can hang on DNS."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Between two looks for clients: end the connections that have lived too long."""
        oldest = time.monotonic() - CONNECTION_SECONDS
        with self._lock:
            for request, since in self._since.items():
                if since < oldest:
                    with suppress(OSError):  # it has just gone by itself
                        request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "gdn-bridge"
    sys_version = ""
    timeout = REQUEST_SECONDS

    def do_GET(self) -> None:
        """Answer."""
        status = self.server.status
        path = self.path.split("?", 1)[0]
        if path == "/livez":
            live = status.live()
            self._answer_json(HTTPStatus.OK if live else HTTPStatus.SERVICE_UNAVAILABLE, {"live": live})
        elif path == "/readyz":
            readiness = status.readiness()
            code = HTTPStatus.OK if readiness["ready"] else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer_json(code, readiness)
        elif path == "/metrics":
            self._answer(HTTPStatus.OK, METRICS_TYPE, status.metrics())
        elif path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", status.page().encode(errors="backslashreplace"))
        else:
            self._answer_json(HTTPStatus.NOT_FOUND, {"error": "there are /, /livez, /readyz and /metrics"})

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _answer_json(self, code: HTTPStatus, body: dict[str, Any]) -> None:
        self._answer(code, "application/json", json.dumps(body, indent=1).encode() + b"\n")

    def _answer(self, code: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Requests are not logged: a probe every second would drown the rest."""
