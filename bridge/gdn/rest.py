"""GDN over REST: stream workers, one-time passwords, the nearest datacenter, queries. The only user of requests.

May be called from any thread: each gets a session of its own. What goes wrong comes out as one of the
``GdnError``s, with GDN's own words in it and never the API key.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from bridge.errors import GdnAuthError, GdnError, GdnRejected, GdnUnavailable
from bridge.gdn.address import api_host, encoded, fabric_path
from bridge.gdn.bounds import BoundedPools
from bridge.gdn.budget import Budget
from bridge.gdn.login import Account, Tokens
from bridge.text import escaped
from bridge.timing import Deadline, Pace

SLOW_TIMEOUT = 30.0
"""Seconds for PATCH and DELETE at least: activating took 3.1 s when GDN was idle (gdn-api.md B)."""
RETRY_AFTER_CAP = 300.0
"""Seconds: a wrong or daily Retry-After must not keep the bridge silent for hours."""
ANSWER_LIMIT = 64 * 1024
CURSOR_LIMIT = 10 * 1024 * 1024
TEXT_LIMIT = 300
"""Characters of a foreign text that go into a message."""
MAX_EMPTY_BATCHES = 5
"""A cursor may give an empty batch and still have more (gdn-api.md E); one that only does so is broken."""
KEYS_KEPT = 8
"""Keys that are blotted out of messages: the one in use and those before it, which a late answer may repeat."""

MAX_DEPTH = 100
"""Levels of JSON in an answer: what goes deeper could be read, and then not be written or compared."""

_CHUNK = 16 * 1024
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


@dataclass(frozen=True, slots=True)
class _Answer:
    """A whole HTTP response; ``place`` is its method and path."""

    place: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class GdnRest:
    """The REST calls the bridge makes, on one fabric.

    Every method raises:
        GdnUnavailable: no connection, no answer in time, 429, 5xx, a redirect, an answer that isn't GDN's, or the
            budget is used up.
        GdnAuthError: 401 or 403.
        GdnRejected: any other 4xx.
    """

    def __init__(
        self,
        *,
        base_url: str,
        fabric: str,
        api_key: str,
        timeout: float = 10.0,
        ca_file: str | None = None,
        budget: Budget | None = None,
        keep: Callable[[str], object] = lambda _secret: None,
        session_factory: Callable[[], requests.Session] = requests.Session,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        base_url: As ``GdnAddress.base_url`` gives it.
        fabric: The fabric of workers and collections.
        api_key: ``<tenant>.<key id>.<secret>``.
        timeout: Seconds to connect, to get the next bytes, and for the whole body.
        ca_file: PEM file with the authorities to trust; None: those of the ``certifi`` package.
        budget: Each request is taken from it; None: there is no limit.
        keep: Told each token that GDN gave, to keep it out of the log.
        session_factory: Makes one session per thread.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch, for a Retry-After that is a date.
        """
        self._base_url = base_url
        self._fabric = fabric
        self._keys: tuple[str, ...] = (api_key,)  # swapped whole: the one in use first, then those before it
        self._other_secrets: tuple[str, ...] = ()  # swapped whole: passwords and tokens, the newest first
        self._logs_in = False
        self._keep = keep
        self._tokens = Tokens(self._log_in, clock=clock, wall_clock=wall_clock)
        self._timeout = timeout
        self._ca_file = ca_file
        self.budget = budget or Budget(per_minute=0, per_day=0)
        self._session_factory = session_factory
        self._clock = clock
        self._wall_clock = wall_clock
        self._local = threading.local()
        self._lock = threading.Lock()
        self.one_time_passwords = 0
        """How often one was asked for. Under ``_lock``; any thread may read it."""
        self._sessions: WeakSet[requests.Session] = WeakSet()  # under _lock; weak, as threads come and go

    def use_key(self, api_key: str) -> None:
        """Send this key from the next request on. Any thread."""
        with self._lock:
            self._logs_in = False
            if api_key != self._keys[0]:
                self._keys = (api_key, *(key for key in self._keys if key != api_key))[:KEYS_KEPT]

    def use_account(self, account: Account) -> None:
        """Log in with a password from the next request on, as long as needed. Any thread."""
        self._blot_out(account.password)
        self._tokens.use(account)
        with self._lock:
            self._logs_in = True

    def authorization(self) -> str:
        """The value of the header ``Authorization`` (gdn-api.md A.2). A secret. May have to log in for it."""
        return f"bearer {self._tokens.token()}" if self._logs_in else f"apikey {self._key()}"

    def close(self) -> None:
        """Close the kept connections of all threads. A call after it opens new ones."""
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.close()

    # --- stream workers ------------------------------------------------------------------------------------

    def get_worker(self, name: str, *, check: bool = False) -> WorkerState | None:
        """The worker, or None where there is none (or none that the key's user may see).

        Args:
            name: The worker's.
            check: Whether a health check asks: see ``Budget.take``.
        """
        path = self._worker_path(name)
        try:
            envelope = self._call("GET", path, check=check)
        except GdnRejected as refused:
            if _is_missing(refused):
                return None
            raise
        states = _states(envelope, place=f"GET {path}")
        return next((state for state in states if state.name == name), None)

    def create_worker(self, definition: str, regions: Sequence[str] = ()) -> WorkerState:
        """Create an inactive worker; its name stands in the definition. No regions: the one that answers.

        Raises:
            GdnRejected: with ``status`` 409 it exists already, with 422 GDN can't parse the definition.
        """
        path = fabric_path(self._fabric, "streamapps")
        envelope = self._call("POST", path, json={"definition": definition, "regions": list(regions)})
        states = _states(envelope, place=f"POST {path}")
        if not states:
            raise GdnUnavailable(f"POST {path}: the answer holds no worker")
        return states[0]

    def update_worker(self, name: str, definition: str, regions: Sequence[str]) -> WorkerState:
        """Replace the definition and where it runs. Only while the worker isn't active: what GDN does to an active one
        isn't documented (gdn-api.md B).

        Raises:
            GdnRejected: with ``status`` 404 there is no such worker, with 422 GDN can't parse the definition.
        """
        path = self._worker_path(name)
        envelope = self._call("PUT", path, json={"definition": definition, "regions": list(regions)})
        states = _states(envelope, place=f"PUT {path}")
        if not states:
            raise GdnUnavailable(f"PUT {path}: the answer holds no worker")
        return states[0]

    def validate(self, definition: str) -> None:
        """Have GDN parse a definition; nothing is changed.

        Raises:
            GdnRejected: with ``status`` 422 GDN can't parse it; the text says where.
        """
        self._call("POST", fabric_path(self._fabric, "streamapps", "validate"), json={"definition": definition})

    def set_active(self, name: str, active: bool) -> None:
        """Publish or unpublish the worker. GDN takes seconds; its inputs attach later still (gdn-api.md B)."""
        path = f"{self._worker_path(name)}/active"
        self._call("PATCH", path, params={"active": "true" if active else "false"})

    def delete_worker(self, name: str) -> bool:
        """Delete the worker, active or not. False: there was none. Its collections and streams stay."""
        try:
            self._send("DELETE", self._worker_path(name))
        except GdnRejected as refused:
            if _is_missing(refused):
                return False
            raise
        return True

    # --- links ---------------------------------------------------------------------------------------------

    def otp(self) -> str:
        """A one-time password for the next WebSocket connect; it lives for seconds (gdn-api.md A.4). A secret."""
        with self._lock:
            self.one_time_passwords += 1
        otp = self._call("POST", "/apid/otp").get("otp")
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
        path = f"/datacenter/{encoded(name)}"
        place = f"GET {path}"
        answer = self._call("GET", path)
        found, tags = answer.get("name"), answer.get("tags")
        if not isinstance(found, str) or not isinstance(tags, dict):
            raise GdnUnavailable(f"{place}: the answer holds no name and tags")
        try:
            host = api_host(api=_text_or_none(tags.get("api")), url=_text_or_none(tags.get("url")))
        except ValueError as wrong:
            raise GdnUnavailable(f"{place}: {wrong}") from wrong
        return Datacenter(name=_safe(found), api_host=host)

    def tenant(self) -> str:
        """The tenant that the key belongs to (gdn-api.md A.2)."""
        users = self._call("GET", "/_api/user").get("result")
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
        request = {"query": c8ql, "bindVars": dict(bind_vars or {}), "batchSize": batch_size}
        answer = self._call("POST", path, json=request, limit=CURSOR_LIMIT, check=check)
        rows = _batch(answer, place=f"POST {path}")
        empty = 0
        while answer.get("hasMore") is True:
            cursor = answer.get("id")
            if not isinstance(cursor, str) or cursor in {"", ".", ".."}:  # dots would leave the path
                raise GdnUnavailable(f"POST {path}: the answer says hasMore and holds no cursor id")
            cursor_path = f"{path}/{encoded(cursor)}"
            if len(rows) >= max_rows:
                self._give_back(cursor_path, check=check)
                break
            answer = self._call("PUT", cursor_path, limit=CURSOR_LIMIT, check=check)
            batch = _batch(answer, place=f"PUT {cursor_path}")
            empty = 0 if batch else empty + 1
            if empty == MAX_EMPTY_BATCHES:
                self._give_back(cursor_path, check=check)
                raise GdnUnavailable(f"PUT {cursor_path}: {empty} empty batches one after another")
            rows.extend(batch)
        return rows[:max_rows]

    def _give_back(self, cursor_path: str, *, check: bool) -> None:
        try:
            self._send("DELETE", cursor_path, check=check)
        except GdnError:
            return  # it ends by itself after its ttl, 30 s; the rows are what counts

    # --- one exchange --------------------------------------------------------------------------------------

    def _worker_path(self, name: str) -> str:
        return fabric_path(self._fabric, "streamapps", name)

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
        limit: int = ANSWER_LIMIT,
        check: bool = False,
    ) -> dict[str, Any]:
        """Send, and the answer's JSON object."""
        answer = self._send(method, path, params=params, json=json, limit=limit, check=check)
        decoded = _decoded(answer.body)
        if not isinstance(decoded, dict):
            raise GdnUnavailable(
                self._redacted(f"{answer.place}: {answer.status} with {_described(answer)}, not GDN's JSON object")
            )
        return decoded

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
        limit: int = ANSWER_LIMIT,
        check: bool = False,
    ) -> _Answer:
        """One request and its whole answer, which is a 2xx; once more with a new token if the old one is refused."""
        authorization = self.authorization()
        answer = self._exchange(method, path, authorization, params=params, json=json, limit=limit, check=check)
        if answer.status == 401 and self._logs_in and self._tokens.refuse(authorization.partition(" ")[2]):
            again = self.authorization()
            answer = self._exchange(method, path, again, params=params, json=json, limit=limit, check=check)
        if 200 <= answer.status < 300:
            return answer
        raise self._refusal(answer)

    def _log_in(self, account: Account) -> str:
        answer = self._exchange("POST", "/_open/auth", None, json=account.body)
        if not 200 <= answer.status < 300:
            raise self._refusal(answer)
        decoded = _decoded(answer.body)
        token = decoded.get("jwt") if isinstance(decoded, dict) else None
        if not isinstance(token, str) or not token:
            raise GdnUnavailable(f"{answer.place}: {answer.status}, but the answer holds no jwt")
        self._blot_out(token)
        self._keep(token)
        return token

    def _exchange(
        self,
        method: str,
        path: str,
        authorization: str | None,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
        limit: int = ANSWER_LIMIT,
        check: bool = False,
    ) -> _Answer:
        """One request and its whole answer, whatever it is."""
        place = f"{method} {path}"
        timeout = max(SLOW_TIMEOUT, self._timeout) if method in {"PATCH", "DELETE"} else self._timeout
        session = self._session()
        # In each request's own header: a session outlives the key.
        headers = {} if authorization is None else {"Authorization": authorization}
        self.budget.take(check=check)
        try:
            with session.request(
                method,
                f"{self._base_url}{path}",
                params=params,
                json=json,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = self._read(response, place=place, limit=limit, timeout=timeout)
                return _Answer(place, response.status_code, response.headers, body)
        except requests.ConnectTimeout as exc:
            self.budget.give_back(check=check)
            raise self._unreachable(place, f"no connection within {timeout:g} s") from exc
        except requests.Timeout as exc:
            raise self._unreachable(place, f"no answer within {timeout:g} s") from exc
        # OSError: the CA file is gone or unreadable. HTTPError: some of urllib3's errors come through as they are.
        except (requests.RequestException, OSError, HTTPError) as exc:
            if _never_left(exc):
                self.budget.give_back(check=check)
            raise self._unreachable(place, _safe(str(_root(exc)) or type(_root(exc)).__name__)) from exc

    def _read(self, response: requests.Response, *, place: str, limit: int, timeout: float) -> bytes:
        deadline = Deadline(timeout, clock=self._clock)
        body = bytearray()
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in {"", "identity"}:  # a few bytes could unfold to gigabytes
            raise GdnUnavailable(
                f"{place}: {response.status_code} in the coding {_safe(coding)}, which wasn't asked for"
            )
        for chunk in response.iter_content(_CHUNK):
            body += chunk
            if len(body) > limit:
                raise GdnUnavailable(f"{place}: {response.status_code} with more than {limit} bytes; not read on")
            if not deadline.left():
                raise GdnUnavailable(f"{place}: {response.status_code}, but its body took over {timeout:g} s")
        return bytes(body)

    def _session(self) -> requests.Session:
        """This thread's session."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._session_factory()
            # The environment would bring in proxies, REQUESTS_CA_BUNDLE in place of ca_file, and a netrc
            # login in place of our header.
            session.trust_env = False
            session.verify = self._ca_file or True
            for scheme in ("https://", "http://"):
                session.mount(scheme, _Adapter())
            # It looks where a redirect leads even if it isn't to follow, and trips over what is no URL.
            session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]  # on this object alone
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # none is kept
            session.headers["Accept"] = "application/json"
            session.headers["Accept-Encoding"] = "identity"
            session.headers["User-Agent"] = "gdn-bridge"
            self._local.session = session
            with self._lock:
                self._sessions.add(session)
        return session

    def _key(self) -> str:
        key = self._keys[0]
        if not (key.isascii() and key.isprintable() and key):
            # requests would put the whole header into its own exception
            raise GdnAuthError("the API key is empty or holds a line break or a character outside ASCII; copy it again")
        return key

    # --- what a failure means ------------------------------------------------------------------------------

    def _unreachable(self, place: str, reason: str) -> GdnUnavailable:
        return GdnUnavailable(self._redacted(f"{place}: {self._base_url} can't be reached: {reason}"))

    def _refusal(self, answer: _Answer) -> GdnError:
        """The error for a status that isn't 2xx. The status decides; bodies vary (gdn-api.md A.6)."""
        status = answer.status
        decoded = _decoded(answer.body)
        said = _said(decoded) if isinstance(decoded, dict) else f", {_described(answer)}"
        request_id = answer.headers.get("x-gdn-requestid")
        trace = f" (request {_safe(request_id)})" if request_id else ""
        message = f"{answer.place}: {status}{said}{trace}"
        if status == 401:
            what = "gdn.email or gdn.username, gdn.password" if self._logs_in else "the API key"
            return GdnAuthError(self._redacted(f"{message}; check {what} and that it belongs to this tenant's GDN"))
        if status == 403:
            who = "the user" if self._logs_in else "the API key"
            return GdnAuthError(self._redacted(f"{message}; grant {who} {_right(answer.place, self._fabric)}"))
        if 300 <= status < 400:
            return GdnUnavailable(
                self._redacted(f"{message}; a redirect to {_target(answer)}, not followed: check the GDN URL")
            )
        if status == 429 or status >= 500:
            retry_after = seconds_to_wait(answer.headers.get("Retry-After"), now=self._wall_clock())
            pace = Pace.LIMITED if status == 429 else Pace.UNREACHABLE
            return GdnUnavailable(self._redacted(message), pace=pace, retry_after=retry_after)
        if answer.body and not isinstance(decoded, dict):
            # Some gateway or proxy speaks in GDN's place: its 404 says nothing about a worker.
            return GdnUnavailable(self._redacted(f"{message}; that isn't GDN's answer: check the GDN URL"))
        return GdnRejected(self._redacted(message), status=status)

    def _redacted(self, message: str) -> str:
        """Without the keys, should the far end have repeated one."""
        for key in sorted(filter(None, self._keys), key=len, reverse=True):
            message = message.replace(key, "[API key]")
        for secret in sorted(filter(None, self._other_secrets), key=len, reverse=True):
            message = message.replace(secret, "[secret]")
        return message

    def _blot_out(self, secret: str) -> None:
        with self._lock:
            if secret not in self._other_secrets[:1]:
                others = (secret, *(other for other in self._other_secrets if other != secret))
                self._other_secrets = others[: 2 * KEYS_KEPT]


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **named: Any) -> None:
        self.poolmanager = BoundedPools(num_pools=connections, maxsize=maxsize, block=block, **named)


def _right(place: str, fabric: str) -> str:
    """The right that a request needs (gdn-api.md A.2; for stream workers GDN documents none)."""
    if "/streamapps" in place:
        return f"the right to administrate the fabric {fabric}, which stream workers need"
    if "/cursor" in place:
        return (
            f"access to the fabric {fabric}, and to the collections in the query (read-only, or read-write to remove)"
        )
    return f"access to this fabric ({fabric}) and its streams"


def _is_missing(refused: GdnRejected) -> bool:
    """404 for this thing, rather than for a fabric that doesn't exist (1228, wrapped or not: gdn-api.md A.6)."""
    return refused.status == 404 and _NO_FABRIC not in str(refused)


def _states(envelope: Mapping[str, Any], *, place: str) -> list[WorkerState]:
    """The workers in an envelope: always an array (gdn-api.md B)."""
    found = envelope.get("streamApps")
    if not isinstance(found, list):
        raise GdnUnavailable(f"{place}: the answer holds no streamApps")
    states = []
    for item in found:
        match item:
            case {"name": str(name), "definition": str(definition), "isActive": bool(is_active)}:
                regions = item.get("regions")
                names = tuple(str(region) for region in regions) if isinstance(regions, list) else ()
                states.append(WorkerState(name=name, definition=definition, regions=names, is_active=is_active))
            case _:
                raise GdnUnavailable(f"{place}: the answer holds a worker without name, definition and isActive")
    return states


def _batch(answer: Mapping[str, Any], *, place: str) -> list[Any]:
    rows = answer.get("result")
    if not isinstance(rows, list):
        raise GdnUnavailable(f"{place}: the answer holds no result")
    return rows


def _decoded(body: bytes) -> object:
    """The JSON in a body; None also where there is none, or one that only a hostile far end writes."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return decoded if _is_plain(decoded) else None


def _is_plain(value: object) -> bool:
    """Whether there are no numbers too large to reckon with, and no more than ``MAX_DEPTH`` levels."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[object] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
            elif isinstance(item, int) and not -(2**63) <= item < 2**64:
                return False
        if not deeper:
            return True
        level = deeper
    return False


def _said(body: Mapping[str, Any]) -> str:
    """GDN's own words: ``errorMessage``, or ``message`` from the apid service (gdn-api.md A.6)."""
    said = ""
    if isinstance(number := body.get("errorNum"), int):
        said += f", errorNum {number}"
    words = body.get("errorMessage") or body.get("message")
    if isinstance(words, str):
        said += f", {_safe(words)}"
    return said


def _described(answer: _Answer) -> str:
    """A body that isn't GDN's, without repeating it."""
    if not answer.body:
        return "an empty body"
    return f"{len(answer.body)} bytes of {_safe(answer.headers.get('Content-Type') or 'no stated type')}"


def _target(answer: _Answer) -> str:
    location = answer.headers.get("Location", "")
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return _safe(host) if host else "the same host"


def _safe(text: str) -> str:
    """A foreign text fit for a log line: control and other unprintable characters escaped, and cut."""
    shown = escaped(text[:TEXT_LIMIT])
    return shown[:TEXT_LIMIT] + ("…" if len(text) > TEXT_LIMIT or len(shown) > TEXT_LIMIT else "")


def _root(exc: BaseException) -> BaseException:
    """What lies under the wrappings of requests and urllib3: "Connection refused" rather than three reprs.

    Not by ``__context__``, which leads on to errors that the caller was handling.
    """
    inner = exc
    for _ in range(8):
        under = getattr(inner, "reason", None)
        if not isinstance(under, BaseException):
            under = inner.__cause__ or next(
                (arg for arg in reversed(inner.args) if isinstance(arg, BaseException)), None
            )
        if under is None:
            break
        inner = under
    return inner


def _never_left(exc: Exception) -> bool:
    """Whether there was no connection that a request could have gone over."""
    root = _root(exc)
    return (
        isinstance(exc, requests.exceptions.SSLError)
        or isinstance(root, ConnectionRefusedError | socket.gaierror)
        or (isinstance(root, OSError) and root.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH})
    )


def seconds_to_wait(value: str | None, *, now: float) -> float | None:
    """Seconds from a Retry-After of either form (RFC 9110, 10.2.3), from 0 to the cap; None if it says nothing."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), RETRY_AFTER_CAP)
    try:
        moment = parsedate_to_datetime(text)
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(0.0, at - now), RETRY_AFTER_CAP)


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
