"""The regions: which ones exist, which one answers, and their descriptions (gdn-api.md D)."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from bridge.local.faults import Faults
from bridge.local.rest import error

HERE, ELSEWHERE = "local", "elsewhere"
"""The second region exists if the server listens on all addresses; requests to its address reach it."""
ELSEWHERE_ADDRESS = "127.0.0.2"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - only compared with


class Regions:
    """One or two regions.

    Args:
        host: the address that the server listens on.
        host_name: host name that the first region reports. Its API host has the prefix ``api-`` unless this is an IPv4
            address or ``localhost``.
        faults: ``region-changed`` makes the other region answer.
    """

    def __init__(self, host: str, host_name: str, faults: Faults) -> None:
        self.names = (HERE, ELSEWHERE) if host == EVERY_ADDRESS else (HERE,)
        self._host_name = host_name
        self._faults = faults
        self.routes = [
            web.get("/datacenter/all", self._get_all),
            web.get("/datacenter/{name}", self._get),
        ]

    def of(self, request: web.Request) -> str:
        """The region that answers a request."""
        if self._faults.is_on("region-changed") and not request.path.startswith("/_ws/"):
            return ELSEWHERE
        return ELSEWHERE if _dialled(request)[0] == ELSEWHERE_ADDRESS else HERE

    async def _get_all(self, request: web.Request) -> web.Response:
        return web.json_response([self._described(name, request) for name in self.names])

    async def _get(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.names:
            raise error(404, 102024, "Datacenter does not exist")
        # "local" is both the first region's name and GDN's alias for the region that answers.
        return web.json_response(self._described(self.of(request) if name == HERE else name, request))

    def _described(self, name: str, request: web.Request) -> dict[str, Any]:
        host = self._host_name if name == HERE else ELSEWHERE_ADDRESS
        port = _dialled(request)[1]
        url = host if port == (443 if request.secure else 80) else f"{host}:{port}"
        plain = host == "localhost" or re.fullmatch(r"[0-9.]+", host)
        return {
            "_key": name,
            "host": "127.0.0.1" if name == HERE else ELSEWHERE_ADDRESS,
            "local": True,
            "name": name,
            "spot_region": False,
            "status": 0,
            "tags": {"api": url if plain else f"api-{url}", "url": url},
            "locationInfo": {"city": "", "countrycode": "", "countryname": "", "latitude": "0", "longitude": "0"},
        }


def _dialled(request: web.Request) -> tuple[str, int]:
    """The local address and port that the request was sent to."""
    assert request.transport is not None
    address, port, *_ = request.transport.get_extra_info("sockname")
    return address, port
