"""The verb ``status``: asks a running bridge for its status and prints it for people."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from bridge.cli import exits
from bridge.cli.configuration import load_settings
from bridge.cli.exits import CommandError, UsageError
from bridge.cli.healthcheck import MAX_ANSWER, TIMEOUT, reachable
from bridge.cli.printing import MAX_NAMED, table, unwatched_sentence
from bridge.errors import SettingError
from bridge.text import printable

LATE_SECONDS = 60.0
"""Seconds beyond its interval in which a check may run or be answered: others run before it, each with a timeout."""

MAX_QUOTED = 200
"""Characters of a query that are shown."""


def status(arguments: argparse.Namespace) -> int:
    """Print the parts, books, outbox and far end, from ``/readyz``.

    Returns:
        0 if the bridge is ready, 1 if it isn't.

    Raises:
        CommandError: the bridge can't be reached.
        UsageError: ``--url`` is not the URL of a server.
        ConfigError: neither ``--url`` nor the settings have the address.
    """
    url = arguments.url or _url_from_settings(arguments)
    connection, path = _connection(url)
    try:
        answer = _readiness(connection, path)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        why = printable(str(exc)) or type(exc).__name__
        raise CommandError(exits.UNAVAILABLE, f"no status from {url}: {why}. {_advice(exc)}") from exc
    finally:
        connection.close()
    if arguments.json:
        print(json.dumps(answer))
    else:
        print("\n".join(lines(answer, url)))
    return 0 if answer["ready"] is True else exits.FAILED


def lines(answer: Mapping[str, Any], url: str) -> Iterator[str]:
    """The answer of ``/readyz`` for people."""
    yield f"The bridge at {url} is {'ready' if answer['ready'] is True else 'not ready'}."
    yield ""
    yield table(
        [{"part": part["name"], "state": part["state"], "since": _time(part["since"])} for part in answer["parts"]]
    )
    failing = [part for part in answer["parts"] if part["error"]]
    for part in failing:
        again = f" Next attempt at {_time(part['next_attempt'])}." if part["next_attempt"] else ""
        yield ""
        yield printable(f"{part['name']}: {part['error']}.{again}")
    yield ""
    books, outbox, health = answer["books"], answer["outbox"], answer["health"]
    yield (
        f"books    {books['received']} received = {books['delivered']} delivered + {books['outbox']} in the outbox + "
        f"{books['dead_lettered']} dead-lettered + {books['dropped']} dropped"
        f"{_imbalance(books)}"
    )
    yield (
        f"outbox   {outbox['bytes']} bytes, the oldest record has waited {outbox['oldest_seconds']} s; "
        f"{outbox['dead_letters']} dead letter{'' if outbox['dead_letters'] == 1 else 's'} kept"
    )
    if outbox["holding"]:
        yield printable(f"         holding, disconnected from the broker: {outbox['holding']}")
    if outbox["rate_limited"]:
        streams = ", ".join(outbox["rate_limited"])
        yield printable(f"         delivery.max_rate_rows or delivery.max_rate_bytes limits, not GDN: {streams}")
    yield from _broker(answer.get("broker", {}))
    yield from _notes("routes", answer.get("routes", {}).get("notes", []))
    yield f"far end  {', '.join(_far_end(health)) or 'not known yet'}"
    yield from _tables(health["tables"])
    yield from _checks(health["checks"])
    if health["unwatched_streams"]:
        yield unwatched_sentence(health["unwatched_streams"])


def _broker(broker: Mapping[str, Any]) -> Iterator[str]:
    """The broker that the bridge is connected to, and what it says of itself."""
    dropped, notes = broker.get("messages_dropped"), broker.get("notes", [])
    if dropped is not None:
        notes = [f"{dropped} messages dropped since its start, of any client", *notes]
    if broker.get("connected_to"):
        notes = [f"connected to {broker['connected_to']}", *notes]
    yield from _notes("broker", notes)


def _notes(name: str, notes: Sequence[str]) -> Iterator[str]:
    for n, note in enumerate(notes):
        yield printable(f"{'' if n else name:<9}{note}")


def _imbalance(books: Mapping[str, Any]) -> str:
    if books["balanced"]:
        return ""
    return ": records were lost, how many is unknown" if books["unknown_losses"] else ": they do not balance"


def _far_end(health: Mapping[str, Any]) -> Iterator[str]:
    active, canary = health["worker_active"], health["canary"]
    if active is not None:
        yield f"the worker is {'active' if active else 'not active'}"
    if health["query_result"] is not None:
        yield f"the health query returned {health['query_result']}"
    if health["rows_behind"] is not None:
        yield f"{health['rows_behind']} rows behind, {health['rows_lost']} lost"
    if canary is not None:
        hops = ", ".join(f"{hop} {seconds:g} s" for hop, seconds in canary["seconds"].items())
        yield f"{canary['rounds']['found']} canaries found, {canary['rounds']['lost']} lost" + (
            f" (the latest: {hops})" if hops else ""
        )


def _tables(tables: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The tables that lack rows, if several are counted."""
    lacking = [found for found in tables if found["rows_behind"] or found["rows_lost"]] if len(tables) > 1 else []
    for found in lacking[:MAX_NAMED]:
        yield printable(f"         {found['table']}: {found['rows_behind']} rows behind, {found['rows_lost']} lost")
    if len(lacking) > MAX_NAMED:
        yield f"         and {len(lacking) - MAX_NAMED} more tables"


def _checks(checks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """When the health query was last answered, and the other checks that were not answered at the last run."""
    for check in checks:
        when = _answered(check)
        if check["name"] == "query" and check["query"]:
            yield printable(f"query    {_cut(' '.join(check['query'].split()))}: {when}")
        elif not when.startswith("answered"):
            yield printable(f"{check['name']}: {when}")


def _answered(check: Mapping[str, Any]) -> str:
    asked, answered = check["asked_seconds"], check["answered_seconds"]
    if asked is None:
        return "not asked yet"
    if asked > check["interval"] + LATE_SECONDS:
        return f"not asked for {_duration(asked)}"
    if answered is None or answered > check["interval"] + LATE_SECONDS:
        return "not answered yet" if answered is None else f"not answered for {_duration(answered)}"
    return f"answered {_duration(answered)} ago"


def _duration(seconds: float) -> str:
    """In the largest unit that gives at least 1."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}…"


def _time(text: str | None) -> str:
    """A time from ``/readyz``, in UTC, to the second."""
    return "" if text is None else f"{text[:19].replace('T', ' ')} UTC"


def _url_from_settings(arguments: argparse.Namespace) -> str:
    settings = load_settings(arguments, offline=True).status
    if settings.port == 0:
        raise SettingError("status.listen", "with port 0 the bridge's port is unknown; give --url")
    host = reachable(settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _connection(url: str) -> tuple[http.client.HTTPConnection, str]:
    """A connection that isn't open yet, and the path of ``/readyz``.

    Raises:
        UsageError: the URL is invalid.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # the port
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("--url: must be http://host:port, with a port from 1 to 65535, such as http://127.0.0.1:8080")
    connection_type = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return connection_type(parts.hostname, port, timeout=TIMEOUT), f"{parts.path.rstrip('/')}/readyz"


def _advice(exc: Exception) -> str:
    """What to do about a missing answer."""
    if isinstance(exc, ssl.SSLError):
        return "The bridge itself has no TLS: write the URL as http://, or check the proxy in front of it."
    if isinstance(exc, socket.gaierror):
        return "Check the host name."
    if isinstance(exc, TimeoutError):
        return "Check the address; if it is right, a firewall may be in between, or the bridge hangs."
    if isinstance(exc, OSError):
        return "Is the bridge running, and listening there?"
    return "Check that this is the address of the bridge's status server (status.listen)."


def _readiness(connection: http.client.HTTPConnection, path: str) -> dict[str, Any]:
    """The answer of ``/readyz``.

    Raises:
        OSError, http.client.HTTPException: there is no answer.
        ValueError: the answer isn't from a bridge.
    """
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read(MAX_ANSWER)
    try:
        answer = json.loads(body)
        if {"ready", "parts", "books", "outbox", "health"} <= answer.keys():
            return dict(answer)
    except (ValueError, AttributeError):
        pass
    raise ValueError(f"the answer of /readyz ({response.status}) isn't that of this version of the bridge")
