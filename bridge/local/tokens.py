"""Tokens for a login with a password (gdn-api.md A.3)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

TOKEN_SECONDS = 43_200.0
"""12 hours, as in GDN."""

USER = "root"


class IssuedTokens:
    """Issues and verifies the tokens of one user, who logs in by e-mail address or by tenant and name.

    Args:
        tenant: the user's tenant.
        password: None disables the login.
        seconds: how long a token is valid.
    """

    def __init__(self, *, tenant: str, password: str | None, seconds: float = TOKEN_SECONDS) -> None:
        self._tenant = tenant
        self._password = password
        self._seconds = seconds
        self._secret = secrets.token_bytes(32)

    def log_in(self, body: Mapping[str, Any]) -> str | None:
        """A new token for a request to ``/_open/auth``; None for a wrong user or password."""
        password = body.get("password")
        is_user = body.get("email") == f"{USER}@{self._tenant}.example" or (
            body.get("tenant") == self._tenant and body.get("username") == USER
        )
        if self._password is None or not is_user or not isinstance(password, str):
            return None
        if not secrets.compare_digest(password.encode(), self._password.encode()):
            return None
        now = time.time()
        claims = {
            "iss": "macrometa",
            "tenant": self._tenant,
            "preferred_username": USER,
            "iat": now,
            "exp": now + self._seconds,
            "jti": secrets.token_hex(8),
        }
        text = f"{_coded({'alg': 'HS256', 'typ': 'JWT'})}.{_coded(claims)}"
        return f"{text}.{self._signature(text)}"

    def is_valid(self, token: str) -> bool:
        """Whether the token was issued here and hasn't expired."""
        text, _, signature = token.rpartition(".")
        if not secrets.compare_digest(signature.encode(), self._signature(text).encode()):
            return False
        claims = text.partition(".")[2]
        return bool(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"] > time.time())

    def _signature(self, text: str) -> str:
        return _base64(hmac.new(self._secret, text.encode(), hashlib.sha256).digest())


def _coded(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
