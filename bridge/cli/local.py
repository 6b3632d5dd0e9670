"""The verbs that need no GDN: ``demo`` and ``local-gdn``."""

from __future__ import annotations

import argparse

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

    return gdn.main(
        host=arguments.host,
        port=arguments.port,
        tls=arguments.tls,
        host_name=arguments.host_name,
        api_key=arguments.api_key,
        tenant=arguments.tenant,
    )


def _need_local() -> None:
    try:
        import aiohttp  # noqa: F401, PLC0415
        import quickjs  # noqa: F401, PLC0415
        import rich  # noqa: F401, PLC0415
    except ImportError as exc:
        raise ConfigError(
            f"this verb needs the extra `local` ({exc.name} is missing): pip install 'gdn-bridge[local]'"
        ) from exc
