"""The status server: /livez, /readyz, /metrics and an HTML page.

Its threads only read values that other threads replace as a whole: an answer never waits for another part.
"""

from __future__ import annotations

import html
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from bridge import __version__
from bridge.books import Requests, Snapshot
from bridge.errors import SettingError
from bridge.log import redacted
from bridge.parts import PartStatus, is_ready
from bridge.text import escape_unprintable
from bridge.watch.health import HealthStatus
from bridge.watch.metrics import CONTENT_TYPE, Metrics, Reading

REQUEST_SECONDS = 5.0
"""Timeout for the next bytes of a client: a silent one must not occupy a thread."""

CONNECTION_SECONDS = 10.0
"""Maximum lifetime of a connection: a client that sends single bytes must not occupy a thread either."""

MAX_REMOTE = 32
"""Connections from other machines. A further one ends the oldest: a probe is answered within milliseconds, so a
connection that has been open for long isn't one.
"""

MAX_LOCAL = 16
"""The same for loopback, counted separately: other machines can't crowd out the probes on this one."""

MAX_THREADS = 3 * (MAX_REMOTE + MAX_LOCAL)
"""Above this, new connections are closed at once. A thread whose connection was ended needs a moment to notice."""

LISTEN_QUEUE = 128
"""Connections that the kernel holds until they are accepted."""


class StatusServer:
    """Serves the values that the callables return.

    Args:
        host: address to listen on.
        port: to listen on; 0 for any free one, which ``port`` holds after ``start``.
        live: whether the pipeline makes progress.
        parts: the status of every part.
        snapshot: of the pipeline.
        health: results of the health checks.
        requests: numbers of requests to GDN.
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
        self._server: _HttpServer | None = None

    def start(self) -> None:
        """Listen and serve.

        Raises:
            SettingError: can't listen on the address.
        """
        try:
            self._server = _HttpServer((self.host, self.port), self)
        except OSError as exc:
            raise SettingError(
                "status.listen",
                f"can't listen on {self.host}:{self.port}: {exc.strerror or exc}. Use another address or port.",
            ) from exc
        self.port = self._server.server_address[1]
        # 0.1: seconds between calls of service_actions, and the longest wait of ``stop``.
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="status", daemon=True).start()

    def stop(self) -> None:
        """Stop serving. May be called twice."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def metrics(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return self._metrics.text()

    def readiness(self) -> dict[str, Any]:
        """The body of /readyz."""
        parts = self.parts()
        snapshot = self.snapshot()  # once, so that all figures are of one moment
        books, outbox = snapshot.books, snapshot.outbox
        return {
            "ready": is_ready(parts),
            "parts": [
                {
                    "name": part.name,
                    "state": part.state,
                    "since": _iso(part.since),
                    # It may quote the far end, which may have echoed a secret.
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
                "unknown_losses": books.unknown_losses,
                "balanced": books.balanced,
            },
            "outbox": {
                "bytes": outbox.bytes,
                "oldest_seconds": round(outbox.oldest_age, 1),
                "dead_letters": outbox.dead_letters,
                "dead_letters_purged": outbox.dead_letters_purged,
                "dead_letters_replayed": outbox.dead_letters_replayed,
                "dead_letters_lost": outbox.dead_letters_lost,
                "holding": outbox.holding,
                "rate_limited": [stream for stream, limited in snapshot.traffic.rate_limited.items() if limited],
            },
            "broker": {
                "connected_to": snapshot.traffic.broker,
                # Without those that redelivered messages proved to be kept.
                "sessions_lost": snapshot.traffic.sessions_lost - snapshot.traffic.sessions_kept,
                "messages_dropped": snapshot.traffic.broker_dropped,
                "notes": list(snapshot.traffic.broker_notes),
            },
            "routes": {"notes": list(snapshot.traffic.route_notes)},
            "health": self._health(snapshot),
        }

    def _health(self, snapshot: Snapshot) -> dict[str, Any]:
        health, now = self.health(), time.monotonic()
        canary = health.canary
        return {
            "worker_active": health.worker_active,
            "query_result": health.count,
            "rows_behind": health.rows_behind,
            "rows_lost": health.rows_lost,
            "tables": [asdict(table) for table in health.tables],
            "unwatched_streams": health.unwatched(snapshot.traffic.window_used),
            "checks": [
                {
                    "name": name,
                    "query": redacted(times.query) or None,
                    "interval": times.interval,
                    "asked_seconds": _age(times.asked_at, now),
                    "answered_seconds": _age(times.answered_at, now),
                }
                for name, times in health.times.items()
            ],
            "canary": None
            if canary is None
            else {
                "seconds": {hop: round(seconds, 3) for hop, seconds in canary.seconds.items()},
                "rounds": dict(canary.rounds),
            },
        }

    def page(self) -> str:
        """The HTML page."""
        readiness = self.readiness()
        rows = "".join(
            f"<tr><td>{_html_text(part['name'])}<td>{part['state']}<td>{part['since']}"
            f"<td>{_html_text(part['error'] or '')}<td>{part['next_attempt'] or ''}"
            for part in readiness["parts"]
        )
        tables = "".join(
            f"<h2>{title}</h2><table>"
            + "".join(
                f"<tr><td>{name.replace('_', ' ')}<td>{_html_text(_shown(value))}"
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


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return "-" if value is None else str(value)


def _html_text(text: str) -> str:
    """Text that may be untrusted, as HTML."""
    return html.escape(escape_unprintable(text))


def _age(moment: float | None, now: float) -> float | None:
    """Seconds since a monotonic time."""
    return None if moment is None else round(now - moment, 1)


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client must not delay the stop
    request_queue_size = LISTEN_QUEUE

    def __init__(self, address: tuple[str, int], status: StatusServer) -> None:
        self.status = status
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._lock = threading.Lock()
        self._local: dict[Any, float] = {}  # open connections, each with its start time, oldest first; under _lock
        self._remote: dict[Any, float] = {}  # the same for those from other machines
        self._thread_slots = threading.BoundedSemaphore(MAX_THREADS)
        super().__init__(address, _RequestHandler)
        self.serves_only_loopback = _is_loopback(self.server_address[0])

    def server_bind(self) -> None:
        """Bind without http.server's look-up of the host name, which isn't needed and can hang on DNS."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve the connection in its own thread; ends the oldest one if there are too many of the same kind."""
        # Closed, not queued: each waiting client would hold a file descriptor.
        if not self._thread_slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        is_local = _is_loopback(client_address[0])
        opened, limit = (self._local, MAX_LOCAL) if is_local else (self._remote, MAX_REMOTE)
        with self._lock:
            if len(opened) >= limit:
                oldest = next(iter(opened))
                del opened[oldest]
                _end(oldest)
            opened[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._thread_slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._thread_slots.release()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._local.pop(request, None)
            self._remote.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End connections that have reached their maximum lifetime. Called between two polls for clients."""
        begin = time.monotonic() - CONNECTION_SECONDS
        with self._lock:
            for request, opened_at in (*self._local.items(), *self._remote.items()):
                if opened_at < begin:
                    _end(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: a client may disconnect at any time."""


def _end(connection: socket.socket) -> None:
    """End a connection that another thread serves."""
    # Shut down, not closed: that thread still uses the file descriptor, whose number a close would free.
    with suppress(OSError):  # it has just closed by itself
        connection.shutdown(socket.SHUT_RDWR)


def _is_loopback(address: Any) -> bool:
    """Whether this is a loopback address, also an IPv4 one on an IPv6 socket."""
    try:
        found = ipaddress.ip_address(str(address).partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (found if mapped is None else mapped).is_loopback


def _names_loopback(host: str) -> bool:
    """Whether a Host header (RFC 9110, 7.2) names this machine's loopback interface; the port doesn't matter."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".") == "localhost" or _is_loopback(name)


class _RequestHandler(BaseHTTPRequestHandler):
    server: _HttpServer
    server_version = "gdn-bridge"
    sys_version = ""
    timeout = REQUEST_SECONDS

    def do_GET(self) -> None:
        """Answer a request."""
        host = self.headers.get("Host")
        if self.server.serves_only_loopback and host is not None and not _names_loopback(host):
            # DNS rebinding: a page in a browser on this machine reaches us under a host name of its own.
            error = "this server listens on loopback only: ask it as localhost, 127.0.0.1 or [::1]"
            self._answer_json(HTTPStatus.MISDIRECTED_REQUEST, {"error": error})
            return
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
            self._answer_json(HTTPStatus.NOT_FOUND, {"error": "the paths are /, /livez, /readyz and /metrics"})

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
        """Do nothing: probes every second would bury all other events in the log."""
