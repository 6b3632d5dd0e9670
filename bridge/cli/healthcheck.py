"""The verb ``healthcheck``: asks the bridge that runs with the same settings whether it is live, or ready.

For container engines and scripts on a machine without curl. It reaches nothing but this machine.
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import json
import os
import sys
from typing import Any

from bridge.config import load
from bridge.errors import ConfigError

TIMEOUT = 5.0
"""Seconds for each step of the exchange: a bridge that takes longer to answer isn't well."""

MAX_ANSWER = 1024 * 1024
"""Bytes of the answer that are read."""


def healthcheck(arguments: argparse.Namespace) -> int:
    """Whether the bridge is live, or with ``--ready`` ready; what is wrong goes to stderr.

    Returns:
        0 or 1, the two codes that a container's health check may give; wrong settings are a 1, too.
    """
    try:
        settings = load(config_file=arguments.config, environ=os.environ, overrides=dict(arguments.set))
    except ConfigError as exc:
        problems = exc.problems
    else:
        problems = ask(settings.status.host, settings.status.port, ready=arguments.ready)
    for problem in problems:
        print(f"gdn-bridge: {problem}", file=sys.stderr)
    return 1 if problems else 0


def ask(host: str, port: int, *, ready: bool) -> tuple[str, ...]:
    """What is wrong with the bridge whose status server listens on this address; empty: nothing.

    Args:
        host: as in ``status.listen``; where it stands for every address, the loopback one is asked.
        port: as in ``status.listen``.
        ready: ask ``/readyz`` instead of ``/livez``.
    """
    if port == 0:
        return ("BRIDGE_STATUS__LISTEN: port 0 is any free port, so nobody can know which; give a number",)
    path = "/readyz" if ready else "/livez"
    connection = http.client.HTTPConnection(reachable(host), port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        status, body = answer.status, answer.read(MAX_ANSWER)
    except (OSError, http.client.HTTPException) as exc:
        return (f"{host}:{port} doesn't answer to {path}: {exc or type(exc).__name__}",)
    finally:
        connection.close()
    if status == http.HTTPStatus.OK:
        return ()
    return _failing_parts(body) or (f"{path} answered {status}",)


def reachable(host: str) -> str:
    """The address to ask: a server that listens on every address has one on the loopback interface."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _failing_parts(body: bytes) -> tuple[str, ...]:
    """Each part that isn't connected in the answer of ``/readyz``; empty where it says nothing of parts."""
    try:
        parts: list[dict[str, Any]] = json.loads(body)["parts"]
        return tuple(
            f"{part['name']}: {part['state']}" + (f": {part['error']}" if part["error"] else "")
            for part in parts
            if part["state"] != "connected"
        )
    except (ValueError, LookupError, TypeError):
        return ()
