"""The command line: verbs in, exit codes out. What a person did wrong is said in sentences, not in tracebacks.

Exit codes: 0 done · 1 failed while running · 2 wrong usage · 69 GDN could not be asked · 78 settings are wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge import __version__
from bridge.cli import gdn, local
from bridge.cli.planning import configure_log, gdn_rest, plan
from bridge.config import Settings, load
from bridge.errors import BridgeError, ConfigError, GdnError

EXIT_FAILED = 1
EXIT_UNAVAILABLE = 69  # sysexits.h, EX_UNAVAILABLE
EXIT_CONFIG = 78  # sysexits.h, EX_CONFIG


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.verb(arguments))
    except ConfigError as exc:
        for problem in exc.problems:
            print(f"gdn-bridge: {problem}", file=sys.stderr)
        return EXIT_CONFIG
    except GdnError as exc:
        print(f"gdn-bridge: {exc}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except BridgeError as exc:
        print(f"gdn-bridge: {exc}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        # The reader of our output has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gdn-bridge",
        description="Feeds Macrometa GDN stream workers from MQTT devices.",
        epilog="Settings come from BRIDGE_… variables, secret files and a TOML file: see docs/settings.md.",
    )
    parser.add_argument("--version", action="version", version=f"gdn-bridge {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    configured.add_argument(
        "--set",
        action="append",
        default=[],
        type=_override,
        metavar="KEY=VALUE",
        help="a setting that goes before all others, such as log.level=debug; not for secrets, others can read them",
    )

    def verb(name: str, run: Any, text: str, parents: Sequence[argparse.ArgumentParser] = (configured,)) -> Any:
        added = verbs.add_parser(name, help=text, description=text, parents=list(parents))
        added.set_defaults(verb=run)
        return added

    verb("run", _run, "run the bridge until SIGTERM")
    verb("check", _check, "check settings, worker definition and routes, offline")
    worker = verb("worker", gdn.worker, "ask about the stream worker in GDN, or delete it")
    worker.add_argument("action", choices=["status", "delete"])
    worker.add_argument("--json", action="store_true", help="print JSON")
    query = verb("query", gdn.query, "run a C8QL query and print its rows")
    query.add_argument("c8ql", metavar="C8QL")
    query.add_argument("--json", action="store_true", help="print JSON even on a terminal")
    demo = verb("demo", local.demo, "run broker, local GDN, devices and bridge on this machine", ())
    demo.add_argument("--seconds", type=float, default=10.0, help="how long the devices publish (default 10)")
    demo.add_argument("--rate", type=float, default=200.0, help="messages a second (default 200)")
    demo.add_argument("--json", action="store_true", help="print one JSON object at the end, nothing else")
    serve = verb("local-gdn", local.local_gdn, "serve a GDN on this machine, for demonstrations and tests", ())
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=int, required=True)
    serve.add_argument("--tls", action="store_true", help="serve https and wss with a throw-away certificate")
    serve.add_argument("--host-name", default="localhost", help="the name it gives itself (default localhost)")
    serve.add_argument("--api-key", default="demo.local.key", help="the key it takes (default demo.local.key)")
    serve.add_argument("--tenant", default="demo", help="the tenant it serves (default demo)")
    return parser


def _override(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError("write it as KEY=VALUE, such as log.level=debug")
    return key, value


def _run(arguments: argparse.Namespace) -> int:
    from bridge.daemon import Daemon  # noqa: PLC0415 - the other verbs start faster without the data path

    planned = plan(arguments)
    configure_log(planned.settings)

    def reload() -> Settings:
        return load(config_file=arguments.config, environ=os.environ, overrides=dict(arguments.set))

    return Daemon(
        settings=planned.settings,
        worker=planned.worker,
        streams=planned.streams,
        routes=planned.routes,
        rest=gdn_rest(planned),
        reload=reload,
    ).run()


def _check(arguments: argparse.Namespace) -> int:
    planned = plan(arguments)
    print(f"worker {planned.worker.name} ({planned.settings.worker.definition}): read")
    for route in planned.settings.routes:
        columns = ", ".join(f"{a.name} {a.type.value}" for a in planned.streams[route.stream].attributes or ())
        print(f"route {route.topic} -> {route.stream} ({columns})")
    print("nothing to mend")
    return 0
