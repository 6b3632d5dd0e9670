"""Logging in with a password: the token that stands in an API key's place, and when a new one is due.

GDN has no way to prolong a token, and limits how often an address may log in (gdn-api.md A.3): so one token serves all
threads, is renewed when three quarters of its time are over, and a login that failed is not tried again at once.
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
"""Part of a token's time after which a new one is asked for: what fails then can be tried again for hours."""

SHORTEST, ASSUMED, LONGEST = 300.0, 3600.0, 43_200.0
"""Seconds that a token is taken to last: at least, since its end is by GDN's clock and ours may be wrong; where its end
can't be read; and at most (12 hours are GDN's own).
"""

WAIT_AFTER_FAILURE = 15.0
"""Seconds in which no other login is tried after one that failed, with the same password."""

FRESH = 60.0
"""Seconds in which a token that is refused is not at fault: then another one would be refused, too."""

_HEADER_TEXT = re.compile(r"[!-~]{1,16384}")


@dataclass(frozen=True, slots=True)
class Account:
    """Who logs in: by e-mail address, or by tenant and user name (gdn-api.md A.3)."""

    password: str = field(repr=False)
    email: str | None = None
    tenant: str | None = None
    username: str | None = None

    @property
    def body(self) -> dict[str, str]:
        """What is sent to ``/_open/auth``. A secret."""
        names = {"email": self.email, "tenant": None if self.email else self.tenant, "username": self.username}
        return {"password": self.password, **{name: value for name, value in names.items() if value is not None}}


class TokenCache:
    """The token of an account. Any thread.

    Args:
        log_in: asks GDN for one; raises a GdnError.
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
        self._lock = threading.Lock()  # held while one logs in for all
        # Under _lock:
        self._account: Account | None = None
        self._token: str | None = None
        self._issued_at = self._renew_at = self._ends_at = 0.0
        self._failure: GdnError | None = None
        self._again_at = 0.0

    def use(self, account: Account) -> None:
        """Log in as this one from now on; one that differs gets a token of its own at once."""
        with self._lock:
            if account != self._account:
                self._account, self._token, self._failure = account, None, None

    def token(self) -> str:
        """A token that should be good. A secret.

        Raises:
            GdnError: there is none, and GDN gives none, or gave none a moment ago.
        """
        with self._lock:
            now = self._clock()
            if self._token is not None and now < self._renew_at:
                return self._token
            if self._failure is None or now >= self._again_at:
                self._renew(now)
            if self._token is not None and now < self._ends_at:
                return self._token
            assert self._failure is not None
            raise self._failure.with_traceback(None)

    def refuse(self, token: str) -> bool:
        """Say that GDN refused this token. Returns whether asking for another one may help."""
        with self._lock:
            if token != self._token:
                return True  # there is a newer one already
            if self._clock() - self._issued_at < FRESH:
                return False
            self._token = None
            return True

    def _renew(self, now: float) -> None:
        assert self._account is not None
        try:
            token = self._log_in(self._account)
            if not _HEADER_TEXT.fullmatch(token):
                raise GdnAuthError("POST /_open/auth: the answer holds no usable token")
        except GdnError as exc:
            self._failure = exc
            self._again_at = now + max(WAIT_AFTER_FAILURE, exc.retry_after or 0.0)
            return
        lifetime = lifetime_of(token, now=self._wall_clock())
        self._token, self._failure = token, None
        self._issued_at, self._ends_at, self._renew_at = now, now + lifetime, now + RENEW_AFTER * lifetime


def lifetime_of(token: str, *, now: float) -> float:
    """Seconds that a JSON web token is good for, by its claim ``exp`` (RFC 7519, 4.1.4), within bounds.

    Args:
        token: not verified, GDN does that.
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
    # Compared before it is reckoned with: it may be an integer beyond every float.
    return min(max(end, now + SHORTEST), now + LONGEST) - now
