"""Common parts of REST requests and answers (gdn-api.md A)."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

FABRIC = "_system"
API = "/_fabric/{fabric}/_api"


class RequestRefused(Exception):
    """Ends a request with ``response`` instead of its handler's."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


def error(status: int, number: int, message: str) -> RequestRefused:
    """A refusal in GDN's form; ``number`` is the errorNum (gdn-api.md A.6)."""
    body = {"error": True, "code": status, "errorNum": number, "errorMessage": message}
    return RequestRefused(web.json_response(body, status=status))


def answer(status: int = 200, **members: Any) -> web.Response:
    """A successful answer in GDN's form."""
    return web.json_response({"error": False, "code": status, **members}, status=status)


async def content(request: web.Request) -> dict[str, Any]:
    """The JSON object in the request's body.

    Raises:
        RequestRefused: the body isn't a JSON object.
    """
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise error(400, 400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise error(400, 400, "the body is not an object")
    return body
