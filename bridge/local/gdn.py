"""The local GDN: the REST and WebSocket endpoints that a bridge and the tutorial use (gdn-api.md), in memory.

For demonstrations and tests. It executes stream workers (``executor``) and queries (``c8ql``) for real; nothing
outlives the process. This module has the server, its middleware and the function behind the verb ``local-gdn``.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from aiohttp import web

from bridge.local.authentication import Authentication
from bridge.local.documents import Documents
from bridge.local.faults import Faults
from bridge.local.regions import Regions
from bridge.local.rest import FABRIC, RequestRefused, content, error
from bridge.local.streams import MAX_FRAME, Streams
from bridge.local.tokens import IssuedTokens
from bridge.local.workers import Workers

FAULTS_PATH = "/_local/faults"


class LocalGdn:
    """One tenant, one fabric, one or two regions. The arguments are those of the parts, described there."""

    def __init__(
        self, *, host: str, host_name: str, tenant: str, api_key: str, faults: Faults, tokens: IssuedTokens
    ) -> None:
        self._host = host
        self._account = f"tenant {tenant} key {api_key}"
        self._faults = faults
        # Requests that count towards a plan's quota, including WebSocket upgrades, and how many of them got a 401.
        self._counts = {"requests": 0, "unauthorized": 0}
        self._authentication = Authentication(tenant, api_key, tokens)
        self._regions = Regions(host, host_name, faults)
        self._documents = Documents()
        self._streams = Streams(tenant, self._regions)
        self._workers = Workers(self._regions, self._streams, self._documents, faults)

    async def serve(self, port: int, ssl_context: ssl.SSLContext | None) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP; print the address to stderr when ready."""
        app = web.Application(middlewares=[self._middleware], client_max_size=8 * MAX_FRAME)
        for part in (self._authentication, self._regions, self._documents, self._streams, self._workers):
            app.add_routes(part.routes)
        app.router.add_get("/_local/stats", self._show_counts)
        app.router.add_get(FAULTS_PATH, self._show_faults)
        app.router.add_post(FAULTS_PATH, self._set_faults)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, self._host, port, ssl_context=ssl_context).start()
        working = asyncio.create_task(self._workers.run())
        url = f"{'https' if ssl_context else 'http'}://{self._host}:{runner.addresses[0][1]}"
        print(f"local GDN ready: {url} {self._account}", file=sys.stderr, flush=True)
        await stop.wait()
        working.cancel()
        await runner.cleanup()

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        begun = time.monotonic()
        is_counted = not request.path.startswith("/_local/")
        self._counts["requests"] += is_counted
        try:
            self._authentication.check(request)
            _check_fabric(request)
            if is_counted:
                await self._fail(request)
            response: web.StreamResponse = await handler(request)
        except RequestRefused as exc:
            response = exc.response
        except web.HTTPException as exc:
            response = error(exc.status, exc.status, exc.reason).response
        self._counts["unauthorized"] += is_counted and response.status == 401
        if not response.prepared:
            response.headers["Server"] = "APISIX"
            response.headers["x-gdn-region"] = self._regions.of(request)
            response.headers["x-gdn-requestid"] = str(uuid.uuid4())
            response.headers["x-gdn-responsetime"] = str(round((time.monotonic() - begun) * 1000))
        return response

    async def _fail(self, request: web.Request) -> None:
        """Apply the faults that delay a request or replace its answer."""
        if request.path.startswith("/_ws/"):
            if self._faults.denies(request.path):
                raise RequestRefused(web.Response(status=403, text="Not authorized"))
            return
        await asyncio.sleep(self._faults.delay)
        if self._faults.status is not None:
            raise error(self._faults.status, self._faults.status, "simulated fault of the local GDN")
        if self._faults.denies(request.path):
            raise error(403, 403, "forbidden")  # as recorded where a right is missing (gdn-api.md A.6)

    async def _show_counts(self, _request: web.Request) -> web.Response:
        counts = self._counts | self._authentication.counts | self._streams.counts | self._workers.counts
        return web.json_response({**counts, "waiting": self._streams.events.qsize()})

    async def _show_faults(self, _request: web.Request) -> web.Response:
        return web.json_response(self._faults.values)

    async def _set_faults(self, request: web.Request) -> web.Response:
        was_elsewhere = self._faults.is_on("region-changed")
        try:
            self._faults.set(await content(request))
        except ValueError as exc:
            raise error(400, 400, str(exc)) from exc
        self._workers.apply_faults()
        if self._faults.is_on("region-changed") != was_elsewhere:
            self._streams.cut()
        return web.json_response(self._faults.values)


def _check_fabric(request: web.Request) -> None:
    """Refuse another fabric with 404 (gdn-api.md A.6)."""
    if request.match_info.get("fabric", FABRIC) != FABRIC:
        if "/streamapps" in request.path:
            raise error(404, 404, "Response: 404, Error: 1228 - database not found")
        raise error(404, 1228, "database not found")


def main(
    *, host: str, port: int, tls: bool, host_name: str, api_key: str, tenant: str, faults: Faults, tokens: IssuedTokens
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP.

    Raises:
        RuntimeError: it can't serve.
    """
    with tempfile.TemporaryDirectory(prefix="gdn-bridge-tls-") as directory:
        try:
            context = _temporary_context(Path(directory), host_name) if tls else None
            gdn = LocalGdn(host=host, host_name=host_name, tenant=tenant, api_key=api_key, faults=faults, tokens=tokens)
            asyncio.run(gdn.serve(port, context))
        except (OSError, RuntimeError) as exc:
            raise RuntimeError(f"the local GDN can't serve on {host}:{port}: {exc}") from exc


def _temporary_context(directory: Path, host_name: str) -> ssl.SSLContext:
    """A server context with a new self-signed certificate, whose path is printed to stderr for clients to trust.

    Raises:
        RuntimeError: the command ``openssl`` is missing or failed.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise RuntimeError("--tls requires the command openssl")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    names = f"DNS:localhost,DNS:{host_name},DNS:api-{host_name},IP:127.0.0.1"
    result = subprocess.run(  # noqa: S603 - found on PATH
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=local GDN"),
            *("-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(certificate)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"openssl failed: {result.stderr.strip()[-200:]}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    print(f"local GDN: clients must trust {certificate}", file=sys.stderr)
    return context
