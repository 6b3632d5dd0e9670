"""The verb ``healthcheck``: asks the bridge with the same settings on this machine whether it is live, or ready.

For container engines and for scripts on a machine without curl.
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import json
from collections.abc import Sequence
from typing import Any

from bridge.cli import exits
from bridge.cli.configuration import load_settings, problems_of
from bridge.cli.exits import CommandError
from bridge.errors import ConfigError, SettingError

TIMEOUT = 5.0
"""Seconds for each step of the exchange: a bridge that takes longer counts as not live."""

MAX_ANSWER = 1024 * 1024
"""Bytes to read from the answer."""


def healthcheck(arguments: argparse.Namespace) -> int:
    """Check that the bridge is live, or ready with ``--ready``.

    Raises:
        CommandError: with exit code 1 for any problem, including wrong settings: a container's health check has only
            0 and 1.
    """
    try:
        settings = load_settings(arguments, offline=True)
        problems: Sequence[str] = ask(settings.status.host, settings.status.port, ready=arguments.ready)
    except ConfigError as exc:
        problems = problems_of(exc, arguments)
    if problems:
        raise CommandError(exits.FAILED, *problems)
    if arguments.json:
        print(json.dumps({"ok": True}))
    return 0


def ask(host: str, port: int, *, ready: bool) -> tuple[str, ...]:
    """The problems of the bridge whose status server listens on this address.

    Args:
        host: as in ``status.listen``; for an address that means all interfaces, loopback is asked.
        port: as in ``status.listen``.
        ready: ask ``/readyz`` instead of ``/livez``.

    Raises:
        SettingError: the port is 0.
    """
    if port == 0:
        raise SettingError("status.listen", "with port 0 the bridge's port is unknown; set a fixed one")
    path = "/readyz" if ready else "/livez"
    connection = http.client.HTTPConnection(reachable(host), port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        status, body = answer.status, answer.read(MAX_ANSWER)
    except (OSError, http.client.HTTPException) as exc:
        return (f"{host}:{port} doesn't answer {path}: {exc or type(exc).__name__}",)
    finally:
        connection.close()
    if status == http.HTTPStatus.OK:
        return ()
    return _failing_parts(body) or (f"{path} answered {status}",)


def reachable(host: str) -> str:
    """The address to connect to; loopback for a server that listens on all interfaces."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _failing_parts(body: bytes) -> tuple[str, ...]:
    """The parts that aren't connected, from the answer of ``/readyz``; empty if the answer has no parts."""
    try:
        parts: list[dict[str, Any]] = json.loads(body)["parts"]
        return tuple(
            f"{part['name']}: {part['state']}" + (f": {part['error']}" if part["error"] else "")
            for part in parts
            if part["state"] != "connected"
        )
    except (ValueError, LookupError, TypeError):
        return ()
