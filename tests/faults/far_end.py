"""A far end that breaks on command: the REST calls and the producer socket that the bridge uses, as a process.

    python -m tests.faults.far_end --port P --control C --public HOST:PORT --journal FILE

Reads API key and tenant from ``FAULTS_API_KEY`` and ``FAULTS_TENANT``. Uses plain asyncio streams, so that any byte can
be wrong. What arrives is written to the journal at once, a JSON object a line (``t`` is monotonic seconds):

* ``{"e": "otp", "v": …}``: a one-time password was handed out.
* ``{"e": "open", "c": connection}``, ``{"e": "end", "c": connection, "why": …}``: a producer connection.
* ``{"e": "got", "c": connection, "i": index, "x": context, "p": payload, "f": fate}``: a send. Fate ``ok`` is stored,
  ``8`` and ``7`` were answered with that error, ``void`` was discarded by a connection that is half-open.
* ``{"e": "receipt", "i": index}``: the true receipt of that send was written to the socket.

The control port takes a JSON object a line and answers each with one:

* ``{"do": "arm", "step": S, "kind": K, …}``: break step S from now on; ``FarEnd`` and ``Producer`` list the faults.
* ``{"do": "heal"}``: end all faults; worker, stream and listener are back.
* ``{"do": "counts"}``: how often each fault has actually happened.
* ``{"do": "state", …}``: ``worker`` (``missing``, ``inactive``, ``active``), ``stream`` and ``listening`` (booleans).
* ``{"do": "drop"}``: reset the producer connections.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
import os
import random
import re
import secrets
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.faults.proxy import reset

OTP_MARK = "0TPm4rk"
"""Part of each one-time password, so that one search finds any of them."""

OTP_SECONDS = 10.0
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
TEXT, CLOSE, PING, PONG, CONTINUATION = 0x1, 0x8, 0x9, 0xA, 0x0
HTML = b"<html><head><title>Bad gateway</title></head><body><h1>Something went wrong</h1></body></html>"

STEPS = (
    ("worker", "GET", re.compile(r"/_fabric/[^/]+/_api/streamapps/[^/]+$")),
    ("create", "POST", re.compile(r"/_fabric/[^/]+/_api/streamapps$")),
    ("activate", "PATCH", re.compile(r"/_fabric/[^/]+/_api/streamapps/[^/]+/active$")),
    ("otp", "POST", re.compile(r"/apid/otp$")),
    ("datacenter", "GET", re.compile(r"/datacenter/local$")),
    ("cursor", "POST", re.compile(r"/_fabric/[^/]+/_api/cursor$")),
    ("upgrade", "GET", re.compile(r"/_ws/ws/v2/producer/persistent/[^/]+/[^/]+/[^/]+$")),
)

Fault = dict[str, Any]


class Request(NamedTuple):
    """One HTTP request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path


class FarEnd:
    """One tenant, one region, one worker.

    Faults of a REST step or the ``upgrade``, each with ``times`` (unlimited if not given): ``status`` (``status``,
    ``retry_after``), ``html`` (200), ``shape`` (JSON of another shape), ``slow`` (``seconds``), ``cut`` (within the
    body), ``reset``, and for the upgrade ``accept`` (the wrong key). Step ``otp`` also has ``expired`` and
    ``spent``: the password is not valid.

    Args:
        port: to listen on.
        public: ``host:port`` that clients are told to dial.
        journal: file to write to.
    """

    def __init__(self, *, port: int, api_key: str, tenant: str, public: str, journal: Path, seed: int) -> None:
        self._api_key = api_key
        self._tenant = tenant
        self._public = public
        self._journal = journal.open("a")
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: dict[str, list[Fault]] = {}
        """By step; those of step ``producer`` affect the socket."""
        self._worker: dict[str, Any] | None = None
        self.stream_exists = False
        self._was_active = False
        self._otps: dict[str, float] = {}
        """One-time passwords that were handed out and not used, with their expiry."""
        self._spent: dict[str, str] = {}
        """One-time passwords that are not valid, with the reason."""
        self._producers: dict[int, Producer] = {}
        self._connections = 0
        self.sends = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = port

    # --- the journal --------------------------------------------------------------------------------------

    def note(self, event: str, **members: Any) -> None:
        """Write down what happened."""
        self._journal.write(json.dumps({"t": round(time.monotonic(), 4), "e": event, **members}) + "\n")
        self._journal.flush()

    def happened(self, fault: str) -> None:
        """Count a fault that has happened."""
        self.counts[fault] += 1

    # --- listening ----------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Start listening, if not listening already."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=4 * 1024 * 1024)

    async def vanish(self) -> None:
        """Stop listening and reset every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.happened("down")
        for writer in list(self._writers):
            reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while request := await _read_request(reader):
                if not await self._answer(request, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the client went away, or doesn't speak HTTP
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; false if the connection is over."""
        matching = (name for name, method, path in STEPS if method == request.method and path.match(request.path))
        step = next(matching, "other")
        fault = self._due(step)
        if fault is not None:
            keep = await self._break(step, fault, request, writer)
            if keep is not None:
                return keep
        if step == "upgrade":
            await self._upgrade(request, reader, writer)
            return False
        status, body = self._respond(step, request)
        writer.write(_response(status, json.dumps(body).encode()))
        await writer.drain()
        return True

    def _due(self, step: str) -> Fault | None:
        """The fault that this step has now, counted down."""
        for fault in self.faults.get(step, ()):
            if fault.get("times") == 0 or self.rng.random() >= fault.get("share", 1.0):
                continue
            if "times" in fault:
                fault["times"] -= 1
            return fault
        return None

    async def _break(self, step: str, fault: Fault, request: Request, writer: asyncio.StreamWriter) -> bool | None:
        """Apply the fault. None: continue as without it; else whether the connection remains open."""
        kind = fault["kind"]
        if kind in ("expired", "spent"):
            return None  # handled where the password is created
        label = f"{step}.{kind}" + (f".{fault['status']}" if kind == "status" else "")
        if kind == "slow":
            await asyncio.sleep(fault["seconds"])
            self.happened(label)
            return None
        self.happened(label)
        if kind == "reset":
            reset(writer)
            return False
        if kind == "status":
            writer.write(self._refusal(fault, request))
        elif kind == "html":
            writer.write(_response(200, HTML, content_type="text/html"))
        elif kind == "shape":
            writer.write(_response(200, b'{"error": false, "code": 200, "unexpected": [1, 2, 3]}'))
        elif kind == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n" + b'{"er')
            await writer.drain()
            return False
        elif kind == "accept":
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: bm90IHRoZSByaWdodCBvbmU=\r\n\r\n"
            )
        await writer.drain()
        return True

    def _refusal(self, fault: Fault, request: Request) -> bytes:
        """An error with a body as gateways write it. It repeats the request, like debugging pages do."""
        status = fault["status"]
        headers = {"Retry-After": str(fault["retry_after"])} if "retry_after" in fault else {}
        echoed = f"{request.method} {request.target} with {request.headers.get('authorization', '')}"
        match self.rng.randrange(4):
            case 0:
                return _response(status, HTML, content_type="text/html", headers=headers)
            case 1:
                return _response(status, b"", headers=headers)
            case 2:
                body = {"code": status, "error": True, "message": f"refused: {echoed}", "serverId": "C8Apid"}
            case _:
                body = {"code": status, "error": True, "errorNum": status, "errorMessage": f"refused: {echoed}"}
        return _response(status, json.dumps(body).encode(), headers=headers)

    # --- REST ---------------------------------------------------------------------------------------------

    def _respond(self, step: str, request: Request) -> tuple[int, Any]:
        if request.headers.get("authorization") != f"apikey {self._api_key}":
            self.happened("unauthorized")
            return 401, {"error": True, "code": 401, "errorNum": 11, "errorMessage": "forbidden"}
        match step:
            case "worker":
                return self._worker_envelope(200) if self._worker else _missing("worker")
            case "create":
                return self._create(request)
            case "activate":
                return self._activate(request)
            case "otp":
                return 200, {"otp": self._new_otp()}
            case "datacenter":
                return 200, {"name": "here", "local": True, "tags": {"api": self._public, "url": self._public}}
            case "cursor":
                return 201, {"result": [self.sends], "hasMore": False, "error": False, "code": 201}
        return _missing("path")

    def _create(self, request: Request) -> tuple[int, Any]:
        if self._worker is not None:
            return 409, {"error": True, "code": 409, "errorNum": 409, "errorMessage": "it exists"}
        definition = json.loads(request.body)["definition"]
        name = re.search(r"@App:name\('([^']+)'\)", definition)
        self._worker = {
            "name": name[1] if name else "",
            "definition": definition,
            "regions": ["here"],
            "isActive": False,
        }
        return self._worker_envelope(201)

    def _activate(self, request: Request) -> tuple[int, Any]:
        if self._worker is None:
            return _missing("worker")
        self._worker["isActive"] = parse_qs(urlsplit(request.target).query).get("active") == ["true"]
        if self._worker["isActive"] and not self._was_active:
            self._was_active = self.stream_exists = True
        return self._worker_envelope(200)

    def _worker_envelope(self, status: int) -> tuple[int, Any]:
        assert self._worker is not None
        if not self._worker["isActive"]:
            self.happened("worker.shown_inactive")
        return status, {"error": False, "code": status, "streamApps": [self._worker]}

    def _new_otp(self) -> str:
        otp = f"{secrets.token_urlsafe(9)}/{OTP_MARK}+{secrets.token_urlsafe(9)}="
        self.note("otp", v=otp)
        fault = next((f for f in self.faults.get("otp", ()) if f["kind"] in ("expired", "spent")), None)
        if fault is not None:
            self._spent[otp] = f"otp.{fault['kind']}"
        else:
            self._otps[otp] = time.monotonic() + OTP_SECONDS
        return otp

    # --- the producer's upgrade ---------------------------------------------------------------------------

    async def _upgrade(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        refused = self._refused(request)
        if refused is not None:
            writer.write(refused)
            await writer.drain()
            return
        key = request.headers["sec-websocket-key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self._connections += 1
        number = self._connections
        otp = parse_qs(urlsplit(request.target).query).get("otp", [""])[0]
        producer = Producer(self, number, reader, writer, otp=otp)
        self._producers[number] = producer
        self.note("open", c=number)
        try:
            why = await producer.run()
        except (OSError, asyncio.IncompleteReadError) as exc:
            why = producer.ended or f"the client went: {type(exc).__name__}"
        finally:
            del self._producers[number]
        self.note("end", c=number, why=why)

    def _refused(self, request: Request) -> bytes | None:
        split = urlsplit(request.target)
        otp = parse_qs(split.query).get("otp", [""])[0]
        expires = self._otps.pop(otp, None)
        if expires is None or expires < time.monotonic():
            why = self._spent.get(otp, "otp.unknown" if expires is None else "otp.late")
            self.happened(why)
            return _response(401, f"Failed to authenticate {request.target}".encode(), content_type="text/plain")
        self._spent[otp] = "otp.reused"
        tenant, namespace, topic = split.path.split("/")[-3:]
        if (tenant, namespace) != (self._tenant, "c8local._system") or not topic.startswith("c8locals."):
            self.happened("upgrade.wrong_path")
            return _response(403, b"Not authorized", content_type="text/plain")
        if not self.stream_exists:
            self.happened("stream.missing")
            return _response(404, b"Topic not found", content_type="text/plain")
        return None

    # --- control ------------------------------------------------------------------------------------------

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One control connection."""
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._do(json.loads(line))).encode() + b"\n")
                await writer.drain()
        finally:
            writer.close()

    async def _do(self, command: dict[str, Any]) -> Any:
        match command.pop("do"):
            case "counts":
                return self.counts
            case "arm":
                self._arm(command)
            case "heal":
                await self._heal()
            case "state":
                await self._set_state(command)
            case "drop":
                for producer in list(self._producers.values()):
                    producer.end("dropped by command", by_reset=True)
        return {}

    def _arm(self, fault: dict[str, Any]) -> None:
        step = fault["step"]
        self.faults.setdefault(step, []).append(fault)
        if step == "producer" and fault["kind"] in ("stall", "half_open"):
            for producer in self._producers.values():
                producer.silence(fault)

    async def _heal(self) -> None:
        self.faults.clear()
        self.stream_exists = self._was_active
        if self._worker is not None:
            self._worker["isActive"] = self._was_active
        for producer in list(self._producers.values()):
            producer.heal()
        await self.listen()

    async def _set_state(self, state: dict[str, Any]) -> None:
        if state.get("worker") == "missing":
            self._worker = None
        elif self._worker is not None and "worker" in state:
            self._worker["isActive"] = state["worker"] == "active"
        if "stream" in state:
            self.stream_exists = state["stream"]
            if not self.stream_exists:
                for producer in list(self._producers.values()):
                    producer.close(1000, "topic was deleted")
        if state.get("listening") is False:
            await self.vanish()
        elif state.get("listening") is True:
            await self.listen()


RECEIPT_FAULTS = ("lost", "unknown_context", "no_context", "not_json", "late", "shuffled", "twice", "fragmented")
"""The faults of a producer that change a receipt, in the order in which they are tried."""


class Producer:
    """One producer connection.

    Faults of step ``producer``, each with the ``share`` of sends affected (1 if not given): ``lost`` (no receipt;
    with ``close_after`` the connection is closed after so many), ``late`` (``seconds``), ``shuffled``, ``twice``,
    ``unknown_context``, ``no_context``, ``fragmented``, ``not_json``, ``error8``, ``error7``. Those that end the
    connection, after ``sends`` of them: ``close`` (``code``), ``reset``, ``truncated``. And ``idle_close``
    (``seconds``), ``stall`` (``seconds``: reads nothing), ``half_open`` (never answers anything again).
    """

    def __init__(
        self, far_end: FarEnd, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, otp: str
    ) -> None:
        self._far_end = far_end
        self._number = number
        self._reader = reader
        self._writer = writer
        self._otp = otp
        self._buffer = bytearray()
        self._taken = 0
        self._lost = 0
        self._held: list[tuple[str, int | None]] = []
        self._stalled_until = 0.0
        self._dead = False
        self.ended: str | None = None
        """Why this side ended the connection."""

    def _fault(self, kind: str) -> Fault | None:
        """The armed fault of this kind, if it applies now."""
        for fault in self._far_end.faults.get("producer", ()):
            if fault["kind"] == kind and self._far_end.rng.random() < fault.get("share", 1.0):
                return fault
        return None

    async def run(self) -> str:
        """Serve until it is over; returns why."""
        for kind in ("stall", "half_open"):
            fault = self._fault(kind)
            if fault is not None:
                self.silence(fault)
        while self.ended is None:
            data = await self._read()
            if data is None:
                continue
            if not data:
                return self.ended or "the client closed"
            while self._stalled_until > time.monotonic():
                await asyncio.sleep(0.1)
            self._buffer += data
            for opcode, payload in self._frames():
                if self.ended is None:
                    self._take(opcode, payload)
            self._release_held()
            await self._writer.drain()
        return self.ended

    async def _read(self) -> bytes | None:
        """The bytes received; empty at the end of the connection, None if there are none yet."""
        stalled = self._stalled_until - time.monotonic()
        if stalled > 0:
            await asyncio.sleep(min(stalled, 0.1))
            return None
        idle = self._fault("idle_close")
        try:
            return await asyncio.wait_for(self._reader.read(65536), idle["seconds"] if idle else 0.5)
        except TimeoutError:
            if idle and not self._dead:
                self._far_end.happened("producer.idle_close")
                self.close(1000, "idle")
            return None

    def silence(self, fault: Fault) -> None:
        """Stall or go half-open from now on."""
        if fault["kind"] == "half_open":
            self._dead = True
        else:
            self._far_end.happened("producer.stall")
            self._stalled_until = time.monotonic() + fault["seconds"]

    def heal(self) -> None:
        """End a stall; a half-open connection can't recover."""
        self._stalled_until = 0.0
        if self._dead:
            self.end("healed: half-open connections end", by_reset=True)

    def close(self, code: int, reason: str) -> None:
        """Send a close frame that repeats the request's secret, as careless gateways do, and close."""
        text = f"{reason} ?otp={self._otp}".encode()[:120]
        self._send_frame(CLOSE, code.to_bytes(2, "big") + text)
        self.end(f"closed with {code}")

    def end(self, why: str, *, by_reset: bool = False) -> None:
        """Close or reset the connection."""
        if self.ended is None:
            self.ended = why
            if by_reset:
                reset(self._writer)
            else:
                self._writer.close()

    def _frames(self) -> list[tuple[int, bytes]]:
        frames = []
        buffer = self._buffer
        at = 0
        while len(buffer) - at >= 2:
            size, start = buffer[at + 1] & 0x7F, at + 2
            if size == 126:
                size, start = int.from_bytes(buffer[start : start + 2], "big"), start + 2
            elif size == 127:
                size, start = int.from_bytes(buffer[start : start + 8], "big"), start + 8
            if start + 4 + size > len(buffer):
                break
            mask = (bytes(buffer[start : start + 4]) * (size // 4 + 1))[:size]
            masked = buffer[start + 4 : start + 4 + size]
            frames.append(
                (
                    buffer[at] & 0x0F,
                    (int.from_bytes(masked, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big"),
                )
            )
            at = start + 4 + size
        del buffer[:at]
        return frames

    def _take(self, opcode: int, payload: bytes) -> None:
        if self._dead:
            self._far_end.happened("producer.half_open")
            if opcode == TEXT:
                self._note_send(payload, fate="void")
            return
        if opcode == PING:
            self._send_frame(PONG, payload)
        elif opcode == CLOSE:
            self._send_frame(CLOSE, payload[:2])
            self.end("the client said goodbye")
        elif opcode == TEXT:
            self._take_send(payload)

    def _note_send(self, text: bytes, *, fate: str) -> tuple[int, str | None]:
        """Write the send to the journal; returns its index and its context."""
        far_end = self._far_end
        send = json.loads(text)
        payload = base64.b64decode(send["payload"], validate=True)
        far_end.sends += 1
        context = send.get("context")
        far_end.note(
            "got",
            c=self._number,
            i=far_end.sends,
            x=context,
            p=payload.decode("utf-8", "backslashreplace"),
            f=fate,
        )
        return far_end.sends, context

    def _take_send(self, text: bytes) -> None:
        far_end = self._far_end
        fate = "7" if self._fault("error7") else "8" if self._fault("error8") else "ok"
        try:
            index, context = self._note_send(text, fate=fate)
        except (ValueError, KeyError, TypeError, binascii.Error):
            far_end.happened("malformed_send")
            self._send_text(json.dumps({"result": "send-error:3", "errorMsg": "Could not de-serialize message"}))
            return
        self._taken += 1
        if fate != "ok":
            far_end.happened(f"producer.error{fate}")
            words = f"the broker can't, says ?otp={self._otp}"
            self._send_text(json.dumps({"result": f"send-error:{fate}", "errorMsg": words, "context": context}))
        else:
            self._receipt(index, context)
        self._end_if_due()

    def _receipt(self, index: int, context: str | None) -> None:
        """Answer a stored send, as the faults allow."""
        receipt = {"result": "ok", "messageId": _message_id(index)}
        true = json.dumps({**receipt, "context": context})
        for kind in RECEIPT_FAULTS:
            if fault := self._fault(kind):
                if kind != "shuffled":  # which may still be sent in order
                    self._far_end.happened(f"producer.{kind}")
                self._false_receipt(fault, receipt, true, index)
                return
        self._send_text(true, receipt_of=index)

    def _false_receipt(self, fault: Fault, receipt: dict[str, str], true: str, index: int) -> None:
        match fault["kind"]:
            case "lost":
                self._lost += 1
                if self._lost == fault.get("close_after"):
                    self.close(1011, "lost")
            case "unknown_context":
                self._send_text(json.dumps({**receipt, "context": self._far_end.rng.choice(("9" * 18, "x", "-1", ""))}))
            case "no_context":
                self._send_text(json.dumps(receipt))
            case "not_json":
                self._send_text('{"result": "ok", "context": ')
            case "late":
                asyncio.get_running_loop().call_later(fault["seconds"], self._send_late, true, index)
            case "shuffled":
                self._hold(true, index)
            case "twice":
                self._send_text(true, receipt_of=index)
                self._send_text(true)
            case "fragmented":
                self._send_in_two(true, index)

    def _hold(self, text: str, index: int) -> None:
        self._held.append((text, index))
        if len(self._held) == 1:
            # A single receipt is not held back for ever.
            asyncio.get_running_loop().call_later(0.3, self._release_held, True)

    def _send_in_two(self, text: str, index: int) -> None:
        half = len(text) // 2
        self._send_frame(TEXT, text[:half].encode(), final=False)
        self._send_frame(CONTINUATION, text[half:].encode())
        if self.ended is None and not self._writer.is_closing():
            self._note_receipt(index)

    def _send_late(self, text: str, index: int) -> None:
        if self.ended is None and not self._dead and not self._writer.is_closing():
            self._send_text(text, receipt_of=index)

    def _release_held(self, all_of_it: bool = False) -> None:
        if len(self._held) < 4 and not all_of_it:
            return
        order = [index for _, index in self._held]
        self._far_end.rng.shuffle(self._held)
        if order != [index for _, index in self._held]:
            self._far_end.happened("producer.shuffled")
        for text, index in self._held:
            self._send_text(text, receipt_of=index)
        self._held.clear()

    def _end_if_due(self) -> None:
        for fault in self._far_end.faults.get("producer", ()):
            if fault["kind"] not in ("close", "reset", "truncated") or self._taken < fault["sends"]:
                continue
            if self.ended is not None:
                return
            if fault["kind"] == "close":
                self._far_end.happened(f"producer.close.{fault['code']}")
                self.close(fault["code"], "as told")
            elif fault["kind"] == "reset":
                self._far_end.happened("producer.reset")
                self.end("reset", by_reset=True)
            else:
                self._far_end.happened("producer.truncated")
                frame = _frame(TEXT, b'{"result":"ok","messageId":"CAAQAw==","context":"1"}')
                self._writer.write(frame[: self._far_end.rng.randrange(1, len(frame))])
                self.end("a truncated frame")

    def _send_text(self, text: str, *, receipt_of: int | None = None) -> None:
        if self.ended is None and not self._writer.is_closing():
            self._send_frame(TEXT, text.encode())
            if receipt_of is not None:
                self._note_receipt(receipt_of)

    def _note_receipt(self, index: int) -> None:
        self._far_end.note("receipt", i=index)

    def _send_frame(self, opcode: int, payload: bytes, *, final: bool = True) -> None:
        if not self._writer.is_closing():
            self._writer.write(_frame(opcode, payload, final=final))


def _frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A server's frame: not masked."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)
    return bytes([opcode | (0x80 if final else 0)]) + length + payload


def _message_id(index: int) -> str:
    return base64.b64encode(b"\x08\x00\x10" + (index % 128).to_bytes(1, "big")).decode()


def _missing(what: str) -> tuple[int, Any]:
    return 404, {"error": True, "code": 404, "errorNum": 404, "errorMessage": f"no such {what}"}


def _response(
    status: int, body: bytes, *, content_type: str = "application/json", headers: dict[str, str] | None = None
) -> bytes:
    lines = [
        f"HTTP/1.1 {status} Status",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {}
    for line in lines:
        name, separator, value = line.partition(":")
        if separator:
            headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until killed."""
    far_end = FarEnd(
        port=arguments.port,
        api_key=os.environ["FAULTS_API_KEY"],
        tenant=os.environ["FAULTS_TENANT"],
        public=arguments.public,
        journal=arguments.journal,
        seed=arguments.seed,
    )
    if not arguments.down:
        await far_end.listen()
    control = await asyncio.start_server(far_end.control, "127.0.0.1", arguments.control)
    async with control:
        await control.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--public", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--down", action="store_true", help="don't listen before a command says so")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
