"""The command line: parses the arguments, runs a verb and returns its exit code (``exits``).

Errors that the user can fix are printed as messages, not as tracebacks.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge import __version__, signals
from bridge.cli import dead_letters, examples, exits, init, local
from bridge.cli.arguments import Parser
from bridge.cli.check import check
from bridge.cli.configuration import configure_log, gdn_rest, load_settings, problems_of, read_configuration
from bridge.cli.exits import CommandError, UsageError
from bridge.cli.healthcheck import healthcheck
from bridge.cli.query import query
from bridge.cli.status import status
from bridge.cli.worker import worker
from bridge.errors import BridgeError, ConfigError, GdnError
from bridge.log import configure

CONFIG_VARIABLE = "GDN_BRIDGE_CONFIG"
"""Names the TOML file for every verb, also for a container's health check, which doesn't get the arguments of `run`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    code, problems = _run_verb(words)
    if problems and "--json" in words:
        print(json.dumps({"errors": list(problems), "exit_code": code}))
    else:
        for problem in problems:
            print(f"gdn-bridge: {problem}", file=sys.stderr)
    return code


def _run_verb(words: Sequence[str]) -> tuple[int, Sequence[str]]:
    """The exit code, and the problems that made the command fail."""
    arguments = argparse.Namespace()
    try:
        arguments = _parse(words)
        if arguments.verb not in (_run, local.demo):  # these install their handlers first
            signals.unblock()
        # For verbs without settings, and until they are read: a library's warnings must not get into the output.
        configure(level="warning", format="console", stream=sys.stderr)
        return int(arguments.verb(arguments)), ()
    except ConfigError as exc:
        return exits.CONFIG, problems_of(exc, arguments)
    except CommandError as exc:
        return exc.code, exc.problems
    except GdnError as exc:
        return exits.UNAVAILABLE, [str(exc)]
    except BridgeError as exc:
        return exits.FAILED, [str(exc)]
    except BrokenPipeError:
        # The reader closed the pipe. Without this, the interpreter reports another error when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0, ()
    except KeyboardInterrupt:
        return exits.INTERRUPTED, ["interrupted"]


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments, including the options before the verb.

    Raises:
        UsageError: they are wrong.
    """
    parser = _parser()
    arguments = parser.parse_args(words)
    if hasattr(arguments, "set"):
        default = os.environ.get(CONFIG_VARIABLE)
        arguments.config = arguments.config or arguments.config_before or (Path(default) if default else None)
        arguments.set = [*arguments.set_before, *arguments.set]
    elif arguments.config_before or arguments.set_before:
        raise UsageError("--config and --set are for commands that read settings; this one reads none")
    return arguments


def _parser() -> Parser:
    parser = Parser(
        prog="gdn-bridge",
        description="Feeds Macrometa GDN stream workers from MQTT devices.",
        epilog="Settings are read from BRIDGE_… variables, secret files and a TOML file; docs/settings.md lists them.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"gdn-bridge {__version__}")
    _add_settings(parser, suffix="_before")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    output = Parser(add_help=False)
    output.add_argument("--json", action="store_true", help="print JSON instead of text, also for errors")
    configured = Parser(add_help=False, parents=[output])
    _add_settings(configured, suffix="")

    def verb(name: str, run: Any, text: str, parents: Sequence[Parser] = (configured,)) -> Any:
        added = verbs.add_parser(name, help=text, description=text, parents=list(parents))
        added.set_defaults(verb=run)
        return added

    added = verb("help", lambda arguments: _help(parser, arguments), "show the help, also that of a verb", ())
    added.add_argument("words", nargs="*", metavar="VERB", help="such as `check`, or `deadletter list`")
    verb("run", _run, "run the bridge until SIGTERM")
    added = verb("init", init.init, "write a first bridge.toml and worker.sql from sample messages", (output,))
    init.add_arguments(added)
    added = verb("check", check, "check settings, worker definition and routes; with --online also broker and GDN")
    added.add_argument("--online", action="store_true", help="also check broker and GDN, without changing anything")
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
    added = verb("test", examples.test_examples, "run the examples in the routes' configuration")
    added.add_argument("--verbose", action="store_true", help="also list the examples that pass")
    added = verb("healthcheck", healthcheck, "check that the bridge with these settings on this machine is live")
    added.add_argument("--ready", action="store_true", help="check that it is ready: every part is connected")
    added = verb("status", status, "show the status of a running bridge: its parts, books, outbox and far end")
    added.add_argument("--url", metavar="URL", help="URL of its status server (default: from status.listen)")
    added = verb("worker", worker, "show the stream worker in GDN, make it match the file, or delete it")
    added.add_argument(
        "action",
        choices=["status", "plan", "apply", "validate", "delete"],
        help="plan: show what apply would do (exit code 0: nothing, 2: something); apply: do it (the worker doesn't "
        "get rows that a running bridge sends meanwhile: stop the bridge, or use worker.on_drift); validate: check "
        "that GDN can read the file",
    )
    added = verb("query", query, "run a C8QL query and print its rows: as a table on a terminal, else as JSON")
    added.add_argument("c8ql", metavar="C8QL", help="the query")
    added = verb("deadletter", None, "list, show, replay, purge or export dead letters", ())
    dead_letters.add_actions(added, configured)
    local.add_verbs(verb, output)
    return parser


def _add_settings(parser: argparse.ArgumentParser, *, suffix: str) -> None:
    """The options that say where settings come from; ``suffix`` of their attributes."""
    parser.add_argument(
        "--config",
        dest=f"config{suffix}",
        type=Path,
        metavar="FILE",
        help=f"TOML file with settings (default: ${CONFIG_VARIABLE})",
    )
    parser.add_argument(
        "--set",
        dest=f"set{suffix}",
        action="append",
        default=[],
        type=_override,
        metavar="KEY=VALUE",
        help="override a setting, such as log.level=debug; not for secrets, which other users could see",
    )


def _help(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    parser.parse_args([*arguments.words, "--help"])  # prints and exits
    return 0


def _override(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError("write it as KEY=VALUE, such as log.level=debug")
    return key, value


def _run(arguments: argparse.Namespace) -> int:
    # The other verbs start faster without the data path.
    from bridge.service.daemon import Daemon, signal_events  # noqa: PLC0415

    with signal_events() as events:
        configuration = read_configuration(arguments)
        configure_log(configuration.settings, for_people=False)
        return Daemon(
            configuration=configuration,
            rest=gdn_rest(configuration),
            reload_settings=lambda: load_settings(arguments),
            read_configuration=lambda: read_configuration(arguments),
            events=events,
        ).run()
