"""Authentication by API key or login token, and for WebSockets also by one-time password (gdn-api.md A)."""

from __future__ import annotations

import secrets
import time

from aiohttp import web

from bridge.local.rest import RequestRefused, answer, content, error
from bridge.local.tokens import USER, IssuedTokens

OTP_SECONDS = 10.0
LOGIN_PATH = "/_open/auth"


class Authentication:
    """One tenant with one API key, and one user who logs in for ``tokens``."""

    def __init__(self, tenant: str, api_key: str, tokens: IssuedTokens) -> None:
        self.counts = {"otps": 0, "logins": 0}
        self._tenant = tenant
        self._api_key = api_key
        self._tokens = tokens
        self._otps: dict[str, float] = {}
        self.routes = [
            web.post(LOGIN_PATH, self._log_in),
            web.post("/apid/otp", self._give_otp),
            web.get("/_api/user", self._get_user),
        ]

    def check(self, request: web.Request) -> None:
        """Authenticate a request.

        Raises:
            RequestRefused: the credentials are wrong; the response has the form of that endpoint (gdn-api.md A.6).
        """
        if request.path in ("/_local/stats", LOGIN_PATH) or self._is_known(request.headers.get("Authorization", "")):
            return
        if request.path.startswith("/_ws/"):
            # The attempt uses the password up, even if it fails.
            if self._otps.pop(request.query.get("otp", ""), 0.0) > time.monotonic():
                return
            raise RequestRefused(web.Response(status=401, text="Failed to authenticate"))
        if request.path.startswith("/apid/"):
            body = {"code": 401, "error": True, "message": "Unauthorized", "serverId": "local"}
            raise RequestRefused(web.json_response(body, status=401))
        raise error(401, 11, "forbidden")

    def _is_known(self, authorization: str) -> bool:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() == "apikey":
            return secrets.compare_digest(secret.encode(), self._api_key.encode())
        return scheme.lower() == "bearer" and self._tokens.is_valid(secret)

    async def _log_in(self, request: web.Request) -> web.Response:
        token = self._tokens.log_in(await content(request))
        if token is None:
            raise error(401, 401, "Wrong credentials")
        self.counts["logins"] += 1
        return web.json_response({"jwt": token, "tenant": self._tenant, "username": USER})

    async def _give_otp(self, _request: web.Request) -> web.Response:
        now = time.monotonic()
        self._otps = {otp: expires for otp, expires in self._otps.items() if expires > now}
        otp = secrets.token_urlsafe(24)
        self._otps[otp] = now + OTP_SECONDS
        self.counts["otps"] += 1
        return web.json_response({"otp": otp})

    async def _get_user(self, _request: web.Request) -> web.Response:
        user = {"tenant": self._tenant, "email": "", "active": True, "extra": {}, "user": USER, "displayName": USER}
        return answer(result=[user])
