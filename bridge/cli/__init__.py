"""The command line: verbs in, exit codes out. What a person did wrong is said in sentences, not in tracebacks.

Exit codes: 0 done · 1 failed while running · 2 wrong usage, or `worker plan` found something to do ·
69 broker or GDN could not be reached, or refused · 78 settings are wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge import __version__
from bridge.cli import deadletters, examples, exits, gdn, init, local
from bridge.cli.check import check
from bridge.cli.configuration import configure_log, gdn_rest, read_configuration
from bridge.cli.healthcheck import healthcheck
from bridge.cli.status import status
from bridge.config import load
from bridge.errors import BridgeError, ConfigError, GdnError

CONFIG_VARIABLE = "GDN_BRIDGE_CONFIG"
"""Names the TOML file for every verb at once: a container's health check isn't told what `run` was told."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.verb(arguments))
    except ConfigError as exc:
        for problem in exc.problems:
            print(f"gdn-bridge: {problem}", file=sys.stderr)
        return exits.CONFIG
    except GdnError as exc:
        print(f"gdn-bridge: {exc}", file=sys.stderr)
        return exits.UNAVAILABLE
    except BridgeError as exc:
        print(f"gdn-bridge: {exc}", file=sys.stderr)
        return exits.FAILED
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
    configured.add_argument(
        "--config",
        type=Path,
        default=os.environ.get(CONFIG_VARIABLE) or None,
        metavar="FILE",
        help=f"TOML file with settings (default: ${CONFIG_VARIABLE})",
    )
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
    begun = verb("init", init.init, "write a first bridge.toml and worker.sql from messages that devices send", ())
    init.add_arguments(begun)
    checked = verb("check", check, "check settings, worker definition and routes; --online: broker and GDN, too")
    checked.add_argument("--online", action="store_true", help="ask broker and GDN, changing nothing")
    checked.add_argument("--json", action="store_true", help="print JSON")
    told = verb("explain", examples.explain_message, "show step by step what a message becomes")
    told.add_argument("topic", metavar="TOPIC")
    told.add_argument("payload", metavar="PAYLOAD", help="text, @FILE, or - for standard input")
    told.add_argument("--qos", type=int, choices=[0, 1], default=1)
    told.add_argument("--retain", action="store_true", help="as a retained message")
    told.add_argument("--user", action="append", default=[], type=_override, metavar="NAME=VALUE", help="user property")
    told.add_argument("--json", action="store_true", help="print JSON")
    tested = verb("test", examples.test_examples, "run the examples that stand beside the routes")
    tested.add_argument("--verbose", action="store_true", help="name those that pass, too")
    probe = verb("healthcheck", healthcheck, "ask the bridge that runs here with these settings whether it is live")
    probe.add_argument("--ready", action="store_true", help="ask whether it is ready: every part connected")
    asked = verb("status", status, "ask a running bridge how it is: each part, the books, the outbox, the far end")
    asked.add_argument("--url", metavar="URL", help="where its status server is (default: status.listen)")
    asked.add_argument("--json", action="store_true", help="print JSON, as /readyz gives it")
    worker = verb("worker", gdn.worker, "look at the stream worker in GDN, make it what the file says, or delete it")
    worker.add_argument(
        "action",
        choices=["status", "plan", "apply", "validate", "delete"],
        help="plan: what apply would do (exit code 0: nothing, 2: something); apply: do it (rows that a running bridge "
        "sends meanwhile are lost to the worker: stop it, or see worker.on_drift); validate: have GDN read the file",
    )
    worker.add_argument("--json", action="store_true", help="print JSON")
    query = verb("query", gdn.query, "run a C8QL query and print its rows")
    query.add_argument("c8ql", metavar="C8QL")
    query.add_argument("--json", action="store_true", help="print JSON even on a terminal")
    letters = verb("deadletter", None, "look at dead letters, replay or purge them", ())
    deadletters.add_actions(letters, configured)
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
    serve.add_argument("--password", help="of root@TENANT.example, who may then log in in place of the key")
    serve.add_argument(
        "--token-seconds", type=float, default=43_200.0, help="how long such a login lasts (default 43200)"
    )
    serve.add_argument(
        "--fault",
        action="append",
        default=[],
        type=local.fault,
        metavar="NAME[=VALUE]",
        help="something that it does to its users, such as slow=3; may be given again (an unknown one lists them all)",
    )
    things = verb("devices", local.devices, "publish as simulated devices until SIGTERM", ())
    things.add_argument("--url", default="mqtt://127.0.0.1", help="the broker (default mqtt://127.0.0.1)")
    things.add_argument("--rate", type=float, default=5.0, help="messages a second (default 5)")
    things.add_argument("--username", help="user name for the broker")
    things.add_argument("--password-file", type=Path, metavar="FILE", help="file that holds the password")
    things.add_argument("--ca-file", type=Path, metavar="FILE", help="authorities that may vouch for the broker")
    things.add_argument("--cert-file", type=Path, metavar="FILE", help="the devices' own certificate")
    things.add_argument("--key-file", type=Path, metavar="FILE", help="the key of --cert-file")
    return parser


def _override(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError("write it as KEY=VALUE, such as log.level=debug")
    return key, value


def _run(arguments: argparse.Namespace) -> int:
    from bridge.service.daemon import Daemon  # noqa: PLC0415 - the other verbs start faster without the data path

    configuration = read_configuration(arguments)
    configure_log(configuration.settings)

    return Daemon(
        configuration=configuration,
        rest=gdn_rest(configuration),
        reload_settings=lambda: load(config_file=arguments.config, environ=os.environ, overrides=dict(arguments.set)),
        read_configuration=lambda: read_configuration(arguments),
    ).run()
