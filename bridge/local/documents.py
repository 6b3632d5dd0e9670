"""Collections of documents, and the endpoints for queries over them (gdn-api.md E)."""

from __future__ import annotations

import secrets
from collections import deque
from typing import Any

from aiohttp import web

from bridge.local.c8ql import C8QLError, run
from bridge.local.executor import EventError
from bridge.local.rest import API, answer, content, error

MAX_DOCUMENTS = 2_000_000


class Documents:
    """All collections, and the cursors with results not yet fetched."""

    def __init__(self) -> None:
        self._collections: dict[str, list[dict[str, Any]]] = {}
        self._inserted = 0
        self._cursors: dict[str, deque[Any]] = {}
        self.routes = [
            web.post(f"{API}/cursor", self._query),
            web.put(f"{API}/cursor/{{id}}", self._get_next_batch),
            web.delete(f"{API}/cursor/{{id}}", self._drop_cursor),
        ]

    def add_collection(self, name: str) -> None:
        """Create a collection if it doesn't exist."""
        self._collections.setdefault(name, [])

    def insert(self, collection: str, row: dict[str, Any]) -> None:
        """Add a document.

        Raises:
            EventError: the collection is full.
        """
        documents = self._collections.setdefault(collection, [])
        if len(documents) >= MAX_DOCUMENTS:
            raise EventError(f"collection {collection} is full: the local GDN's limit is {MAX_DOCUMENTS} documents")
        self._inserted += 1
        key = str(row.get("_key") or self._inserted)
        document = {name: _shown(value) for name, value in row.items()}
        documents.append({"_key": key, "_id": f"{collection}/{key}", "_rev": f"_{len(documents):x}", **document})

    async def _query(self, request: web.Request) -> web.Response:
        body = await content(request)
        query, bind_vars = body.get("query"), body.get("bindVars") or {}
        if not isinstance(query, str) or not isinstance(bind_vars, dict):
            raise error(400, 1502, "query is empty")
        try:
            result = run(query, bind_vars, self._collection)
        except C8QLError as exc:
            raise error(exc.status, exc.number, str(exc)) from exc
        size = body.get("batchSize", 100)
        size = min(size, 1000) if isinstance(size, int) and size > 0 else 100
        batches = deque([result[at : at + size] for at in range(0, len(result), size)] or [[]])
        counted = {"count": len(result)} if body.get("count") is True else {}
        first = self._next_batch(str(secrets.randbelow(10**9)), batches)
        return answer(201, **first, **counted, cached=False, extra={"warnings": []})

    async def _get_next_batch(self, request: web.Request) -> web.Response:
        cursor_id = request.match_info["id"]
        if not cursor_id.isdecimal():
            raise error(400, 400, "invalid cursor ID")
        return answer(**self._next_batch(cursor_id, self._take_cursor(cursor_id)))

    async def _drop_cursor(self, request: web.Request) -> web.Response:
        self._take_cursor(request.match_info["id"])
        return answer(202, id=request.match_info["id"])

    def _next_batch(self, cursor_id: str, batches: deque[Any]) -> dict[str, Any]:
        batch = {"result": batches.popleft(), "hasMore": bool(batches)}
        if not batches:
            return batch
        self._cursors[cursor_id] = batches
        return {**batch, "id": cursor_id}

    def _take_cursor(self, cursor_id: str) -> deque[Any]:
        if cursor_id not in self._cursors:
            raise error(404, 1600, "cursor not found")
        return self._cursors.pop(cursor_id)

    def _collection(self, name: str) -> list[dict[str, Any]]:
        if name not in self._collections:
            raise C8QLError(f"C8QL: collection or view not found: {name} (while parsing)", number=1203, status=404)
        return self._collections[name]


def _shown(value: Any) -> Any:
    """A number as GDN prints it: 18, not 18.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
