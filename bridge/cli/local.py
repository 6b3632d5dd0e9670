"""The verbs for a demonstration on this machine, without a real GDN: ``demo``, ``local-gdn`` and ``devices``."""

from __future__ import annotations

import argparse
import json
import signal
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.cli import exits
from bridge.cli.arguments import number_between, read_password, whole_number_between
from bridge.cli.exits import CommandError
from bridge.config.values import mqtt_endpoint
from bridge.errors import ConfigError
from bridge.links.tls import load_pair

MAX_SECONDS = 31_536_000.0
"""A year, for durations that have no reason for another bound."""

RATE = number_between(0.1, 100_000)
"""Messages per second."""


def add_verbs(verb: Callable[..., argparse.ArgumentParser], output: argparse.ArgumentParser) -> None:
    """Add the verbs and their arguments.

    Args:
        verb: adds one; takes a name, a function, a description and parent parsers.
        output: the parent parser with the output options.
    """
    added = verb("demo", demo, "run broker, local GDN, devices and bridge on this machine", (output,))
    added.add_argument(
        "--seconds",
        type=number_between(0.1, MAX_SECONDS),
        default=10.0,
        help="how long the devices publish (default: 10)",
    )
    added.add_argument("--rate", type=RATE, default=200.0, help="messages per second (default: 200)")

    added = verb("local-gdn", local_gdn, "serve a local GDN, for demonstrations and tests", (output,))
    added.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    added.add_argument(
        "--port", type=whole_number_between(0, 65535), required=True, help="port to listen on; 0: any free one"
    )
    added.add_argument("--tls", action="store_true", help="serve https and wss with a temporary certificate")
    added.add_argument(
        "--host-name", default="localhost", help="host name that it reports for itself (default: localhost)"
    )
    added.add_argument("--api-key", default="demo.local.key", help="API key that it accepts (default: demo.local.key)")
    added.add_argument("--tenant", default="demo", help="tenant that it serves (default: demo)")
    added.add_argument("--password", help="password of root@TENANT.example, to log in instead of the API key")
    added.add_argument(
        "--token-seconds",
        type=number_between(1, MAX_SECONDS),
        default=43_200.0,
        help="how long such a login is valid (default: 43200)",
    )
    added.add_argument(
        "--fault",
        action="append",
        default=[],
        type=fault,
        metavar="NAME[=VALUE]",
        help="simulate a fault, such as slow=3; can be repeated (an unknown name lists all faults)",
    )

    added = verb("devices", devices, "publish as simulated devices until SIGTERM", (output,))
    added.add_argument("--url", default="mqtt://127.0.0.1", help="broker URL (default: mqtt://127.0.0.1)")
    added.add_argument("--rate", type=RATE, default=5.0, help="messages per second (default: 5)")
    added.add_argument("--username", help="user name for the broker")
    added.add_argument("--password-file", type=Path, metavar="FILE", help="file with the password")
    added.add_argument("--ca-file", type=Path, metavar="FILE", help="CA certificates to verify the broker with")
    added.add_argument("--cert-file", type=Path, metavar="FILE", help="client certificate of the devices")
    added.add_argument("--key-file", type=Path, metavar="FILE", help="private key of --cert-file")


def demo(arguments: argparse.Namespace) -> int:
    """Run broker, local GDN, devices and bridge on this machine."""
    _require_local()
    from bridge.local.demo import run_demo  # noqa: PLC0415 - needs the extra `local`

    try:
        return run_demo(seconds=arguments.seconds, rate=arguments.rate, as_json=arguments.json)
    except RuntimeError as exc:
        raise CommandError(exits.FAILED, str(exc)) from exc


def local_gdn(arguments: argparse.Namespace) -> int:
    """Serve the local GDN."""
    _require_local()
    from bridge.local import gdn  # noqa: PLC0415 - needs the extra `local`
    from bridge.local.faults import Faults  # noqa: PLC0415 - as above
    from bridge.local.tokens import IssuedTokens  # noqa: PLC0415 - as above

    faults = Faults()
    faults.set(dict(arguments.fault))
    tokens = IssuedTokens(tenant=arguments.tenant, password=arguments.password, seconds=arguments.token_seconds)
    try:
        gdn.main(
            host=arguments.host,
            port=arguments.port,
            tls=arguments.tls,
            host_name=arguments.host_name,
            api_key=arguments.api_key,
            tenant=arguments.tenant,
            faults=faults,
            tokens=tokens,
        )
    except RuntimeError as exc:
        raise CommandError(exits.FAILED, str(exc)) from exc
    return 0


def fault(text: str) -> tuple[str, Any]:
    """Parse a ``--fault``, for argparse."""
    from bridge.local.faults import parse  # noqa: PLC0415 - only this verb needs it

    try:
        return parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def devices(arguments: argparse.Namespace) -> int:
    """Publish as simulated devices until SIGTERM."""
    from bridge.local.devices import publish_until  # noqa: PLC0415 - the other verbs start faster without paho

    try:
        broker = mqtt_endpoint(arguments.url)
    except ValueError as exc:
        raise ConfigError(f"--url: {exc}") from None
    if broker.path is not None:
        raise ConfigError("--url: the simulated devices don't use WebSocket; give the broker's mqtt:// or mqtts:// URL")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _signum, _frame: stop.set())
    published, acknowledged = publish_until(
        stop,
        host=broker.host,
        port=broker.port,
        rate=arguments.rate,
        username=arguments.username,
        password=read_password(arguments.password_file),
        tls=_context(arguments) if broker.tls else None,
        report=sys.stderr if arguments.json else sys.stdout,
    )
    if arguments.json:
        print(json.dumps({"published": published, "acknowledged": acknowledged}))
    else:
        print(f"devices: published {published}, acknowledged {acknowledged}; stopped", flush=True)
    return 0


def _context(arguments: argparse.Namespace) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=arguments.ca_file)
        if arguments.cert_file is not None:
            load_pair(context, arguments.cert_file, arguments.key_file)
    except OSError as exc:  # includes ssl.SSLError
        raise ConfigError(f"the TLS files can't be used: {exc}") from exc
    return context


def _require_local() -> None:
    try:
        import aiohttp  # noqa: F401, PLC0415
        import quickjs  # noqa: F401, PLC0415
        import rich  # noqa: F401, PLC0415
    except ImportError as exc:
        raise ConfigError(f"this command needs the extra `local` ({exc.name} is missing): see docs/install.md") from exc
