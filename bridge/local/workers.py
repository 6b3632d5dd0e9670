"""Stream workers: their REST endpoints (gdn-api.md B), and the processing of published rows."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from bridge.local.documents import Documents
from bridge.local.executor import Executor, NotExecutable
from bridge.local.faults import Faults, with_added_column
from bridge.local.regions import Regions
from bridge.local.rest import API, RequestRefused, answer, content, error
from bridge.local.streams import Streams, topic
from bridge.streamql import StreamQLError, Worker, input_streams, parse, require_metadata

ACTIVATION_SECONDS = 0.1
ATTACH_SECONDS = 0.2
"""From the activation until the worker reads its streams; it never gets what is published before."""
EVENTS_AT_A_TIME = 200
"""Processed before the event loop serves connections again."""


@dataclass
class RunningWorker:
    """A stream worker and its state."""

    worker: Worker
    executor: Executor
    regions: tuple[str, ...]
    active: bool = False
    attached: bool = False


class Workers:
    """All workers. Activating one creates its streams and collections; rows go from ``streams`` to ``documents``."""

    def __init__(self, regions: Regions, streams: Streams, documents: Documents, faults: Faults) -> None:
        # "lost" counts the messages that a fault dropped after their receipts.
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

    def apply_faults(self) -> None:
        """Apply the faults to the workers; call this when faults or workers have changed."""
        if self._faults.is_on("deleted"):
            self._workers.clear()
        for name, state in self._workers.items():
            if self._faults.is_on("worker-stopped"):
                state.active = state.attached = False
            if self._faults.is_on("schema-changed"):
                filled = {query.target or "" for query in state.worker.queries}
                definition = with_added_column(state.worker.text, unchanged=filled)
                with suppress(RequestRefused):  # this definition can't have the column
                    changed = self._prepare({"definition": definition}, state.regions)
                    changed.active, changed.attached = state.active, state.attached
                    self._workers[name] = changed

    async def run(self) -> None:
        """Process published events until cancelled."""
        while True:
            for _ in range(EVENTS_AT_A_TIME):
                self._process(*await self._streams.events.get())
            await asyncio.sleep(0)

    def _process(self, region: str, stream: str, payload: bytes) -> None:
        if self._faults.loses_next(stream):
            self.counts["lost"] += 1
            return
        for state in list(self._workers.values()):
            # The worker subscribes at Latest: it doesn't get what was published before it attached (gdn-api.md B).
            if state.attached and region in ("", *state.regions) and state.executor.reads(stream):
                self._execute(state.executor, stream, payload)

    def _execute(self, executor: Executor, stream: str, payload: bytes) -> None:
        try:
            for event in executor.events(stream, payload):
                if executor.accept(stream, event):
                    self.counts["executed"] += 1
                else:
                    self.counts["dropped"] += 1
        except Exception as exc:  # one bad event must not stop the others
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
        self.apply_faults()
        return _described(created, status=201)

    async def _put(self, request: web.Request) -> web.Response:
        found = self._find(request)
        changed = self._prepare(await content(request), found.regions)
        if changed.worker.name != found.worker.name:
            raise error(400, 400, "a stream worker can't be renamed")
        self._workers[changed.worker.name] = changed
        self.apply_faults()
        return _described(changed)

    async def _list(self, _request: web.Request) -> web.Response:
        return _described(*self._workers.values())

    async def _get(self, request: web.Request) -> web.Response:
        return _described(self._find(request))

    async def _activate(self, request: web.Request) -> web.Response:
        self._find(request)
        active = request.query.get("active") == "true"
        await asyncio.sleep(ACTIVATION_SECONDS)
        state = self._find(request)  # it may have been replaced or deleted during the sleep
        if active and not state.active:
            # Activating creates missing streams and collections (gdn-api.md B).
            for table in state.worker.tables.values():
                self._documents.add_collection(table.collection)
            for stream in input_streams(state.worker).values():
                self._streams.topics.add(topic(stream.name, stream.scope))
            asyncio.get_running_loop().call_later(ATTACH_SECONDS, self._attach, state)
        state.active = active
        state.attached = state.attached and active
        described = _described(state)
        self.apply_faults()
        return described

    def _attach(self, state: RunningWorker) -> None:
        state = self._workers.get(state.worker.name, state)  # a fault may have replaced it meanwhile
        state.attached = state.active

    async def _delete(self, request: web.Request) -> web.Response:
        state = self._find(request)
        state.active = state.attached = False
        del self._workers[state.worker.name]
        return answer(message=f"Stream worker `{state.worker.name}` deleted successfully.")

    def _prepare(self, body: Mapping[str, Any], regions: tuple[str, ...]) -> RunningWorker:
        """The worker in a request's body. ``regions`` are used if the body has none."""
        definition = body.get("definition")
        if not isinstance(definition, str):
            raise error(400, 400, "definition is missing")
        requested = body.get("regions") or ()
        regions = tuple(name for name in self._regions.names if name in requested or "*" in requested) or regions
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
    """The refusal of a definition with status 422, in GDN's recorded form (gdn-api.md B)."""
    place = f"@ Line: {line}. Position: {column}"
    return error(
        422, 422, f"Error: Error between {place} and {place}. Syntax error in application definition, {message}."
    )
