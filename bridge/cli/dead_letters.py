"""The verb ``deadletter``: lists, shows, replays, purges and exports dead letters.

The outbox has one owner. While a bridge runs, ``replay`` and ``purge`` only mark dead letters, and the bridge does the
work. While none runs, this command is the owner.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TextIO

from bridge.cli.arguments import whole_number_between
from bridge.cli.configuration import configure_log, load_settings, read_configuration
from bridge.cli.dead_letter_view import export, iso_time, parse_since, summary
from bridge.cli.exits import UsageError
from bridge.cli.printing import content, table
from bridge.config import Settings
from bridge.errors import BridgeError, ConfigError, OutboxInUse
from bridge.mapping import Mapper
from bridge.mapping.row_formats import KEY_PREFIX as ROW_FORMATS
from bridge.mapping.row_formats import RowFormats
from bridge.mapping.sparkplug import KEY_PREFIX
from bridge.outbox import DeadLetterClient, Outbox, RequestedAction, Selection, StoredDeadLetter, check_exists
from bridge.path.replay import carry_out_requests, map_again
from bridge.service.reload import Configuration
from bridge.text import counted, printable

LISTED = 100
"""Dead letters that ``list`` shows by default."""

SHOWN = 80
"""Characters of a topic or a detail in a list."""

STALL_TIMEOUT = 10.0
"""Seconds to wait for a running bridge that makes no progress."""

POLL_INTERVAL = 0.2
"""Seconds."""

NOTHING = "no dead letters match"

_positive = whole_number_between(1, (1 << 63) - 1)


def add_actions(verb: argparse.ArgumentParser, configured: argparse.ArgumentParser) -> None:
    """Add the verb's actions. ``configured`` has the options of every verb that reads settings."""
    actions = verb.add_subparsers(title="actions", required=True, metavar="ACTION")

    def action(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=text, parents=[configured])
        added.set_defaults(verb=run)
        return added

    added = action("list", _list, "list dead letters, oldest first")
    _add_selection(added)
    added.set_defaults(limit=LISTED)
    added = action("show", _show, "show everything about one dead letter")
    added.add_argument("id", metavar="ID", type=_positive, help="number of the dead letter")
    replay = action("replay", _replay, "map dead letters again with the current routes, and send their rows")
    purge = action("purge", _purge, "delete dead letters")
    purge.add_argument("--all", action="store_true", help="purge all of them; required if nothing else selects any")
    for added in (replay, purge):
        _add_selection(added)
        added.add_argument("--dry-run", action="store_true", help="show what would happen, without changing anything")
        added.add_argument("--no-wait", action="store_true", help="don't wait for the running bridge to finish")
    added = action("export", _export, "write dead letters as JSON, one per line")
    _add_selection(added)
    added.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="a new file, readable only by its owner (default: standard output)",
    )


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ids", metavar="ID", type=_positive, nargs="*", help="only these (default: all that match the options)"
    )
    parser.add_argument("--reason", action="append", default=[], help="only with this reason; can be repeated")
    parser.add_argument(
        "--route", action="append", default=[], help="only from this route, given by its topic; can be repeated"
    )
    parser.add_argument(
        "--since", type=_since, metavar="TIME", help="only those received since 15m, 2h or 3d ago, or ISO 8601 (UTC)"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the oldest N")


def _since(text: str) -> int:
    try:
        return parse_since(text, now=time.time())
    except (ValueError, OverflowError) as exc:
        raise argparse.ArgumentTypeError("write it as 15m, 2h, 3d or 2026-01-31T12:00:00Z") from exc


def _selection(arguments: argparse.Namespace) -> Selection:
    return Selection(arguments.ids, arguments.reason, arguments.route, arguments.since)


def _settings(arguments: argparse.Namespace) -> Settings:
    settings = load_settings(arguments, offline=True)
    configure_log(settings)
    return settings


# --- list, show and export ------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> int:
    selection = _selection(arguments)
    with DeadLetterClient(_settings(arguments).outbox.path) as client:
        found = [summary(stored) for stored in client.dead_letters(selection, limit=arguments.limit)]
        more = client.count(selection) - len(found)
    if arguments.json:
        print(json.dumps(found))
    elif not found:
        print(NOTHING)
    else:
        shown = [{name: v if isinstance(v, int) else _short(v) for name, v in row.items()} for row in found]
        print(table(shown))
    if more > 0:
        print(f"{more} more; use --limit to show them", file=sys.stderr)
    return 0


def _short(text: str | None) -> str:
    return "" if text is None else text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _show(arguments: argparse.Namespace) -> int:
    with DeadLetterClient(_settings(arguments).outbox.path) as client:
        stored = next(client.dead_letters(Selection(ids=[arguments.id])), None)
    if stored is None:
        raise BridgeError(f"there is no dead letter {arguments.id}; it may have been replayed or purged")
    if arguments.json:
        print(json.dumps(export(stored)))
    else:
        for line in _details(stored):
            print(line)
    return 0


def _details(stored: StoredDeadLetter) -> Iterator[str]:
    dead_letter = stored.dead_letter
    for name, value in (
        ("id", stored.id),
        ("received at", iso_time(dead_letter.received_at)),
        ("topic", dead_letter.topic),
        ("qos", dead_letter.qos),
        ("retained", "yes" if dead_letter.retain else "no"),
        ("route", dead_letter.route),
        ("reason", dead_letter.reason),
        ("detail", dead_letter.detail),
        ("mapping", dead_letter.mapping),
        ("stream", stored.stream),
        ("extras", stored.extras.decode(errors="replace")),
        ("wanted", stored.requested),
        ("properties", f"{len(dead_letter.properties)} bytes"),
    ):
        yield f"{name:<12} {'-' if value in (None, '') else printable(str(value))}"
    yield from (f"  {line}" for line in content(dead_letter.properties) if dead_letter.properties)
    beyond = f", and {dead_letter.omitted} more that were not kept" if dead_letter.omitted else ""
    yield f"{'payload':<12} {len(dead_letter.payload)} bytes{beyond}"
    yield from (f"  {line}" for line in content(dead_letter.payload) if dead_letter.payload)


def _export(arguments: argparse.Namespace) -> int:
    written = 0
    with DeadLetterClient(_settings(arguments).outbox.path) as client, _output(arguments.output) as file:
        for stored in client.dead_letters(_selection(arguments), limit=arguments.limit):
            print(json.dumps(export(stored)), file=file)
            written += 1
    print(f"{counted(written, 'dead letter')} written" if written else NOTHING, file=sys.stderr)
    return 0


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        # Only a new file: an existing one may be readable by others, or a device.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ConfigError(f"--output: {path} can't be created: {exc.strerror}") from exc
    try:
        with os.fdopen(handle, "w") as file:
            yield file
    except OSError as exc:
        raise BridgeError(f"--output: {path} can't be written: {exc.strerror}") from exc


# --- replay and purge -----------------------------------------------------------------------------------------


def _replay(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        return _try_replay(arguments)
    return _act(arguments, "replay")


def _purge(arguments: argparse.Namespace) -> int:
    selection = _selection(arguments)
    if arguments.dry_run:
        with DeadLetterClient(_settings(arguments).outbox.path) as client:
            count = client.count(selection)
        count = min(count, arguments.limit or count)
        _print(arguments, {"would_purge": count}, [f"would purge {count} dead letters"] if count else [NOTHING])
        return 0
    if selection.is_everything and not arguments.all:
        raise UsageError("purge can't be undone: select dead letters, or use --all")
    return _act(arguments, "purge")


def _try_replay(arguments: argparse.Namespace) -> int:
    configuration = read_configuration(arguments, offline=True)
    done = rows = 0
    failed: Counter[str] = Counter()
    with DeadLetterClient(configuration.settings.outbox.path) as client:
        mapping = _mapping(configuration, memory=client)
        formats = RowFormats(configuration.streams, client.saved_values(ROW_FORMATS))
        for stored in client.dead_letters(_selection(arguments), limit=arguments.limit):
            trial = map_again([stored], mapping, formats, streams=configuration.streams, next_id=1)
            done += len(trial.replayed.done)
            rows += len(trial.rows)
            failed.update(why.reason for _, why in trial.replayed.failed)
    lines = [f"would replay {done} dead letters as {rows} rows, with this command's settings"]
    if failed:
        lines.append(f"{failed.total()} would fail again: {_by_count(failed)}")
    found = {"would_replay": done, "rows": rows, "would_fail": dict(failed)}
    _print(arguments, found, lines if done or failed else [NOTHING])
    return 0


def _act(arguments: argparse.Namespace, action: RequestedAction) -> int:
    settings = _settings(arguments)
    selection = _selection(arguments)
    path = settings.outbox.path
    check_exists(path)
    outbox = Outbox(path, settings.outbox.bounds)
    try:
        outbox.open()
    except OutboxInUse:  # only its owner may change the outbox
        return _ask_the_bridge(path, selection, action, arguments)
    with closing(outbox), DeadLetterClient(path, may_mark=True) as client:
        before = client.counter("dead_letters_replayed")
        marked = client.mark(selection, action, limit=arguments.limit)
        try:
            if action == "purge":
                while outbox.purge_requested():
                    pass
            else:
                _replay_here(outbox, arguments)
        except KeyboardInterrupt:
            print("interrupted: the next bridge that runs does the rest", file=sys.stderr)
        outcome = _outcome(client, marked, action, before=before)
    _print(arguments, outcome, _lines(outcome, waits="the outbox is full; a bridge replays them later"))
    return 0


def _replay_here(outbox: Outbox, arguments: argparse.Namespace) -> None:
    configuration = read_configuration(arguments, offline=True)
    mapping = _mapping(configuration, memory=outbox)
    more = True
    while more:
        has_room = outbox.why_full(age=outbox.oldest_age()) is None
        more = carry_out_requests(outbox, mapping, streams=configuration.streams, has_room=has_room).more


def _mapping(configuration: Configuration, *, memory: Outbox | DeadLetterClient) -> Mapper:
    return Mapper(
        routes=configuration.routes,
        streams=configuration.streams,
        outbox_name=memory.saved_value("name") or "",
        client=configuration.settings.mqtt.client_id,
        births=memory.saved_values(KEY_PREFIX),
        sparkplug_bytes=configuration.settings.mqtt.sparkplug_bytes,
    )


def _ask_the_bridge(path: Path, selection: Selection, action: RequestedAction, arguments: argparse.Namespace) -> int:
    with DeadLetterClient(path, may_mark=True) as client:
        before = client.counter("dead_letters_replayed")
        marked = client.mark(selection, action, limit=arguments.limit)
        if marked and not arguments.json:
            print(f"{counted(len(marked), 'dead letter')} marked for the running bridge to {action}")
        if marked and not arguments.no_wait:
            try:
                _wait(client, marked, action)
            except KeyboardInterrupt:
                print("interrupted: the running bridge continues", file=sys.stderr)
        outcome = _outcome(client, marked, action, before=before)
    if arguments.json or not arguments.no_wait or not marked:
        _print(arguments, outcome, _lines(outcome, waits="the running bridge does it as soon as it can"))
    return 0


def _wait(client: DeadLetterClient, marked: Sequence[int], action: RequestedAction) -> None:
    """Wait until the bridge is done, or has made no progress for ``STALL_TIMEOUT``."""
    left = len(marked)
    give_up = time.monotonic() + STALL_TIMEOUT
    while time.monotonic() < give_up:
        now_left = client.count_pending(marked, action)
        if not now_left:
            return
        if now_left < left:
            left, give_up = now_left, time.monotonic() + STALL_TIMEOUT
            print(f"{left} left", file=sys.stderr)
        time.sleep(POLL_INTERVAL)


def _outcome(
    client: DeadLetterClient, marked: Sequence[int], action: RequestedAction, *, before: int
) -> dict[str, Any]:
    """What has become of the dead letters that were marked. The names are keys of the JSON output."""
    waiting = client.count_pending(marked, action)
    left = client.count_remaining(marked)
    gone = len(marked) - left.total()
    replayed = min(gone, client.counter("dead_letters_replayed") - before) if action == "replay" else 0
    return {
        "action": action,
        "matched": len(marked),
        "replayed": replayed,
        "purged": gone - replayed,
        "waiting": waiting,
        "failed": {} if waiting else dict(left),
    }


def _lines(outcome: dict[str, Any], *, waits: str) -> Iterator[str]:
    """The outcome for people; ``waits`` says why some may wait."""
    if not outcome["matched"]:
        yield NOTHING
        return
    if outcome["action"] == "replay":
        yield f"replayed {outcome['replayed']} dead letters"
    if outcome["purged"]:
        yield f"purged {outcome['purged']} dead letters"
    if outcome["waiting"]:
        yield f"{outcome['waiting']} wait: {waits}"
    if failed := Counter(outcome["failed"]):
        yield f"{failed.total()} failed again: {_by_count(failed)}"


def _print(arguments: argparse.Namespace, found: dict[str, Any], lines: Iterable[str]) -> None:
    print(json.dumps(found) if arguments.json else "\n".join(lines))


def _by_count(reasons: Counter[str]) -> str:
    return ", ".join(f"{printable(reason)} {count}" for reason, count in reasons.most_common())
