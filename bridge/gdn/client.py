"""Requests to GDN, each with its whole answer: logged in, within the budget, bounded. The only user of requests.

May be called from any thread: each gets a session of its own. What goes wrong comes out as one of the
``GdnError``s, with GDN's own words in it and never the API key.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from bridge.errors import GdnAuthError, GdnUnavailable
from bridge.gdn.answers import Answer, refusal, safe
from bridge.gdn.bounds import BoundedPools
from bridge.gdn.budget import Budget
from bridge.gdn.login import Account, TokenCache
from bridge.links.certificates import handshake_advice
from bridge.timing import Deadline

SLOW_TIMEOUT = 30.0
"""Seconds for PATCH and DELETE at least: activating took 3.1 s when GDN was idle (gdn-api.md B)."""
ANSWER_LIMIT = 64 * 1024
KEYS_KEPT = 8
"""Keys that are blotted out of messages: the one in use and those before it, which a late answer may repeat."""

_CHUNK = 16 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of GDN; ``check``: whether a health check asks, see ``Budget.take``."""

    method: str
    path: str
    params: Mapping[str, str] | None = None
    json: Mapping[str, Any] | None = field(default=None, repr=False)  # may hold a password
    limit: int = ANSWER_LIMIT
    """Bytes of the answer's body."""
    check: bool = False

    @property
    def place(self) -> str:
        """What errors name it by."""
        return f"{self.method} {self.path}"


class Client:
    """Exchanges with one GDN; who inherits it says what is asked for.

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
        self._tokens = TokenCache(self._log_in, clock=clock, wall_clock=wall_clock)
        self._timeout = timeout
        self._ca_file = ca_file
        self.budget = budget or Budget(per_minute=0, per_day=0)
        self._session_factory = session_factory
        self._clock = clock
        self._wall_clock = wall_clock
        self._local = threading.local()
        self._lock = threading.Lock()
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
        if self._logs_in:
            return f"bearer {self._tokens.token()}"
        key = self._keys[0]
        if not (key.isascii() and key.isprintable() and key):
            # requests would put the whole header into its own exception
            raise GdnAuthError("the API key is empty or holds a line break or a character outside ASCII; copy it again")
        return f"apikey {key}"

    def close(self) -> None:
        """Close the kept connections of all threads. A call after it opens new ones."""
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.close()

    # --- one exchange --------------------------------------------------------------------------------------

    def _call(self, request: Request) -> dict[str, Any]:
        """Send, and the answer's JSON object."""
        answer = self._send(request)
        if (decoded := answer.json) is None:
            what = f"{answer.status} with {answer.described}, not GDN's JSON object"
            raise GdnUnavailable(self._redacted(f"{answer.place}: {what}"))
        return decoded

    def _send(self, request: Request) -> Answer:
        """One request and its whole answer, which is a 2xx; once more with a new token if the old one is refused."""
        authorization = self.authorization()
        answer = self._exchange(request, authorization)
        if answer.status == 401 and self._logs_in and self._tokens.refuse(authorization.partition(" ")[2]):
            answer = self._exchange(request, self.authorization())
        return self._accepted(answer)

    def _log_in(self, account: Account) -> str:
        answer = self._accepted(self._exchange(Request("POST", "/_open/auth", json=account.body), None))
        token = (answer.json or {}).get("jwt")
        if not isinstance(token, str) or not token:
            raise GdnUnavailable(f"{answer.place}: {answer.status}, but the answer holds no jwt")
        self._blot_out(token)
        self._keep(token)
        return token

    def _accepted(self, answer: Answer) -> Answer:
        if 200 <= answer.status < 300:
            return answer
        now = self._wall_clock()
        raise refusal(answer, fabric=self._fabric, logs_in=self._logs_in, now=now, redacted=self._redacted)

    def _exchange(self, request: Request, authorization: str | None) -> Answer:
        """One request and its whole answer, whatever it is."""
        place, check = request.place, request.check
        timeout = max(SLOW_TIMEOUT, self._timeout) if request.method in {"PATCH", "DELETE"} else self._timeout
        session = self._session()
        # In each request's own header: a session outlives the key.
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
        # OSError: the CA file is gone or unreadable. HTTPError: some of urllib3's errors come through as they are.
        except (requests.RequestException, OSError, HTTPError) as exc:
            if _never_left(exc):
                self.budget.give_back(check=check)
            root = _root(exc)
            reason = safe(str(root) or type(root).__name__)
            if isinstance(exc, requests.exceptions.SSLError):
                reason += handshake_advice(root)
            raise self._unreachable(place, reason) from exc

    def _read(self, response: requests.Response, *, place: str, limit: int, timeout: float) -> bytes:
        deadline = Deadline(timeout, clock=self._clock)
        body = bytearray()
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in {"", "identity"}:  # a few bytes could unfold to gigabytes
            raise GdnUnavailable(
                f"{place}: {response.status_code} in the coding {safe(coding)}, which wasn't asked for"
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

    def _unreachable(self, place: str, reason: str) -> GdnUnavailable:
        return GdnUnavailable(self._redacted(f"{place}: {self._base_url} can't be reached: {reason}"))

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
