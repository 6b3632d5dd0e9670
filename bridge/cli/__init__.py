"""The command line: parses the arguments, runs a verb and returns its exit code (``exits``).

Errors that the user can fix are printed as messages, not as tracebacks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge import __version__, signals
from bridge.cli import dead_letters, examples, exits, init, local
from bridge.cli.arguments import UsageError
from bridge.cli.check import check
from bridge.cli.configuration import configure_log, gdn_rest, problems_of, read_configuration
from bridge.cli.healthcheck import healthcheck
from bridge.cli.query import query
from bridge.cli.status import status
from bridge.cli.worker import worker
from bridge.config import load
from bridge.errors import BridgeError, ConfigError, GdnError

CONFIG_VARIABLE = "GDN_BRIDGE_CONFIG"
"""Names the TOML file for every verb, also for a container's health check, which doesn't get the arguments of `run`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    try:
        signals.unblock()
        return int(arguments.verb(arguments))
    except ConfigError as exc:
        for problem in problems_of(exc, arguments):
            print(f"gdn-bridge: {problem}", file=sys.stderr)
        return exits.CONFIG
    except UsageError as exc:
        print(f"gdn-bridge: {exc}", file=sys.stderr)
        return exits.USAGE
    except GdnError as exc:
        print(f"gdn-bridge: {exc}", file=sys.stderr)
        return exits.UNAVAILABLE
    except BridgeError as exc:
        print(f"gdn-bridge: {exc}", file=sys.stderr)
        return exits.FAILED
    except BrokenPipeError:
        # The reader closed the pipe. Without this, the interpreter reports another error when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("gdn-bridge: interrupted", file=sys.stderr)
        return exits.INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gdn-bridge",
        description="Feeds Macrometa GDN stream workers from MQTT devices.",
        epilog="Settings are read from BRIDGE_… variables, secret files and a TOML file; docs/settings.md lists them.",
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
        help="override a setting, such as log.level=debug; not for secrets, which other users could see",
    )

    def verb(name: str, run: Any, text: str, parents: Sequence[argparse.ArgumentParser] = (configured,)) -> Any:
        added = verbs.add_parser(name, help=text, description=text, parents=list(parents))
        added.set_defaults(verb=run)
        return added

    verb("run", _run, "run the bridge until SIGTERM")
    added = verb("init", init.init, "write a first bridge.toml and worker.sql from sample messages", ())
    init.add_arguments(added)
    added = verb("check", check, "check settings, worker definition and routes; with --online also broker and GDN")
    added.add_argument("--online", action="store_true", help="also check broker and GDN, without changing anything")
    added.add_argument("--json", action="store_true", help="print JSON")
    added = verb("explain", examples.explain_message, "show step by step what a message becomes")
    added.add_argument("topic", metavar="TOPIC", help="topic of the message")
    added.add_argument("payload", metavar="PAYLOAD", help="text, @FILE, or - for standard input")
    added.add_argument("--qos", type=int, choices=[0, 1, 2], default=1, help="QoS of the message (default: 1)")
    added.add_argument("--retain", action="store_true", help="treat it as a retained message")
    added.add_argument(
        "--user",
        action="append",
        default=[],
        type=_override,
        metavar="NAME=VALUE",
        help="add a user property; can be repeated",
    )
    added.add_argument("--json", action="store_true", help="print JSON")
    added = verb("test", examples.test_examples, "run the examples in the routes' configuration")
    added.add_argument("--verbose", action="store_true", help="also list the examples that pass")
    added = verb("healthcheck", healthcheck, "check that the bridge with these settings on this machine is live")
    added.add_argument("--ready", action="store_true", help="check that it is ready: every part is connected")
    added = verb("status", status, "show the status of a running bridge: its parts, books, outbox and far end")
    added.add_argument("--url", metavar="URL", help="URL of its status server (default: from status.listen)")
    added.add_argument("--json", action="store_true", help="print the JSON of /readyz")
    added = verb("worker", worker, "show the stream worker in GDN, make it match the file, or delete it")
    added.add_argument(
        "action",
        choices=["status", "plan", "apply", "validate", "delete"],
        help="plan: show what apply would do (exit code 0: nothing, 2: something); apply: do it (the worker doesn't "
        "get rows that a running bridge sends meanwhile: stop the bridge, or use worker.on_drift); validate: check "
        "that GDN can read the file",
    )
    added.add_argument("--json", action="store_true", help="print JSON")
    added = verb("query", query, "run a C8QL query and print its rows")
    added.add_argument("c8ql", metavar="C8QL", help="the query")
    added.add_argument("--json", action="store_true", help="print JSON, also on a terminal")
    added = verb("deadletter", None, "list, show, replay, purge or export dead letters", ())
    dead_letters.add_actions(added, configured)
    local.add_verbs(verb)
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
