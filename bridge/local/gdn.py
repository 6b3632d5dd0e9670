"""A GDN on this machine: the REST and WebSocket endpoints that a bridge and the tutorial use (gdn-api.md), in memory.

For demonstrations and tests. It really executes stream workers (``executor``) and queries (``c8ql``); nothing outlives
the process.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from bridge.local.c8ql import C8QLError, run
from bridge.local.executor import EventError, Executor, NotExecutable
from bridge.local.faults import Faults, with_other_schema
from bridge.local.tokens import USER, Tokens
from bridge.streamql import Scope, StreamQLError, Worker, input_streams, parse, require_metadata

FABRIC = "_system"
OTP_SECONDS = 10.0
MAX_FRAME = 1024 * 1024
"""Bytes, Pulsar's default (gdn-api.md C.5)."""
MAX_DOCUMENTS = 2_000_000
HERE, ELSEWHERE = "local", "elsewhere"
"""The regions. The second one is there where it listens on every address, and whoever dials its address is in it."""
ELSEWHERE_ADDRESS = "127.0.0.2"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - to compare with
FAULTS_PATH = "/_local/faults"
LOGIN_PATH = "/_open/auth"
MAX_WAITING = 50_000
"""Events acknowledged and not yet worked on; beyond it producers wait for their answers."""
EVENTS_AT_A_TIME = 200
"""Worked on before other connections get their turn."""


@dataclass
class Stats:
    """What happened, for tests to look at (GET /_local/stats)."""

    received: dict[str, int] = field(default_factory=dict)
    received_in: dict[str, int] = field(default_factory=dict)
    """Of these, by region."""
    executed: int = 0
    dropped: int = 0
    lost: int = 0
    """Rows that a fault took behind their receipts."""
    errors: int = 0
    last_error: str = ""
    requests: int = 0
    """All that a plan counts, WebSocket upgrades included."""
    unauthorized: int = 0
    """Of these, those that were answered 401."""
    otps: int = 0
    logins: int = 0


@dataclass
class WorkerState:
    """A stream worker as it is served."""

    worker: Worker
    executor: Executor
    regions: tuple[str, ...]
    active: bool = False
    attached: bool = False


class LocalGdn:
    """One tenant, one fabric, and a region or two: see ``ELSEWHERE``.

    Args:
        tenant: its name.
        api_key: the one key that is taken.
        host_name: what the region calls itself; with an address or ``localhost`` the API host is that with the port.
        otp_seconds: how long a one-time password lasts.
        activation_delay: seconds that activating takes.
        attach_delay: seconds after that until the worker reads; what is published before is lost to it.
        faults: what it does to its users from the start.
        tokens: of the user who can log in; None: nobody can.
    """

    def __init__(
        self,
        *,
        tenant: str,
        api_key: str,
        host_name: str = "localhost",
        otp_seconds: float = OTP_SECONDS,
        activation_delay: float = 0.1,
        attach_delay: float = 0.2,
        faults: Faults | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self.faults = faults or Faults()
        self._tokens = tokens or Tokens(tenant=tenant, password=None)
        self.tenant = tenant
        self.api_key = api_key
        self._host_name = host_name
        self._regions: tuple[str, ...] = (HERE,)
        self._otp_seconds = otp_seconds
        self._activation_delay = activation_delay
        self._attach_delay = attach_delay
        self._port = 0
        self._scheme_port = 80
        self._workers: dict[str, WorkerState] = {}
        self._collections: dict[str, list[dict[str, Any]]] = {}
        self._streams: set[str] = set()  # with their prefix
        self._producers: set[tuple[str, str]] = set()
        self._sockets: set[web.WebSocketResponse] = set()  # of producers
        self._otps: dict[str, float] = {}
        self._cursors: dict[str, deque[Any]] = {}
        self._entry = 0
        self._document = 0
        self._events: deque[tuple[str, str, bytes]] = deque()  # the region, "" for all; the stream; the payload
        self._room = asyncio.Event()
        self._room.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self.stats = Stats()

    # --- starting and stopping ----------------------------------------------------------------------------

    async def start(self, host: str, port: int, ssl_context: ssl.SSLContext | None = None) -> int:
        """Listen; returns the port."""
        app = web.Application(middlewares=[self._middleware], client_max_size=8 * MAX_FRAME)
        apps = "/_fabric/{fabric}/_api/streamapps"
        app.add_routes(
            [
                web.post(LOGIN_PATH, self._log_in),
                web.post("/apid/otp", self._otp),
                web.get("/datacenter/local", self._datacenter),
                web.get("/datacenter/all", self._datacenters),
                web.get("/datacenter/{name}", self._datacenter_by_name),
                web.get("/_api/user", self._user),
                web.post(f"{apps}/validate", self._validate),
                web.post(apps, self._create),
                web.get(apps, self._list),
                web.get(f"{apps}/{{name}}", self._get),
                web.put(f"{apps}/{{name}}", self._put),
                web.patch(f"{apps}/{{name}}/active", self._activate),
                web.delete(f"{apps}/{{name}}", self._delete),
                web.get("/_fabric/{fabric}/_api/streams", self._list_streams),
                web.post("/_fabric/{fabric}/_api/streams/{name}", self._create_stream),
                web.delete("/_fabric/{fabric}/_api/streams/{name}", self._delete_stream),
                web.post("/_fabric/{fabric}/_api/cursor", self._query),
                web.put("/_fabric/{fabric}/_api/cursor/{id}", self._next_batch),
                web.delete("/_fabric/{fabric}/_api/cursor/{id}", self._drop_cursor),
                web.get("/_ws/ws/v2/producer/persistent/{tenant}/{namespace}/{topic}", self._produce),
                web.get("/_local/stats", self._show_stats),
                web.get(FAULTS_PATH, self._show_faults),
                web.post(FAULTS_PATH, self._set_faults),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        self._regions = (HERE, ELSEWHERE) if host == EVERY_ADDRESS else (HERE,)
        site = web.TCPSite(self._runner, host, port, ssl_context=ssl_context)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self._scheme_port = 443 if ssl_context else 80
        return self._port

    async def stop(self) -> None:
        """Stop listening and end what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    def _spawn(self, coroutine: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- every request ------------------------------------------------------------------------------------

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        begun = time.monotonic()
        is_counted = not request.path.startswith("/_local/")
        self.stats.requests += is_counted
        try:
            response = self._refused(request) or await self._fails(request) or await handler(request)
        except web.HTTPException as exc:
            response = _error(exc.status, exc.status, exc.reason)
        self.stats.unauthorized += is_counted and response.status == 401
        if not response.prepared:
            response.headers["Server"] = "APISIX"
            response.headers["x-gdn-region"] = self._region_of(request)
            response.headers["x-gdn-requestid"] = str(uuid.uuid4())
            response.headers["x-gdn-responsetime"] = str(round((time.monotonic() - begun) * 1000))
        return response

    def _refused(self, request: web.Request) -> web.Response | None:
        """401 for a wrong key, 404 for another fabric (gdn-api.md A.6)."""
        if request.path in ("/_local/stats", LOGIN_PATH):
            return None
        if not self._is_known(request.headers.get("Authorization", "")):
            if request.path.startswith("/_ws/"):
                # Used up by the attempt, whatever becomes of it.
                expires = self._otps.pop(request.query.get("otp", ""), 0.0)
                return None if expires > time.monotonic() else web.Response(status=401, text="Failed to authenticate")
            if request.path.startswith("/apid/"):
                body = {"code": 401, "error": True, "message": "Unauthorized", "serverId": "local"}
                return web.json_response(body, status=401)
            return _error(401, 11, "forbidden")
        fabric = request.match_info.get("fabric", FABRIC)
        if fabric != FABRIC:
            if "/streamapps" in request.path:
                return _error(404, 404, "Response: 404, Error: 1228 - database not found")
            return _error(404, 1228, "database not found")
        return None

    def _is_known(self, authorization: str) -> bool:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() == "apikey":
            return secrets.compare_digest(secret.encode(), self.api_key.encode())
        return scheme.lower() == "bearer" and self._tokens.is_good(secret)

    async def _fails(self, request: web.Request) -> web.Response | None:
        """The answer that a fault gives in the handler's place."""
        if request.path.startswith("/_local/"):
            return None
        if request.path.startswith("/_ws/"):
            return web.Response(status=403, text="Not authorized") if self.faults.denies(request.path) else None
        await asyncio.sleep(self.faults.delay)
        if self.faults.status is not None:
            return _error(self.faults.status, self.faults.status, "the local GDN was told to fail")
        # As recorded where a right is missing (gdn-api.md A.6).
        return _error(403, 403, "forbidden") if self.faults.denies(request.path) else None

    async def _show_faults(self, _request: web.Request) -> web.Response:
        return web.json_response(self.faults.values)

    async def _set_faults(self, request: web.Request) -> web.Response:
        led_elsewhere = self.faults.is_on("region-changed")
        try:
            self.faults.set(await _body(request))
        except ValueError as exc:
            return _error(400, 400, str(exc))
        self._play_faults()
        if self.faults.is_on("region-changed") != led_elsewhere:
            for socket in self._sockets:
                self._spawn(socket.close())
        return web.json_response(self.faults.values)

    def _play_faults(self) -> None:
        """Do to the workers what the faults say; called whenever faults or workers have changed."""
        if self.faults.is_on("deleted"):
            self._workers.clear()
        for name, state in self._workers.items():
            if self.faults.is_on("worker-stopped"):
                state.active = state.attached = False
            if self.faults.is_on("schema-changed"):
                filled = {query.target or "" for query in state.worker.queries}
                definition = with_other_schema(state.worker.text, but=filled)
                changed = self._prepare({"definition": definition}, state.regions)
                if isinstance(changed, WorkerState):  # else the column can't be added there
                    changed.active, changed.attached = state.active, state.attached
                    self._workers[name] = changed

    # --- tenant, region, one-time passwords ---------------------------------------------------------------

    async def _log_in(self, request: web.Request) -> web.Response:
        token = self._tokens.log_in(await _body(request))
        if token is None:
            return _error(401, 401, "Wrong credentials")
        self.stats.logins += 1
        return web.json_response({"jwt": token, "tenant": self.tenant, "username": USER})

    async def _otp(self, _request: web.Request) -> web.Response:
        now = time.monotonic()
        self._otps = {otp: expires for otp, expires in self._otps.items() if expires > now}
        otp = secrets.token_urlsafe(24)
        self._otps[otp] = now + self._otp_seconds
        self.stats.otps += 1
        return web.json_response({"otp": otp})

    async def _user(self, _request: web.Request) -> web.Response:
        user = {"tenant": self.tenant, "email": "", "active": True, "extra": {}, "user": "root", "displayName": "root"}
        return web.json_response({"error": False, "code": 200, "result": [user]})

    def _region_of(self, request: web.Request) -> str:
        """The region that answers a request."""
        if self.faults.is_on("region-changed") and not request.path.startswith("/_ws/"):
            return ELSEWHERE
        assert request.transport is not None
        return ELSEWHERE if request.transport.get_extra_info("sockname")[0] == ELSEWHERE_ADDRESS else HERE

    async def _datacenter(self, request: web.Request) -> web.Response:
        return web.json_response(self._region(self._region_of(request)))

    async def _datacenter_by_name(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._regions:
            return _error(404, 102024, "Datacenter does not exist")
        return web.json_response(self._region(name))

    async def _datacenters(self, _request: web.Request) -> web.Response:
        return web.json_response([self._region(name) for name in self._regions])

    def _region(self, name: str) -> dict[str, Any]:
        host = self._host_name if name == HERE else ELSEWHERE_ADDRESS
        port = "" if self._port == self._scheme_port else f":{self._port}"
        url = f"{host}{port}"
        plain = host == "localhost" or re.fullmatch(r"[0-9.]+", host)
        return {
            "_key": name,
            "host": "127.0.0.1" if name == HERE else ELSEWHERE_ADDRESS,
            "local": True,
            "name": name,
            "spot_region": False,
            "status": 0,
            "tags": {"api": url if plain else f"api-{url}", "url": url},
            "locationInfo": {"city": "", "countrycode": "", "countryname": "", "latitude": "0", "longitude": "0"},
        }

    # --- stream workers -----------------------------------------------------------------------------------

    async def _validate(self, request: web.Request) -> web.Response:
        prepared = self._prepare(await _body(request), ())
        if isinstance(prepared, web.Response):
            return prepared
        return web.json_response({"error": False, "code": 200, "message": "Stream application definition is valid."})

    async def _create(self, request: web.Request) -> web.Response:
        prepared = self._prepare(await _body(request), (self._region_of(request),))
        if isinstance(prepared, web.Response):
            return prepared
        name = prepared.worker.name
        if name in self._workers:
            return _error(409, 409, f"Stream worker `{name}` already exists.")
        self._workers[name] = prepared
        self._play_faults()
        return self._envelope([prepared], 201)

    async def _put(self, request: web.Request) -> web.Response:
        found = self._find(request)
        prepared = self._prepare(await _body(request), found.regions)
        if isinstance(prepared, web.Response):
            return prepared
        if prepared.worker.name != found.worker.name:
            return _error(400, 400, "a stream worker can't be renamed")
        self._workers[prepared.worker.name] = prepared
        self._play_faults()
        return self._envelope([prepared])

    async def _list(self, _request: web.Request) -> web.Response:
        return self._envelope(list(self._workers.values()))

    async def _get(self, request: web.Request) -> web.Response:
        return self._envelope([self._find(request)])

    async def _activate(self, request: web.Request) -> web.Response:
        self._find(request)
        active = request.query.get("active") == "true"
        await asyncio.sleep(self._activation_delay)
        state = self._find(request)  # it may have been replaced or deleted meanwhile
        if active and not state.active:
            # Activating makes the streams and collections that are missing (gdn-api.md B).
            for table in state.worker.tables.values():
                self._collections.setdefault(table.collection, [])
            for stream in input_streams(state.worker).values():
                self._streams.add(_topic(stream.name, stream.scope))
            self._spawn(self._attach(state))
        state.active = active
        state.attached = state.attached and active
        answer = self._envelope([state])
        self._play_faults()
        return answer

    async def _attach(self, state: WorkerState) -> None:
        await asyncio.sleep(self._attach_delay)
        state = self._workers.get(state.worker.name, state)  # by a fault it has another definition by now
        state.attached = state.active

    async def _delete(self, request: web.Request) -> web.Response:
        state = self._find(request)
        state.active = state.attached = False
        del self._workers[state.worker.name]
        message = f"Stream worker `{state.worker.name}` deleted successfully."
        return web.json_response({"error": False, "code": 200, "message": message})

    def _prepare(self, body: Mapping[str, Any], regions: tuple[str, ...]) -> WorkerState | web.Response:
        """A worker, in these regions where the body names none."""
        definition = body.get("definition")
        if not isinstance(definition, str):
            return _error(400, 400, "definition is missing")
        asked = body.get("regions") or ()
        regions = tuple(name for name in self._regions if name in asked or "*" in asked) or regions
        if not re.search(r"@app:qlVersion\s*\(\s*['\"]2['\"]", definition, re.IGNORECASE):
            return _unreadable(1, 0, "mismatched input expecting {'@', DEFINE, UNEXPECTED_CHAR}")
        try:
            worker = parse(definition)
            require_metadata(worker)
            return WorkerState(worker, Executor(worker, self._insert), regions)
        except StreamQLError as exc:
            return _unreadable(exc.line, exc.column, exc.message)
        except NotExecutable as exc:
            return _unreadable(exc.place.line, exc.place.column, str(exc))

    def _find(self, request: web.Request) -> WorkerState:
        state = self._workers.get(request.match_info["name"])
        if state is None:
            raise web.HTTPNotFound(reason=f"Stream worker {request.match_info['name'][:80]!a} not found")
        return state

    def _envelope(self, states: list[WorkerState], status: int = 200) -> web.Response:
        apps = [
            {"name": s.worker.name, "definition": s.worker.text, "regions": s.regions, "isActive": s.active}
            for s in states
        ]
        return web.json_response({"error": False, "code": status, "streamApps": apps}, status=status)

    # --- streams ------------------------------------------------------------------------------------------

    async def _list_streams(self, request: web.Request) -> web.Response:
        wanted = {"true": "c8globals.", "false": "c8locals."}.get(request.query.get("global", ""), "c8")
        result = [
            {"_key": t, "topic": t, "db": FABRIC, "local": t.startswith("c8locals."), "tenant": self.tenant, "type": 4}
            for t in sorted(self._streams)
            if t.startswith(wanted)
        ]
        return web.json_response({"error": False, "code": 200, "result": result})

    async def _create_stream(self, request: web.Request) -> web.Response:
        prefix = "c8globals." if request.query.get("global", "false") == "true" else "c8locals."
        topic = prefix + request.match_info["name"]
        if topic in self._streams:
            return _error(409, 1210, "stream already exists")
        self._streams.add(topic)
        return web.json_response({"error": False, "code": 202, "result": {"stream-id": topic}}, status=202)

    async def _delete_stream(self, request: web.Request) -> web.Response:
        if request.match_info["name"] not in self._streams:
            return _error(404, 100016, "stream not found")
        self._streams.remove(request.match_info["name"])
        return web.json_response({"error": False, "code": 202}, status=202)

    async def _produce(self, request: web.Request) -> web.StreamResponse:
        """The producer's socket (gdn-api.md C.4, C.5)."""
        topic = request.match_info["topic"]
        namespace, _, name = topic.partition("s.")
        if request.match_info["tenant"] != self.tenant or request.match_info["namespace"] != f"{namespace}.{FABRIC}":
            return web.Response(status=403, text="Not authorized")
        if topic not in self._streams:
            return web.Response(status=404, text="Topic not found")
        producer = (topic, request.query.get("producerName") or str(uuid.uuid4()))
        if producer in self._producers:
            return web.Response(status=409, text="Producer with that name is connected already")
        socket = web.WebSocketResponse(max_msg_size=MAX_FRAME, compress=False)
        await socket.prepare(request)
        self._producers.add(producer)
        self._sockets.add(socket)
        region = self._region_of(request) if namespace == "c8local" else ""
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._room.wait()
                    await socket.send_str(self._take(region, name, message.data))
        finally:
            self._producers.discard(producer)
            self._sockets.discard(socket)
        return socket

    def _take(self, region: str, stream: str, text: str) -> str:
        """The answer to one frame. ``region``: empty for a global stream."""
        try:
            frame = json.loads(text)
        except (ValueError, RecursionError):
            return json.dumps({"result": "send-error:3", "errorMsg": "Could not de-serialize message"})
        context = frame.get("context") if isinstance(frame, dict) else None
        try:
            payload = base64.b64decode(frame["payload"], validate=True)
        except (KeyError, TypeError, binascii.Error, ValueError):
            answer = {"result": "send-error:7", "errorMsg": "Invalid Base64 message-payload"}
            return json.dumps(answer if context is None else {**answer, "context": context})
        self._entry += 1
        self.stats.received[stream] = self.stats.received.get(stream, 0) + 1
        self.stats.received_in[region] = self.stats.received_in.get(region, 0) + 1
        idle = not self._events
        self._events.append((region, stream, payload))
        if len(self._events) >= MAX_WAITING:
            self._room.clear()
        if idle:
            self._spawn(self._execute())
        answer = {"result": "ok", "messageId": _message_id(self._entry)}
        return json.dumps(answer if context is None else {**answer, "context": context})

    async def _execute(self) -> None:
        """Work on what was published, in turns with everything else."""
        done = 0
        while self._events:
            region, stream, payload = self._events[0]
            if self.faults.is_on("acks-but-drops") or self.faults.loses_next():
                self.stats.lost += 1
            else:
                self._hand_to_workers(region, stream, payload)
            self._events.popleft()
            if len(self._events) < MAX_WAITING:
                self._room.set()
            done += 1
            if done % EVENTS_AT_A_TIME == 0:
                await asyncio.sleep(0)

    def _hand_to_workers(self, region: str, stream: str, payload: bytes) -> None:
        for state in list(self._workers.values()):
            # The worker subscribes at Latest: what came before it attached is not for it (gdn-api.md B).
            if state.attached and region in ("", *state.regions) and state.executor.reads(stream):
                self._work(state.executor, stream, payload)

    def _work(self, executor: Executor, stream: str, payload: bytes) -> None:
        try:
            events = json.loads(payload)
            for event in events if isinstance(events, list) else [events]:
                if executor.accept(stream, event):
                    self.stats.executed += 1
                else:
                    self.stats.dropped += 1
        except Exception as exc:  # whatever one event does, the next gets its turn
            self.stats.errors += 1
            self.stats.last_error = f"{stream}: {exc}"
            print(f"local GDN: an event of stream {stream} was dropped: {exc}", file=sys.stderr)

    def _insert(self, collection: str, row: dict[str, Any]) -> None:
        documents = self._collections.setdefault(collection, [])
        if len(documents) >= MAX_DOCUMENTS:
            raise EventError(f"collection {collection} is full: {MAX_DOCUMENTS} documents is the local GDN's limit")
        self._document += 1
        key = str(row.get("_key") or self._document)
        document = {name: _shown(value) for name, value in row.items()}
        documents.append({"_key": key, "_id": f"{collection}/{key}", "_rev": f"_{len(documents):x}", **document})

    # --- queries ------------------------------------------------------------------------------------------

    async def _query(self, request: web.Request) -> web.Response:
        body = await _body(request)
        query, bind_vars = body.get("query"), body.get("bindVars") or {}
        if not isinstance(query, str) or not isinstance(bind_vars, dict):
            return _error(400, 1502, "query is empty")
        try:
            result = run(query, bind_vars, self._documents)
        except C8QLError as exc:
            return _error(exc.status, exc.number, str(exc))
        size = body.get("batchSize", 100)
        size = min(size, 1000) if isinstance(size, int) and size > 0 else 100
        answer: dict[str, Any] = {"result": result[:size], "hasMore": len(result) > size, "cached": False}
        if answer["hasMore"]:
            answer["id"] = str(secrets.randbelow(10**9))
            self._cursors[answer["id"]] = deque([result[at : at + size] for at in range(size, len(result), size)])
        if body.get("count") is True:
            answer["count"] = len(result)
        return web.json_response({**answer, "extra": {"warnings": []}, "error": False, "code": 201}, status=201)

    async def _next_batch(self, request: web.Request) -> web.Response:
        cursor_id = request.match_info["id"]
        if not cursor_id.isdecimal():
            return _error(400, 400, "invalid cursor ID")
        batches = self._cursors.get(cursor_id)
        if batches is None:
            return _error(404, 1600, "cursor not found")
        answer: dict[str, Any] = {"result": batches.popleft(), "hasMore": bool(batches), "error": False, "code": 200}
        if batches:
            answer["id"] = cursor_id
        else:
            del self._cursors[cursor_id]
        return web.json_response(answer)

    async def _drop_cursor(self, request: web.Request) -> web.Response:
        if self._cursors.pop(request.match_info["id"], None) is None:
            return _error(404, 1600, "cursor not found")
        return web.json_response({"id": request.match_info["id"], "error": False, "code": 202}, status=202)

    def _documents(self, name: str) -> list[dict[str, Any]]:
        if name not in self._collections:
            raise C8QLError(f"C8QL: collection or view not found: {name} (while parsing)", number=1203, status=404)
        return self._collections[name]

    async def _show_stats(self, _request: web.Request) -> web.Response:
        return web.json_response({**vars(self.stats), "waiting": len(self._events)})


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(reason="the body is no JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(reason="the body is no object")
    return body


def _error(status: int, number: int, message: str) -> web.Response:
    body = {"error": True, "code": status, "errorNum": number, "errorMessage": message}
    return web.json_response(body, status=status)


def _unreadable(line: int, column: int, message: str) -> web.Response:
    """422 in the recorded form (gdn-api.md B)."""
    place = f"@ Line: {line}. Position: {column}"
    return _error(
        422, 422, f"Error: Error between {place} and {place}. Syntax error in application definition, {message}."
    )


def _topic(name: str, scope: Scope) -> str:
    return f"c8{scope.value}s.{name}"


def _message_id(entry: int) -> str:
    """Base64 of the protobuf (ledger 0, entry n), as Pulsar's are (gdn-api.md C.5)."""
    data = bytearray(b"\x08\x00\x10")
    while entry > 127:
        data.append(entry & 127 | 128)
        entry >>= 7
    data.append(entry)
    return base64.b64encode(data).decode()


def _shown(value: Any) -> Any:
    """A document's number as it is printed: 18, not 18.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


# --- the command ------------------------------------------------------------------------------------------


def main(
    *, host: str, port: int, tls: bool, host_name: str, api_key: str, tenant: str, faults: Faults, tokens: Tokens
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="gdn-bridge-tls-") as directory:
        try:
            context = _throw_away_context(Path(directory), host_name) if tls else None
            gdn = LocalGdn(tenant=tenant, api_key=api_key, host_name=host_name, faults=faults, tokens=tokens)
            asyncio.run(_serve(gdn, host, port, context))
        except (OSError, RuntimeError) as exc:
            print(f"gdn-bridge: the local GDN can't serve on {host}:{port}: {exc}", file=sys.stderr)
            return 1
    return 0


async def _serve(gdn: LocalGdn, host: str, port: int, context: ssl.SSLContext | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    port = await gdn.start(host, port, context)
    scheme = "https" if context else "http"
    print(
        f"local GDN ready: {scheme}://{host}:{port} tenant {gdn.tenant} key {gdn.api_key}", file=sys.stderr, flush=True
    )
    await stop.wait()
    await gdn.stop()


def _throw_away_context(directory: Path, host_name: str) -> ssl.SSLContext:
    """A server context with a certificate of its own making; the file is named on stderr for clients to trust.

    Raises:
        RuntimeError: there is no ``openssl`` command, or it failed.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise RuntimeError("--tls needs the command openssl")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    names = f"DNS:localhost,DNS:{host_name},DNS:api-{host_name},IP:127.0.0.1"
    made = subprocess.run(  # noqa: S603 - found on PATH
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=local GDN"),
            *("-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(certificate)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise RuntimeError(f"openssl made no certificate: {made.stderr.strip()[-200:]}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    print(f"local GDN: clients must trust {certificate}", file=sys.stderr)
    return context
