"""The command line: verbs in, exit codes out. What a person did wrong is said in sentences, not in tracebacks.

Exit codes: 0 done · 1 failed while running · 2 wrong usage · 69 GDN could not be asked · 78 settings are wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bridge import __version__
from bridge.config import Settings, load
from bridge.errors import BridgeError, ConfigError, GdnError
from bridge.gdn.address import GdnAddress
from bridge.gdn.budget import Budget
from bridge.gdn.rest import GdnRest
from bridge.gdn.worker import is_other
from bridge.log import configure
from bridge.mapping import Route, check
from bridge.streamql import StreamQLError, Worker, parse
from bridge.streamql.streams import InputStream, input_streams

EXIT_FAILED = 1
EXIT_UNAVAILABLE = 69  # sysexits.h, EX_UNAVAILABLE
EXIT_CONFIG = 78  # sysexits.h, EX_CONFIG


class Plan(NamedTuple):
    """Settings and what they name, checked."""

    settings: Settings
    worker: Worker
    streams: dict[str, InputStream]
    routes: list[Route]


def plan(arguments: argparse.Namespace) -> Plan:
    """Everything that can be known offline.

    Raises:
        ConfigError: with every problem that was found.
    """
    settings = load(config_file=arguments.config, environ=os.environ, overrides=dict(arguments.set))
    problems: list[str] = []
    worker = streams = None
    try:
        worker = _read_worker(settings.worker.definition)
    except ConfigError as exc:
        problems += exc.problems
    routes = [Route(route.topic, route.stream, route.fields, route.id) for route in settings.routes]
    if worker is not None:
        streams = input_streams(worker)
        problems += [f"BRIDGE_ROUTES: {problem}" for problem in check(routes, streams)]
    if problems or worker is None or streams is None:
        raise ConfigError(*problems)
    return Plan(settings, worker, streams, routes)


def _read_worker(path: Path) -> Worker:
    try:
        text = path.read_bytes().decode()
    except OSError as exc:
        raise ConfigError(f"BRIDGE_WORKER__DEFINITION: {path} can't be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"BRIDGE_WORKER__DEFINITION: {path} is not UTF-8 (byte {exc.start})") from exc
    try:
        return parse(text)
    except StreamQLError as exc:
        raise ConfigError(f"{path}:{exc.line}:{exc.column}: {exc.message}") from exc


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
    worker = verb("worker", _worker, "ask about the stream worker in GDN, or delete it")
    worker.add_argument("action", choices=["status", "delete"])
    worker.add_argument("--json", action="store_true", help="print JSON")
    query = verb("query", _query, "run a C8QL query and print its rows")
    query.add_argument("c8ql", metavar="C8QL")
    query.add_argument("--json", action="store_true", help="print JSON even on a terminal")
    demo = verb("demo", _demo, "run broker, local GDN, devices and bridge on this machine", ())
    demo.add_argument("--seconds", type=float, default=10.0, help="how long the devices publish (default 10)")
    demo.add_argument("--rate", type=float, default=200.0, help="messages a second (default 200)")
    demo.add_argument("--json", action="store_true", help="print one JSON object at the end, nothing else")
    local = verb("local-gdn", _local_gdn, "serve a GDN on this machine, for demonstrations and tests", ())
    local.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    local.add_argument("--port", type=int, required=True)
    local.add_argument("--tls", action="store_true", help="serve https and wss with a throw-away certificate")
    local.add_argument("--host-name", default="localhost", help="the name it gives itself (default localhost)")
    local.add_argument("--api-key", default="demo.local.key", help="the key it takes (default demo.local.key)")
    local.add_argument("--tenant", default="demo", help="the tenant it serves (default demo)")
    return parser


def _override(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError("write it as KEY=VALUE, such as log.level=debug")
    return key, value


def _configure_log(settings: Settings) -> None:
    secrets = [secret.get_secret_value() for secret in (settings.gdn.api_key, settings.mqtt.password) if secret]
    configure(level=settings.log.level, format=settings.log.format, stream=sys.stderr, secrets=secrets)


def _run(arguments: argparse.Namespace) -> int:
    from bridge.daemon import Daemon  # noqa: PLC0415 - the other verbs start faster without the data path

    planned = plan(arguments)
    _configure_log(planned.settings)

    def reload() -> Settings:
        return load(config_file=arguments.config, environ=os.environ, overrides=dict(arguments.set))

    return Daemon(
        settings=planned.settings,
        worker=planned.worker,
        streams=planned.streams,
        routes=planned.routes,
        rest=_rest(planned),
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


def _far_end(arguments: argparse.Namespace) -> tuple[Plan, GdnRest]:
    """For the verbs that ask GDN.

    Raises:
        ConfigError: also where the far end is no GDN.
    """
    planned = plan(arguments)
    if planned.settings.gdn.kind == "pulsar":
        raise ConfigError("BRIDGE_GDN__KIND: a plain Pulsar has no stream workers and no queries: this needs a GDN")
    _configure_log(planned.settings)
    return planned, _rest(planned)


def _rest(planned: Plan) -> GdnRest:
    gdn = planned.settings.gdn
    return GdnRest(
        base_url=GdnAddress.parse(gdn.url).base_url,
        fabric=gdn.fabric,
        api_key="" if gdn.api_key is None else gdn.api_key.get_secret_value(),
        timeout=gdn.request_timeout,
        ca_file=None if gdn.ca_file is None else str(gdn.ca_file),
        budget=Budget(per_minute=gdn.requests_per_minute, per_day=gdn.requests_per_day),
    )


def _worker(arguments: argparse.Namespace) -> int:
    planned, rest = _far_end(arguments)
    name = planned.worker.name
    if arguments.action == "delete":
        deleted = rest.delete_worker(name)
        text = f"worker {name}: deleted; its streams and collections stay" if deleted else f"worker {name}: not there"
        print(json.dumps({"worker": name, "deleted": deleted}) if arguments.json else text)
        return 0
    state = rest.get_worker(name)
    found = {
        "worker": name,
        "exists": state is not None,
        "active": state is not None and state.is_active,
        "regions": [] if state is None else list(state.regions),
        "definition": "missing" if state is None else "differs" if is_other(state, planned.worker) else "same",
    }
    if arguments.json:
        print(json.dumps(found))
    elif state is None:
        print(f"worker {name}: not there; the bridge creates it when it runs")
    else:
        active = "active" if state.is_active else "not active"
        print(
            f"worker {name}: {active} in {', '.join(state.regions)}; its definition is "
            f"{'the same as' if found['definition'] == 'same' else 'not that of'} {planned.settings.worker.definition}"
        )
    return 0


def _query(arguments: argparse.Namespace) -> int:
    _, rest = _far_end(arguments)
    rows = rest.query(arguments.c8ql)
    if arguments.json or not sys.stdout.isatty():
        print(json.dumps(rows, ensure_ascii=False))
    else:
        print(_table(rows))
    return 0


def _table(rows: list[Any]) -> str:
    """Rows under the names of their members; values that are no objects under ``value``."""
    records = [row if isinstance(row, dict) else {"value": row} for row in rows]
    names = list(dict.fromkeys(name for record in records for name in record))
    lines = [names] + [
        ["" if name not in r else r[name] if isinstance(r[name], str) else json.dumps(r[name]) for name in names]
        for r in records
    ]
    # What devices sent must not steer the terminal.
    lines = [["".join(c if c.isprintable() else "\ufffd" for c in cell) for cell in line] for line in lines]
    widths = [max(len(line[n]) for line in lines) for n in range(len(names))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _demo(arguments: argparse.Namespace) -> int:
    _need_local()
    from bridge.local.demo import run_demo  # noqa: PLC0415 - needs the extra `local`

    return run_demo(seconds=arguments.seconds, rate=arguments.rate, as_json=arguments.json)


def _local_gdn(arguments: argparse.Namespace) -> int:
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
