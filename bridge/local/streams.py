"""Streams, and the WebSocket producers that publish to them (gdn-api.md C)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import uuid
from collections import Counter
from typing import Any

from aiohttp import WSMsgType, web

from bridge.local.regions import Regions
from bridge.local.rest import API, FABRIC, answer, error
from bridge.streamql import StreamScope

MAX_FRAME = 1024 * 1024
"""Bytes, Pulsar's default (gdn-api.md C.5)."""
MAX_WAITING = 50_000
"""Events received and not yet processed; beyond it, producers wait for their receipts."""


class Streams:
    """All streams of a tenant. ``topics`` are their names with the prefix.

    ``events`` has what is published: the region (empty for a global stream), the stream and the payload.
    """

    def __init__(self, tenant: str, regions: Regions) -> None:
        self.topics: set[str] = set()
        self.events = asyncio.Queue[tuple[str, str, bytes]](MAX_WAITING)
        self.counts: dict[str, Counter[str]] = {"received": Counter(), "received_in": Counter()}  # by stream, by region
        self._tenant = tenant
        self._regions = regions
        self._sockets: dict[tuple[str, str], web.WebSocketResponse] = {}  # by topic and producer's name
        self._closing: list[asyncio.Task[bool]] = []
        self._entry = 0
        self.routes = [
            web.get(f"{API}/streams", self._list),
            web.post(f"{API}/streams/{{name}}", self._create),
            web.delete(f"{API}/streams/{{name}}", self._delete),
            web.get("/_ws/ws/v2/producer/persistent/{tenant}/{namespace}/{topic}", self._produce),
        ]

    def cut(self) -> None:
        """Close all producers' connections."""
        # Kept in an attribute because the event loop holds only weak references to tasks.
        self._closing = [asyncio.create_task(socket.close()) for socket in self._sockets.values()]

    async def _list(self, request: web.Request) -> web.Response:
        wanted = {"true": "c8globals.", "false": "c8locals."}.get(request.query.get("global", ""), "c8")
        result = [
            {"_key": t, "topic": t, "db": FABRIC, "local": t.startswith("c8locals."), "tenant": self._tenant, "type": 4}
            for t in sorted(self.topics)
            if t.startswith(wanted)
        ]
        return answer(result=result)

    async def _create(self, request: web.Request) -> web.Response:
        scope = StreamScope.GLOBAL if request.query.get("global") == "true" else StreamScope.LOCAL
        created = topic(request.match_info["name"], scope)
        if created in self.topics:
            raise error(409, 1210, "stream already exists")
        self.topics.add(created)
        return answer(202, result={"stream-id": created})

    async def _delete(self, request: web.Request) -> web.Response:
        if request.match_info["name"] not in self.topics:
            raise error(404, 100016, "stream not found")
        self.topics.remove(request.match_info["name"])
        return answer(202)

    async def _produce(self, request: web.Request) -> web.StreamResponse:
        """Serve a producer's WebSocket (gdn-api.md C.4, C.5)."""
        topic = request.match_info["topic"]
        namespace, _, name = topic.partition("s.")
        if request.match_info["tenant"] != self._tenant or request.match_info["namespace"] != f"{namespace}.{FABRIC}":
            return web.Response(status=403, text="Not authorized")
        if topic not in self.topics:
            return web.Response(status=404, text="Topic not found")
        producer = (topic, request.query.get("producerName") or str(uuid.uuid4()))
        if producer in self._sockets:
            return web.Response(status=409, text="A producer with this name is already connected")
        socket = web.WebSocketResponse(max_msg_size=MAX_FRAME, compress=False)
        region = self._regions.of(request) if namespace == "c8local" else ""
        self._sockets[producer] = socket
        try:
            await socket.prepare(request)
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_str(json.dumps(await self._take(region, name, message.data)))
        finally:
            del self._sockets[producer]
        return socket

    async def _take(self, region: str, stream: str, text: str) -> dict[str, Any]:
        """Receive one frame; returns the answer. ``region`` is empty for a global stream."""
        try:
            frame = json.loads(text)
        except (ValueError, RecursionError):
            return {"result": "send-error:3", "errorMsg": "Could not de-serialize message"}
        context = frame.get("context") if isinstance(frame, dict) else None
        named = {} if context is None else {"context": context}
        try:
            payload = base64.b64decode(frame["payload"], validate=True)
        except (KeyError, TypeError, binascii.Error, ValueError):
            return {"result": "send-error:7", "errorMsg": "Invalid Base64 message-payload", **named}
        await self.events.put((region, stream, payload))
        self._entry += 1
        self.counts["received"][stream] += 1
        self.counts["received_in"][region] += 1
        return {"result": "ok", "messageId": _message_id(self._entry), **named}


def topic(name: str, scope: StreamScope) -> str:
    """A stream's name with its prefix."""
    return f"c8{scope.value}s.{name}"


def _message_id(entry: int) -> str:
    """Base64 of a protobuf (ledger 0, entry n), like Pulsar's (gdn-api.md C.5)."""
    data = bytearray(b"\x08\x00\x10")
    while entry > 127:
        data.append(entry & 127 | 128)
        entry >>= 7
    data.append(entry)
    return base64.b64encode(data).decode()
