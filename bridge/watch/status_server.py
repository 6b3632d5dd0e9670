"""The status server: /livez, /readyz, /metrics and a page for people.

Threads of its own read values that other parts swap whole; nothing here asks or waits for anyone.
"""

from __future__ import annotations

import html
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from bridge import __version__
from bridge.books import Requests, Snapshot
from bridge.errors import ConfigError
from bridge.log import redacted
from bridge.parts import PartStatus, is_ready
from bridge.text import escape_unprintable
from bridge.watch.health import HealthStatus
from bridge.watch.metrics import CONTENT_TYPE, Metrics, Reading

REQUEST_SECONDS = 5.0
"""A client has this long for its next bytes: a silent one must not hold a thread."""

CONNECTION_SECONDS = 10.0
"""A connection lives this long at most: one that drips bytes must not hold a thread either."""

MAX_CLIENTS = 32


class StatusServer:
    """Serves what the callables give.

    Args:
        host: address to listen on.
        port: 0 takes a free one (``port`` tells which, after ``start``).
        live: whether the data path still turns.
        parts: every part, for readiness.
        snapshot: of the data path.
        health: what GDN last said.
        requests: made to GDN.
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
        requests: Callable[[], Requests],
    ) -> None:
        self.host = host
        self.port = port
        self.live = live
        self.parts = parts
        self.snapshot = snapshot
        self.health = health
        self.requests = requests
        self._metrics = Metrics(lambda: Reading(self.parts(), self.snapshot(), self.health(), self.requests()))
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
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="status", daemon=True).start()

    def stop(self) -> None:
        """Serve no more; may be called twice."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def metrics(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return self._metrics.text()

    def readiness(self) -> dict[str, Any]:
        """What /readyz says."""
        parts = self.parts()
        snapshot = self.snapshot()
        books, outbox = snapshot.books, snapshot.outbox
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
                "bytes": outbox.bytes,
                "oldest_seconds": round(outbox.oldest_age, 1),
                "dead_letters": outbox.dead_letters,
                "dead_letters_purged": outbox.dead_letters_purged,
                "dead_letters_replayed": outbox.dead_letters_replayed,
                "holding": outbox.holding,
            },
            "broker": {
                "sessions_lost": snapshot.traffic.sessions_lost,
                "messages_dropped": snapshot.traffic.broker_dropped,
            },
            "health": self._health(),
        }

    def _health(self) -> dict[str, Any]:
        health = self.health()
        canary = health.canary
        return {
            "worker_active": health.worker_active,
            "query_result": health.count,
            "rows_behind": health.rows_behind,
            "rows_lost": health.rows_lost,
            "canary": None
            if canary is None
            else {
                "seconds": {hop: round(seconds, 3) for hop, seconds in canary.seconds.items()},
                "rounds": dict(canary.rounds),
            },
        }

    def page(self) -> str:
        """The page for people."""
        readiness = self.readiness()
        rows = "".join(
            f"<tr><td>{_shown(part['name'])}<td>{part['state']}<td>{part['since']}"
            f"<td>{_shown(part['error'] or '')}<td>{part['next_attempt'] or ''}"
            for part in readiness["parts"]
        )
        tables = "".join(
            f"<h2>{title}</h2><table>"
            + "".join(
                f"<tr><td>{name.replace('_', ' ')}<td>{_shown(str(value if value is not None else '-'))}"
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


def _shown(text: str) -> str:
    """A text that may be foreign, in HTML."""
    return html.escape(escape_unprintable(text))


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
            self._answer(HTTPStatus.OK, CONTENT_TYPE, status.metrics())
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
