"""HTTP requests to GDN: authenticated, within the budget, with bounded answers. Only this module imports requests.

Thread-safe: each thread has its own session. Every failure is raised as a ``GdnError`` that quotes GDN's message and
never contains a secret.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from bridge.errors import GdnAuthError, GdnUnavailable
from bridge.gdn.answers import Answer, refusal, safe
from bridge.gdn.bounds import BoundedPools, BoundedProxyPools
from bridge.gdn.budget import Budget
from bridge.gdn.login import Account, TokenCache
from bridge.gdn.proxy import Proxy
from bridge.links.certificates import handshake_advice
from bridge.log import MIN_SUBSTRING
from bridge.timing import Deadline

SLOW_TIMEOUT = 30.0
"""Shortest timeout of PATCH and DELETE, in seconds: activating took 3.1 s on an idle GDN (gdn-api.md B)."""
ANSWER_LIMIT = 64 * 1024
"""Default limit of an answer's body, in bytes."""
KEYS_KEPT = 8
"""API keys that are redacted: the current one and earlier ones, which a late answer may repeat."""

_CHUNK = 16 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request to GDN."""

    method: str
    path: str
    params: Mapping[str, str] | None = None
    json: Mapping[str, Any] | None = field(default=None, repr=False)  # may hold a password
    limit: int = ANSWER_LIMIT
    """Maximum bytes of the answer's body."""
    check: bool = False
    """Whether it is for a health check: see ``Budget.take``."""

    @property
    def place(self) -> str:
        """How error messages name the request."""
        return f"{self.method} {self.path}"


class Client:
    """Requests to one GDN; a subclass adds the calls.

    Every request raises:
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
        proxy: Proxy | None = None,
        budget: Budget | None = None,
        register_secret: Callable[[str], object] = lambda _secret: None,
        session_factory: Callable[[], requests.Session] = requests.Session,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        base_url: from ``GdnAddress.base_url``.
        fabric: of the workers and collections.
        api_key: ``<tenant>.<key id>.<secret>``.
        timeout: seconds to connect, to get the next bytes, and for the whole body.
        ca_file: PEM file with the authorities to trust; None: those of the ``certifi`` package.
        proxy: used for every request; None: none.
        budget: counts each request; None: no limit.
        register_secret: called with each token that GDN gave, to redact it in the log.
        session_factory: makes a session for each thread.
        clock: monotonic seconds.
        wall_clock: seconds since the epoch, for a Retry-After with a date.
        """
        self._base_url = base_url
        self._fabric = fabric
        self._keys: tuple[str, ...] = (api_key,)  # replaced as a whole: the current one first
        self._other_secrets: tuple[str, ...] = ()  # replaced as a whole: passwords and tokens, newest first
        self._logs_in = False
        self._register_secret = register_secret
        self._tokens = TokenCache(self._log_in, clock=clock, wall_clock=wall_clock)
        self._timeout = timeout
        self._ca_file = ca_file
        self._proxy = proxy
        self.budget = budget or Budget(per_minute=0, per_day=0)
        self._session_factory = session_factory
        self._clock = clock
        self._wall_clock = wall_clock
        self._per_thread = threading.local()
        self._lock = threading.Lock()
        self._sessions: WeakSet[requests.Session] = WeakSet()  # under _lock; weak: threads end

    def use_key(self, api_key: str) -> None:
        """Use this API key from the next request on. Any thread."""
        with self._lock:
            self._logs_in = False
            if api_key != self._keys[0]:
                self._keys = (api_key, *(key for key in self._keys if key != api_key))[:KEYS_KEPT]

    def use_account(self, account: Account) -> None:
        """Log in with a password, from the next request on. Any thread."""
        self._add_secret(account.password)
        self._tokens.use(account)
        with self._lock:
            self._logs_in = True

    def authorization(self) -> str:
        """The value of the ``Authorization`` header (gdn-api.md A.2). A secret. Logs in if necessary."""
        return self._authorization(self._token())

    def _token(self) -> str | None:
        """The token of the login; None: an API key is used."""
        return self._tokens.token() if self._logs_in else None

    def _authorization(self, token: str | None) -> str:
        if token is not None:
            return f"bearer {token}"
        key = self._keys[0]
        if not (key.isascii() and key.isprintable() and key):
            # requests would quote the whole header in its exception.
            raise GdnAuthError("the API key is empty, or has a line break or a character outside ASCII; copy it again")
        return f"apikey {key}"

    def close(self) -> None:
        """Close the idle connections of all threads. A later request opens new ones."""
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.close()

    # --- one exchange --------------------------------------------------------------------------------------

    def _call(self, request: Request) -> dict[str, Any]:
        """Send a request; returns the JSON object in the answer."""
        answer = self._send(request)
        if (decoded := answer.json) is None:
            what = f"{answer.status} with {answer.described}, not GDN's JSON object"
            raise GdnUnavailable(self._redacted(f"{answer.place}: {what}"))
        return decoded

    def _send(self, request: Request) -> Answer:
        """Send a request; returns a 2xx answer. Tries once more with a new token if the token is refused."""
        token = self._token()
        answer = self._exchange(request, self._authorization(token))
        is_refused = answer.status == HTTPStatus.UNAUTHORIZED
        if is_refused and token is not None and self._tokens.refuse(token):
            answer = self._exchange(request, self.authorization())
        return self._accepted(answer)

    def _log_in(self, account: Account) -> str:
        answer = self._accepted(self._exchange(Request("POST", "/_open/auth", json=account.body), None))
        token = (answer.json or {}).get("jwt")
        if not isinstance(token, str) or not token:
            raise GdnUnavailable(f"{answer.place}: {answer.status}, but the answer has no jwt")
        self._add_secret(token)
        self._register_secret(token)
        return token

    def _accepted(self, answer: Answer) -> Answer:
        if 200 <= answer.status < 300:
            return answer
        now = self._wall_clock()
        raise refusal(answer, fabric=self._fabric, logs_in=self._logs_in, now=now, redacted=self._redacted)

    def _exchange(self, request: Request, authorization: str | None) -> Answer:
        """One request and its complete answer, of any status."""
        place, check = request.place, request.check
        timeout = max(SLOW_TIMEOUT, self._timeout) if request.method in {"PATCH", "DELETE"} else self._timeout
        session = self._session()
        # Not in the session's headers: a session outlives the key.
        headers = {} if authorization is None else {"Authorization": authorization}
        self.budget.take(check=check)
        try:
            with session.request(
                request.method,
                f"{self._base_url}{request.path}",
                params=request.params,
                json=request.json,
                headers=headers,
                timeout=timeout,
                proxies={} if self._proxy is None else dict.fromkeys(("https", "http"), self._proxy.url),
                allow_redirects=False,
                stream=True,
            ) as response:
                body = self._read(response, place=place, limit=request.limit, timeout=timeout)
                return Answer(place, response.status_code, response.headers, body)
        except requests.ConnectTimeout as exc:
            self.budget.give_back(check=check)
            raise self._unreachable(place, f"no connection within {timeout:g} s") from exc
        except requests.Timeout as exc:
            raise self._unreachable(place, f"no answer within {timeout:g} s") from exc
        # OSError: the CA file is missing or unreadable. HTTPError: requests doesn't translate all of urllib3's errors.
        except (requests.RequestException, OSError, HTTPError) as exc:
            if _was_not_sent(exc):
                self.budget.give_back(check=check)
            root = _root(exc)
            reason = safe(str(root) or type(root).__name__)
            if isinstance(exc, requests.exceptions.SSLError):
                reason += handshake_advice(root, time.time())
            if isinstance(exc, requests.exceptions.ProxyError) and self._proxy is not None:
                reason = f"the proxy {self._proxy.name}: {reason}. Check gdn.proxy, with user and password"
            raise self._unreachable(place, reason) from exc

    def _read(self, response: requests.Response, *, place: str, limit: int, timeout: float) -> bytes:
        deadline = Deadline(timeout, clock=self._clock)
        body = bytearray()
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in {"", "identity"}:  # a few bytes could decompress to gigabytes
            raise GdnUnavailable(
                f"{place}: {response.status_code} with the encoding {safe(coding)}, which was not requested"
            )
        for chunk in response.iter_content(_CHUNK):
            body += chunk
            if len(body) > limit:
                raise GdnUnavailable(
                    f"{place}: {response.status_code} with more than {limit} bytes; the rest is not read"
                )
            if not deadline.left():
                raise GdnUnavailable(f"{place}: {response.status_code}, but its body took over {timeout:g} s")
        return bytes(body)

    def _session(self) -> requests.Session:
        """This thread's session."""
        session: requests.Session | None = getattr(self._per_thread, "session", None)
        if session is None:
            session = self._session_factory()
            # The environment could add a proxy, replace ca_file (REQUESTS_CA_BUNDLE) and replace our header (netrc).
            session.trust_env = False
            session.verify = self._ca_file or True
            for scheme in ("https://", "http://"):
                session.mount(scheme, _Adapter())
            # requests parses the target even of a redirect that it doesn't follow, and fails if it isn't a URL.
            session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]  # only on this object
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # keep none
            session.headers["Accept"] = "application/json"
            session.headers["Accept-Encoding"] = "identity"
            session.headers["User-Agent"] = "gdn-bridge"
            self._per_thread.session = session
            with self._lock:
                self._sessions.add(session)
        return session

    def _unreachable(self, place: str, reason: str) -> GdnUnavailable:
        return GdnUnavailable(self._redacted(f"{place}: {self._base_url} can't be reached: {reason}"))

    def _redacted(self, message: str) -> str:
        """The message without secrets that the far end may have repeated."""
        for secrets, shown in ((self._keys, "[API key]"), (self._other_secrets, "[secret]")):
            # Shorter ones occur by chance: the log redacts them where they are a word of their own.
            for secret in sorted([s for s in secrets if len(s) >= MIN_SUBSTRING], key=len, reverse=True):
                message = message.replace(secret, shown)
        return message

    def _add_secret(self, secret: str) -> None:
        with self._lock:
            if secret not in self._other_secrets[:1]:
                others = (secret, *(other for other in self._other_secrets if other != secret))
                self._other_secrets = others[: 2 * KEYS_KEPT]


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **named: Any) -> None:
        self.poolmanager = BoundedPools(num_pools=connections, maxsize=maxsize, block=block, **named)

    def proxy_manager_for(self, proxy: str, **named: Any) -> BoundedProxyPools:
        manager = BoundedProxyPools(proxy, proxy_headers=self.proxy_headers(proxy), **named)
        return self.proxy_manager.setdefault(proxy, manager)  # type: ignore[no-any-return]  # a dict of any type


def _root(exc: BaseException) -> BaseException:
    """The error that requests and urllib3 wrap: "Connection refused" instead of three nested reprs.

    ``__context__`` is not followed: it leads to errors that the caller was handling.
    """
    inner = exc
    for _ in range(8):
        wrapped = getattr(inner, "reason", None)
        if not isinstance(wrapped, BaseException):
            wrapped = inner.__cause__ or next(
                (arg for arg in reversed(inner.args) if isinstance(arg, BaseException)), None
            )
        if wrapped is None:
            break
        inner = wrapped
    return inner


def _was_not_sent(exc: Exception) -> bool:
    """Whether the connection failed before a request could be sent over it."""
    root = _root(exc)
    has_no_route = isinstance(root, OSError) and root.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH}
    is_refused = isinstance(root, ConnectionRefusedError | socket.gaierror)
    return has_no_route or is_refused or isinstance(exc, requests.exceptions.SSLError)
