"""Stream workers: their REST endpoints (gdn-api.md B), and the rows that they work on."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from bridge.local.documents import Documents
from bridge.local.executor import Executor, NotExecutable
from bridge.local.faults import Faults, with_other_schema
from bridge.local.regions import Regions
from bridge.local.rest import API, RequestRefused, answer, content, error
from bridge.local.streams import Streams, topic
from bridge.streamql import StreamQLError, Worker, input_streams, parse, require_metadata

ACTIVATION_SECONDS = 0.1
ATTACH_SECONDS = 0.2
"""After activating, until the worker reads; what is published before is lost to it."""
EVENTS_AT_A_TIME = 200
"""Worked on before connections get their turn."""


@dataclass
class RunningWorker:
    """A stream worker as it is served."""

    worker: Worker
    executor: Executor
    regions: tuple[str, ...]
    active: bool = False
    attached: bool = False


class Workers:
    """All workers. ``streams`` and ``documents`` get what an activation makes; rows go from the ones to the others."""

    def __init__(self, regions: Regions, streams: Streams, documents: Documents, faults: Faults) -> None:
        # Lost are messages that a fault took behind their receipts.
        self.counts: dict[str, Any] = {"executed": 0, "dropped": 0, "lost": 0, "errors": 0, "last_error": ""}
        self._regions = regions
        self._streams = streams
        self._documents = documents
        self._faults = faults
        self._workers: dict[str, RunningWorker] = {}
        apps = f"{API}/streamapps"
        self.routes = [
            web.post(f"{apps}/validate", self._validate),
            web.post(apps, self._create),
            web.get(apps, self._list),
            web.get(f"{apps}/{{name}}", self._get),
            web.put(f"{apps}/{{name}}", self._put),
            web.patch(f"{apps}/{{name}}/active", self._activate),
            web.delete(f"{apps}/{{name}}", self._delete),
        ]

    def play_faults(self) -> None:
        """Do to the workers what the faults say; to be called when faults have changed."""
        if self._faults.is_on("deleted"):
            self._workers.clear()
        for name, state in self._workers.items():
            if self._faults.is_on("worker-stopped"):
                state.active = state.attached = False
            if self._faults.is_on("schema-changed"):
                filled = {query.target or "" for query in state.worker.queries}
                definition = with_other_schema(state.worker.text, but=filled)
                with suppress(RequestRefused):  # the column can't be added there
                    changed = self._prepare({"definition": definition}, state.regions)
                    changed.active, changed.attached = state.active, state.attached
                    self._workers[name] = changed

    async def run(self) -> None:
        """Work on what is published, without end, in turns with everything else."""
        while True:
            for _ in range(EVENTS_AT_A_TIME):
                self._work(*await self._streams.events.get())
            await asyncio.sleep(0)

    def _work(self, region: str, stream: str, payload: bytes) -> None:
        if self._faults.is_on("acks-but-drops") or self._faults.loses_next():
            self.counts["lost"] += 1
            return
        for state in list(self._workers.values()):
            # The worker subscribes at Latest: what came before it attached is not for it (gdn-api.md B).
            if state.attached and region in ("", *state.regions) and state.executor.reads(stream):
                self._execute(state.executor, stream, payload)

    def _execute(self, executor: Executor, stream: str, payload: bytes) -> None:
        try:
            events = json.loads(payload)
            for event in events if isinstance(events, list) else [events]:
                if executor.accept(stream, event):
                    self.counts["executed"] += 1
                else:
                    self.counts["dropped"] += 1
        except Exception as exc:  # whatever one event does, the next gets its turn
            self.counts["errors"] += 1
            self.counts["last_error"] = f"{stream}: {exc}"
            print(f"local GDN: an event of stream {stream} was dropped: {exc}", file=sys.stderr)

    async def _validate(self, request: web.Request) -> web.Response:
        self._prepare(await content(request), ())
        return answer(message="Stream application definition is valid.")

    async def _create(self, request: web.Request) -> web.Response:
        created = self._prepare(await content(request), (self._regions.of(request),))
        if created.worker.name in self._workers:
            raise error(409, 409, f"Stream worker `{created.worker.name}` already exists.")
        self._workers[created.worker.name] = created
        self.play_faults()
        return _described(created, status=201)

    async def _put(self, request: web.Request) -> web.Response:
        found = self._find(request)
        changed = self._prepare(await content(request), found.regions)
        if changed.worker.name != found.worker.name:
            raise error(400, 400, "a stream worker can't be renamed")
        self._workers[changed.worker.name] = changed
        self.play_faults()
        return _described(changed)

    async def _list(self, _request: web.Request) -> web.Response:
        return _described(*self._workers.values())

    async def _get(self, request: web.Request) -> web.Response:
        return _described(self._find(request))

    async def _activate(self, request: web.Request) -> web.Response:
        self._find(request)
        active = request.query.get("active") == "true"
        await asyncio.sleep(ACTIVATION_SECONDS)
        state = self._find(request)  # it may have been replaced or deleted meanwhile
        if active and not state.active:
            # Activating makes the streams and collections that are missing (gdn-api.md B).
            for table in state.worker.tables.values():
                self._documents.add_collection(table.collection)
            for stream in input_streams(state.worker).values():
                self._streams.topics.add(topic(stream.name, stream.scope))
            asyncio.get_running_loop().call_later(ATTACH_SECONDS, self._attach, state)
        state.active = active
        state.attached = state.attached and active
        described = _described(state)
        self.play_faults()
        return described

    def _attach(self, state: RunningWorker) -> None:
        state = self._workers.get(state.worker.name, state)  # by a fault it has another definition by now
        state.attached = state.active

    async def _delete(self, request: web.Request) -> web.Response:
        state = self._find(request)
        state.active = state.attached = False
        del self._workers[state.worker.name]
        return answer(message=f"Stream worker `{state.worker.name}` deleted successfully.")

    def _prepare(self, body: Mapping[str, Any], regions: tuple[str, ...]) -> RunningWorker:
        """A worker, in these regions where the body names none."""
        definition = body.get("definition")
        if not isinstance(definition, str):
            raise error(400, 400, "definition is missing")
        asked = body.get("regions") or ()
        regions = tuple(name for name in self._regions.names if name in asked or "*" in asked) or regions
        if not re.search(r"@app:qlVersion\s*\(\s*['\"]2['\"]", definition, re.IGNORECASE):
            raise _unreadable(1, 0, "mismatched input expecting {'@', DEFINE, UNEXPECTED_CHAR}")
        try:
            worker = parse(definition)
            require_metadata(worker)
            return RunningWorker(worker, Executor(worker, self._documents.insert), regions)
        except StreamQLError as exc:
            raise _unreadable(exc.line, exc.column, exc.message) from exc
        except NotExecutable as exc:
            raise _unreadable(exc.place.line, exc.place.column, str(exc)) from exc

    def _find(self, request: web.Request) -> RunningWorker:
        name = request.match_info["name"]
        if name not in self._workers:
            raise error(404, 404, f"Stream worker {name[:80]!a} not found")
        return self._workers[name]


def _described(*states: RunningWorker, status: int = 200) -> web.Response:
    apps = [
        {"name": s.worker.name, "definition": s.worker.text, "regions": s.regions, "isActive": s.active} for s in states
    ]
    return answer(status, streamApps=apps)


def _unreadable(line: int, column: int, message: str) -> RequestRefused:
    """422 in the recorded form (gdn-api.md B)."""
    place = f"@ Line: {line}. Position: {column}"
    return error(
        422, 422, f"Error: Error between {place} and {place}. Syntax error in application definition, {message}."
    )
