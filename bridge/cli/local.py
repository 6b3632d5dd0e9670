"""The verbs that need no GDN: ``demo``, ``local-gdn`` and ``devices``."""

from __future__ import annotations

import argparse
import signal
import ssl
import threading
from pathlib import Path
from typing import Any

from bridge.config.values import mqtt_endpoint
from bridge.errors import ConfigError


def demo(arguments: argparse.Namespace) -> int:
    """Broker, local GDN, devices and bridge on this machine."""
    _need_local()
    from bridge.local.demo import run_demo  # noqa: PLC0415 - needs the extra `local`

    return run_demo(seconds=arguments.seconds, rate=arguments.rate, as_json=arguments.json)


def local_gdn(arguments: argparse.Namespace) -> int:
    """A GDN on this machine."""
    _need_local()
    from bridge.local import gdn  # noqa: PLC0415 - needs the extra `local`
    from bridge.local.faults import Faults  # noqa: PLC0415 - as above
    from bridge.local.tokens import IssuedTokens  # noqa: PLC0415 - as above

    faults = Faults()
    faults.set(dict(arguments.fault))
    return gdn.main(
        host=arguments.host,
        port=arguments.port,
        tls=arguments.tls,
        host_name=arguments.host_name,
        api_key=arguments.api_key,
        tenant=arguments.tenant,
        faults=faults,
        tokens=IssuedTokens(tenant=arguments.tenant, password=arguments.password, seconds=arguments.token_seconds),
    )


def fault(text: str) -> tuple[str, Any]:
    """A ``--fault``, for argparse."""
    from bridge.local.faults import parse  # noqa: PLC0415 - only this verb needs it

    try:
        return parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def devices(arguments: argparse.Namespace) -> int:
    """Simulated devices that publish until SIGTERM."""
    from bridge.local.devices import publish_until  # noqa: PLC0415 - the other verbs start faster without paho

    try:
        secure, host, port = mqtt_endpoint(arguments.url)
    except ValueError as exc:
        raise ConfigError(f"--url: {exc}") from None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _signum, _frame: stop.set())
    published, acknowledged = publish_until(
        stop,
        host=host,
        port=port,
        rate=arguments.rate,
        username=arguments.username,
        password=_password(arguments.password_file),
        tls=_context(arguments) if secure else None,
    )
    print(f"devices: published {published}, acknowledged {acknowledged}; stopped", flush=True)
    return 0


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text().rstrip("\r\n")
    except (OSError, ValueError) as exc:
        raise ConfigError(f"--password-file: {file} can't be read: {exc}") from exc


def _context(arguments: argparse.Namespace) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=arguments.ca_file)
        if arguments.cert_file is not None:
            context.load_cert_chain(arguments.cert_file, arguments.key_file)
    except OSError as exc:  # ssl's own errors are some of these
        raise ConfigError(f"the TLS files can't be used: {exc}") from exc
    return context


def _need_local() -> None:
    try:
        import aiohttp  # noqa: F401, PLC0415
        import quickjs  # noqa: F401, PLC0415
        import rich  # noqa: F401, PLC0415
    except ImportError as exc:
        raise ConfigError(
            f"this verb needs the extra `local` ({exc.name} is missing): pip install 'gdn-bridge[local]'"
        ) from exc
