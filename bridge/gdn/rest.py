"""What the bridge asks GDN for over REST: stream workers, one-time passwords, regions, queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.errors import GdnError, GdnRejected, GdnUnavailable
from bridge.gdn.address import api_host, encoded, fabric_path
from bridge.gdn.answers import safe
from bridge.gdn.client import Client, Request

CURSOR_LIMIT = 10 * 1024 * 1024
MAX_EMPTY_BATCHES = 5
"""A cursor may give an empty batch and still have more (gdn-api.md E); one that only does so is broken."""

_NO_FABRIC = "database not found"


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A stream worker as GDN has it (gdn-api.md B)."""

    name: str
    definition: str
    regions: tuple[str, ...]
    is_active: bool


@dataclass(frozen=True, slots=True)
class Datacenter:
    """The region that answered. It may be another next time: ask again before every connect (gdn-api.md D)."""

    name: str
    api_host: str


class GdnRest(Client):
    """The REST calls the bridge makes. Every method raises as ``Client`` says."""

    one_time_passwords = 0
    """How often one was asked for. Written under ``_lock``; any thread may read it."""

    # --- stream workers ------------------------------------------------------------------------------------

    def get_worker(self, name: str, *, check: bool = False) -> WorkerState | None:
        """The worker, or None where there is none (or none that the key's user may see).

        Args:
            name: The worker's.
            check: Whether a health check asks: see ``Budget.take``.
        """
        try:
            states = self._workers(Request("GET", self._worker_path(name), check=check))
        except GdnRejected as refused:
            if _is_missing(refused):
                return None
            raise
        return next((state for state in states if state.name == name), None)

    def create_worker(self, definition: str, regions: Sequence[str] = ()) -> WorkerState:
        """Create an inactive worker; its name stands in the definition. No regions: the one that answers.

        Raises:
            GdnRejected: with ``status`` 409 it exists already, with 422 GDN can't parse the definition.
        """
        body = {"definition": definition, "regions": list(regions)}
        return self._worker(Request("POST", fabric_path(self._fabric, "streamapps"), json=body))

    def update_worker(self, name: str, definition: str, regions: Sequence[str]) -> WorkerState:
        """Replace the definition and where it runs. Only while the worker isn't active: what GDN does to an active one
        isn't documented (gdn-api.md B).

        Raises:
            GdnRejected: with ``status`` 404 there is no such worker, with 422 GDN can't parse the definition.
        """
        body = {"definition": definition, "regions": list(regions)}
        return self._worker(Request("PUT", self._worker_path(name), json=body))

    def validate(self, definition: str) -> None:
        """Have GDN parse a definition; nothing is changed.

        Raises:
            GdnRejected: with ``status`` 422 GDN can't parse it; the text says where.
        """
        path = fabric_path(self._fabric, "streamapps", "validate")
        self._call(Request("POST", path, json={"definition": definition}))

    def set_active(self, name: str, active: bool) -> None:
        """Publish or unpublish the worker. GDN takes seconds; its inputs attach later still (gdn-api.md B)."""
        path = f"{self._worker_path(name)}/active"
        self._call(Request("PATCH", path, params={"active": "true" if active else "false"}))

    def delete_worker(self, name: str) -> bool:
        """Delete the worker, active or not. False: there was none. Its collections and streams stay."""
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
            raise GdnUnavailable(f"{request.place}: the answer holds no worker")
        return workers[0]

    def _workers(self, request: Request) -> list[WorkerState]:
        """The workers in the answer's envelope: always an array (gdn-api.md B)."""
        found = self._call(request).get("streamApps")
        if not isinstance(found, list):
            raise GdnUnavailable(f"{request.place}: the answer holds no streamApps")
        workers = []
        for item in found:
            match item:
                case {"name": str(name), "definition": str(definition), "isActive": bool(is_active)}:
                    regions = item.get("regions")
                    names = tuple(str(region) for region in regions) if isinstance(regions, list) else ()
                    workers.append(WorkerState(name=name, definition=definition, regions=names, is_active=is_active))
                case _:
                    raise GdnUnavailable(
                        f"{request.place}: the answer holds a worker without name, definition and isActive"
                    )
        return workers

    # --- links ---------------------------------------------------------------------------------------------

    def otp(self) -> str:
        """A one-time password for the next WebSocket connect; it lives for seconds (gdn-api.md A.4). A secret."""
        with self._lock:
            self.one_time_passwords += 1
        otp = self._call(Request("POST", "/apid/otp")).get("otp")
        if not isinstance(otp, str) or not otp:
            raise GdnUnavailable("POST /apid/otp: the answer holds no otp")
        return otp

    def local_datacenter(self) -> Datacenter:
        """The region that answers now (gdn-api.md D)."""
        return self.datacenter("local")

    def datacenter(self, name: str) -> Datacenter:
        """The region of that name (gdn-api.md D).

        Raises:
            GdnRejected: with ``status`` 404 there is none.
        """
        if name in {"", ".", ".."}:  # dots would leave the path
            raise GdnRejected(f"{name!r} is no region's name", status=404)
        request = Request("GET", f"/datacenter/{encoded(name)}")
        answer = self._call(request)
        found, tags = answer.get("name"), answer.get("tags")
        if not isinstance(found, str) or not isinstance(tags, dict):
            raise GdnUnavailable(f"{request.place}: the answer holds no name and tags")
        try:
            host = api_host(api=_text_or_none(tags.get("api")), url=_text_or_none(tags.get("url")))
        except ValueError as wrong:
            raise GdnUnavailable(f"{request.place}: {wrong}") from wrong
        return Datacenter(name=safe(found), api_host=host)

    def tenant(self) -> str:
        """The tenant that the key belongs to (gdn-api.md A.2)."""
        users = self._call(Request("GET", "/_api/user")).get("result")
        match users:
            case [{"tenant": str(tenant)}, *_] if tenant not in {"", ".", ".."}:  # dots would leave a path
                return tenant
        raise GdnUnavailable("GET /_api/user: the answer holds no tenant")

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
        """The first ``max_rows`` rows of a query, asking for further batches as needed (gdn-api.md E).

        Each batch is one request of the quota; so is giving back a cursor that isn't read to its end. ``check``:
        whether a health check asks, see ``Budget.take``.
        """
        path = fabric_path(self._fabric, "cursor")
        body = {"query": c8ql, "bindVars": dict(bind_vars or {}), "batchSize": batch_size}
        request = Request("POST", path, json=body, limit=CURSOR_LIMIT, check=check)
        answer = self._call(request)
        rows = _batch(answer, place=request.place)
        empty = 0
        while answer.get("hasMore") is True:
            cursor = answer.get("id")
            if not isinstance(cursor, str) or cursor in {"", ".", ".."}:  # dots would leave the path
                raise GdnUnavailable(f"POST {path}: the answer says hasMore and holds no cursor id")
            request = Request("PUT", f"{path}/{encoded(cursor)}", limit=CURSOR_LIMIT, check=check)
            if len(rows) >= max_rows:
                self._give_back(request)
                break
            answer = self._call(request)
            batch = _batch(answer, place=request.place)
            empty = 0 if batch else empty + 1
            if empty == MAX_EMPTY_BATCHES:
                self._give_back(request)
                raise GdnUnavailable(f"{request.place}: {empty} empty batches one after another")
            rows.extend(batch)
        return rows[:max_rows]

    def _give_back(self, cursor: Request) -> None:
        try:
            self._send(Request("DELETE", cursor.path, check=cursor.check))
        except GdnError:
            return  # it ends by itself after its ttl, 30 s; the rows are what counts


def _is_missing(refused: GdnRejected) -> bool:
    """404 for this thing, rather than for a fabric that doesn't exist (1228, wrapped or not: gdn-api.md A.6)."""
    return refused.status == 404 and _NO_FABRIC not in str(refused)


def _batch(answer: Mapping[str, Any], *, place: str) -> list[Any]:
    rows = answer.get("result")
    if not isinstance(rows, list):
        raise GdnUnavailable(f"{place}: the answer holds no result")
    return rows


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
