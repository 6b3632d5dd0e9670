"""The bridge's REST calls to GDN: stream workers, one-time passwords, regions, queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from bridge.errors import GdnError, GdnRejected, GdnUnavailable
from bridge.gdn.address import api_host, encoded, fabric_path
from bridge.gdn.answers import ErrorNumber, safe
from bridge.gdn.client import Client, Request

CURSOR_LIMIT = 10 * 1024 * 1024
"""Maximum bytes of an answer with rows."""
MAX_EMPTY_BATCHES = 5
"""A cursor may return an empty batch and still have more (gdn-api.md E); after this many in a row it is broken."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A stream worker in GDN (gdn-api.md B)."""

    name: str
    definition: str
    regions: tuple[str, ...]
    is_active: bool


@dataclass(frozen=True, slots=True)
class Datacenter:
    """A region. Which region "local" means may change: ask again before every connect (gdn-api.md D)."""

    name: str
    api_host: str


class GdnRest(Client):
    """The REST calls. Every method raises the errors of ``Client``."""

    one_time_passwords = 0
    """How many were requested. Written under ``_lock``; any thread may read it."""

    # --- stream workers ------------------------------------------------------------------------------------

    def get_worker(self, name: str, *, check: bool = False) -> WorkerState | None:
        """The worker; None: there is none, or none that the user may see.

        Args:
            name: of the worker.
            check: whether this is for a health check: see ``Budget.take``.
        """
        try:
            states = self._workers(Request("GET", self._worker_path(name), check=check))
        except GdnRejected as refused:
            if _is_missing(refused):
                return None
            raise
        return next((state for state in states if state.name == name), None)

    def create_worker(self, definition: str, regions: Sequence[str] = ()) -> WorkerState:
        """Create an inactive worker; its name is in the definition. Without regions it runs in the one that answers.

        Raises:
            GdnRejected: ``status`` is 409: it exists already; 422: GDN can't parse the definition.
        """
        body = {"definition": definition, "regions": list(regions)}
        return self._worker(Request("POST", fabric_path(self._fabric, "streamapps"), json=body))

    def update_worker(self, name: str, definition: str, regions: Sequence[str]) -> WorkerState:
        """Replace definition and regions. Only for an inactive worker: GDN doesn't document what happens to an active
        one (gdn-api.md B).

        Raises:
            GdnRejected: ``status`` is 404: there is no such worker; 422: GDN can't parse the definition.
        """
        body = {"definition": definition, "regions": list(regions)}
        return self._worker(Request("PUT", self._worker_path(name), json=body))

    def validate(self, definition: str) -> None:
        """Have GDN parse a definition; changes nothing.

        Raises:
            GdnRejected: ``status`` is 422: GDN can't parse it; the message says where.
        """
        path = fabric_path(self._fabric, "streamapps", "validate")
        self._call(Request("POST", path, json={"definition": definition}))

    def set_active(self, name: str, active: bool) -> None:
        """Activate or deactivate the worker. GDN takes seconds, and its inputs attach even later (gdn-api.md B)."""
        path = f"{self._worker_path(name)}/active"
        self._call(Request("PATCH", path, params={"active": "true" if active else "false"}))

    def delete_worker(self, name: str) -> bool:
        """Delete the worker, active or not; False: there was none. Its collections and streams are kept."""
        try:
            self._send(Request("DELETE", self._worker_path(name)))
        except GdnRejected as refused:
            if _is_missing(refused):
                return False
            raise
        return True

    def _worker_path(self, name: str) -> str:
        return fabric_path(self._fabric, "streamapps", name)

    def _worker(self, request: Request) -> WorkerState:
        workers = self._workers(request)
        if not workers:
            raise GdnUnavailable(f"{request.place}: the answer has no worker")
        return workers[0]

    def _workers(self, request: Request) -> list[WorkerState]:
        """The workers in the answer, which is always an array (gdn-api.md B)."""
        found = self._call(request).get("streamApps")
        if not isinstance(found, list):
            raise GdnUnavailable(f"{request.place}: the answer has no streamApps")
        workers = []
        for item in found:
            match item:
                case {"name": str(name), "definition": str(definition), "isActive": bool(is_active)}:
                    regions = item.get("regions")
                    names = tuple(str(region) for region in regions) if isinstance(regions, list) else ()
                    workers.append(WorkerState(name=name, definition=definition, regions=names, is_active=is_active))
                case _:
                    raise GdnUnavailable(
                        f"{request.place}: the answer has a worker without name, definition or isActive"
                    )
        return workers

    # --- links ---------------------------------------------------------------------------------------------

    def otp(self) -> str:
        """A one-time password for the next WebSocket connect, valid for seconds (gdn-api.md A.4). A secret."""
        with self._lock:
            self.one_time_passwords += 1
        otp = self._call(Request("POST", "/apid/otp")).get("otp")
        if not isinstance(otp, str) or not otp:
            raise GdnUnavailable("POST /apid/otp: the answer has no otp")
        return otp

    def local_datacenter(self) -> Datacenter:
        """The region that answers now (gdn-api.md D)."""
        return self.datacenter("local")

    def datacenter(self, name: str) -> Datacenter:
        """The region with this name (gdn-api.md D).

        Raises:
            GdnRejected: ``status`` is 404: there is none.
        """
        if name in {"", ".", ".."}:  # an HTTP client resolves dots away
            raise GdnRejected(f"{name!r} is not the name of a region", status=HTTPStatus.NOT_FOUND)
        request = Request("GET", f"/datacenter/{encoded(name)}")
        answer = self._call(request)
        found, tags = answer.get("name"), answer.get("tags")
        if not isinstance(found, str) or not isinstance(tags, dict):
            raise GdnUnavailable(f"{request.place}: the answer has no name or no tags")
        try:
            host = api_host(api=_text_or_none(tags.get("api")), url=_text_or_none(tags.get("url")))
        except ValueError as wrong:
            raise GdnUnavailable(f"{request.place}: {wrong}") from wrong
        return Datacenter(name=safe(found), api_host=host)

    def tenant(self) -> str:
        """The tenant of the credentials (gdn-api.md A.2)."""
        users = self._call(Request("GET", "/_api/user")).get("result")
        match users:
            case [{"tenant": str(tenant)}, *_] if tenant not in {"", ".", ".."}:  # an HTTP client resolves dots away
                return tenant
        raise GdnUnavailable("GET /_api/user: the answer has no tenant")

    # --- queries -------------------------------------------------------------------------------------------

    def query(
        self,
        c8ql: str,
        bind_vars: Mapping[str, Any] | None = None,
        *,
        batch_size: int = 100,
        max_rows: int = 1000,
        check: bool = False,
    ) -> list[Any]:
        """The first ``max_rows`` rows of a query, in as many batches as necessary (gdn-api.md E).

        Each batch counts as a request, and so does deleting a cursor that isn't read to its end. ``check``: whether
        this is for a health check, see ``Budget.take``.
        """
        path = fabric_path(self._fabric, "cursor")
        body = {"query": c8ql, "bindVars": dict(bind_vars or {}), "batchSize": batch_size}
        request = Request("POST", path, json=body, limit=CURSOR_LIMIT, check=check)
        answer = self._call(request)
        rows = _batch(answer, place=request.place)
        empty = 0
        while answer.get("hasMore") is True:
            cursor = answer.get("id")
            if not isinstance(cursor, str) or cursor in {"", ".", ".."}:  # an HTTP client resolves dots away
                raise GdnUnavailable(f"POST {path}: the answer has hasMore, but no cursor id")
            request = Request("PUT", f"{path}/{encoded(cursor)}", limit=CURSOR_LIMIT, check=check)
            if len(rows) >= max_rows:
                self._delete_cursor(request)
                break
            answer = self._call(request)
            batch = _batch(answer, place=request.place)
            empty = 0 if batch else empty + 1
            if empty == MAX_EMPTY_BATCHES:
                self._delete_cursor(request)
                raise GdnUnavailable(f"{request.place}: {empty} empty batches in a row")
            rows.extend(batch)
        return rows[:max_rows]

    def _delete_cursor(self, cursor: Request) -> None:
        try:
            self._send(Request("DELETE", cursor.path, check=cursor.check))
        except GdnError:
            return  # GDN deletes it after 30 s; the rows are already here


def _is_missing(refused: GdnRejected) -> bool:
    """Whether this thing doesn't exist, although its fabric does."""
    return refused.status == HTTPStatus.NOT_FOUND and refused.error_number != ErrorNumber.FABRIC_NOT_FOUND


def _batch(answer: Mapping[str, Any], *, place: str) -> list[Any]:
    rows = answer.get("result")
    if not isinstance(rows, list):
        raise GdnUnavailable(f"{place}: the answer has no result")
    return rows


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
