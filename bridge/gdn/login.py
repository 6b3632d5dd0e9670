"""Logging in with a password: the token used instead of an API key, and when to renew it.

GDN can't extend a token, and limits logins from an address (gdn-api.md A.3). So all threads share one token, it is
renewed after three quarters of its lifetime, and a failed login is not repeated at once.
"""

from __future__ import annotations

import binascii
import re
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from bridge.errors import GdnAuthError, GdnError

RENEW_AFTER = 0.75
"""Part of its lifetime after which a token is renewed: if that fails, there is time left to try again."""

SHORTEST, ASSUMED, LONGEST = 300.0, 3600.0, 43_200.0
"""Lifetime of a token in seconds: at least SHORTEST, because GDN's clock and ours may differ; ASSUMED if its end can't
be read; at most LONGEST, which is GDN's usual 12 hours.
"""

WAIT_AFTER_FAILURE = 15.0
"""Seconds after a failed login during which the same password is not tried again."""

FRESH = 60.0
"""Seconds. If a token younger than this is refused, a new one would be refused too."""

_HEADER_TEXT = re.compile(r"[!-~]{1,16384}")


@dataclass(frozen=True, slots=True)
class Account:
    """The account: an e-mail address, or tenant and user name (gdn-api.md A.3)."""

    password: str = field(repr=False)
    email: str | None = None
    tenant: str | None = None
    username: str | None = None

    @property
    def body(self) -> dict[str, str]:
        """The request body for ``/_open/auth``. A secret."""
        names = {"email": self.email, "tenant": None if self.email else self.tenant, "username": self.username}
        return {"password": self.password, **{name: value for name, value in names.items() if value is not None}}


class TokenCache:
    """The token of an account. Thread-safe.

    Args:
        log_in: requests a token from GDN; raises GdnError.
        clock: monotonic seconds.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        log_in: Callable[[Account], str],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._log_in = log_in
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()  # held while one thread logs in for all
        # Under _lock:
        self._account: Account | None = None
        self._token: str | None = None
        self._issued_at = self._renew_at = self._ends_at = 0.0
        self._failure: GdnError | None = None
        self._retry_at = 0.0

    def use(self, account: Account) -> None:
        """Use this account from now on; if it differs, the old token is dropped."""
        with self._lock:
            if account != self._account:
                self._account, self._token, self._failure = account, None, None

    def token(self) -> str:
        """A token that should be valid; logs in if necessary. A secret.

        Raises:
            GdnError: there is none, and the login fails or has just failed.
        """
        with self._lock:
            now = self._clock()
            if self._token is not None and now < self._renew_at:
                return self._token
            if self._failure is None or now >= self._retry_at:
                self._renew(now)
            if self._token is not None and now < self._ends_at:
                return self._token
            assert self._failure is not None
            # Without the traceback: several threads raise this object, and each would add to it.
            raise self._failure.with_traceback(None)

    def refuse(self, token: str) -> bool:
        """Report that GDN refused this token; returns whether a new token may help."""
        with self._lock:
            if token != self._token:
                return True  # it was already renewed
            if self._clock() - self._issued_at < FRESH:
                return False
            self._token = None
            return True

    def _renew(self, now: float) -> None:
        assert self._account is not None
        try:
            token = self._log_in(self._account)
            if not _HEADER_TEXT.fullmatch(token):
                raise GdnAuthError("POST /_open/auth: the answer has no usable token")
        except GdnError as exc:
            # An old token is kept: it is renewed before its end, and GDN may still take it.
            self._failure = exc
            self._retry_at = now + max(WAIT_AFTER_FAILURE, exc.retry_after or 0.0)
            return
        lifetime = lifetime_of(token, now=self._wall_clock())
        self._token, self._failure = token, None
        self._issued_at, self._ends_at, self._renew_at = now, now + lifetime, now + RENEW_AFTER * lifetime


def lifetime_of(token: str, *, now: float) -> float:
    """Lifetime of a JSON Web Token in seconds, from its claim ``exp`` (RFC 7519, 4.1.4), within limits.

    Args:
        token: not verified; GDN does that.
        now: seconds since the epoch.
    """
    try:
        _, claims, _ = token.split(".")
        decoded = msgspec.json.decode(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        end = decoded["exp"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, binascii.Error, msgspec.MsgspecError):
        return ASSUMED
    if isinstance(end, bool) or not isinstance(end, int | float):
        return ASSUMED
    # Compare first: the integer may be too large for a float.
    return min(max(end, now + SHORTEST), now + LONGEST) - now
