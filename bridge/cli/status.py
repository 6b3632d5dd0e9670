"""The verb ``status``: asks a running bridge how it is, and prints that for a person."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from bridge.cli import exits
from bridge.cli.healthcheck import MAX_ANSWER, TIMEOUT, reachable
from bridge.cli.printing import table
from bridge.config import load
from bridge.errors import ConfigError
from bridge.text import printable


def status(arguments: argparse.Namespace) -> int:
    """Each part, the books, the outbox and the far end, from ``/readyz``.

    Returns:
        0 ready, 1 not ready, 69 the bridge can't be reached.

    Raises:
        ConfigError: neither ``--url`` nor the settings say where it is.
    """
    url = arguments.url or _url_of_settings(arguments)
    try:
        answer = _asked(url)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        why = printable(str(exc)) or type(exc).__name__
        print(f"gdn-bridge: {url} can't be asked: {why}. Does the bridge run, and listen there?", file=sys.stderr)
        return exits.UNAVAILABLE
    if arguments.json:
        print(json.dumps(answer))
    else:
        print("\n".join(lines(answer, url)))
    return 0 if answer["ready"] is True else exits.FAILED


def lines(answer: Mapping[str, Any], url: str) -> Iterator[str]:
    """What ``/readyz`` says, for a person."""
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
        f"{'' if books['balanced'] else ': they do not balance'}"
    )
    yield (
        f"outbox   {outbox['bytes']} bytes, the oldest record waits for {outbox['oldest_seconds']} s; "
        f"{outbox['dead_letters']} dead letters kept"
    )
    if outbox["holding"]:
        yield printable(f"         nothing is taken from the broker: {outbox['holding']}")
    yield f"far end  {', '.join(_far_end(health)) or 'nothing is known yet'}"


def _far_end(health: Mapping[str, Any]) -> Iterator[str]:
    active, canary = health["worker_active"], health["canary"]
    if active is not None:
        yield f"the worker is {'active' if active else 'not active'}"
    if health["query_result"] is not None:
        yield f"the query gives {health['query_result']}"
    if health["rows_behind"] is not None:
        yield f"{health['rows_behind']} rows behind, {health['rows_lost']} lost"
    if canary is not None:
        hops = ", ".join(f"{hop} {seconds:g} s" for hop, seconds in canary["seconds"].items())
        yield f"{canary['rounds']['found']} canaries found, {canary['rounds']['lost']} lost" + (
            f" (the last one: {hops})" if hops else ""
        )


def _time(text: str | None) -> str:
    """A moment to the second, as ``/readyz`` writes it in UTC."""
    return "" if text is None else f"{text[:19].replace('T', ' ')} UTC"


def _url_of_settings(arguments: argparse.Namespace) -> str:
    settings = load(config_file=arguments.config, environ=os.environ, overrides=dict(arguments.set)).status
    if settings.port == 0:
        raise ConfigError("BRIDGE_STATUS__LISTEN: port 0 is any free port, so nobody can know which; give --url")
    host = reachable(settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _asked(url: str) -> dict[str, Any]:
    """What ``/readyz`` answers.

    Raises:
        OSError, http.client.HTTPException: there is no answer.
        ValueError: the URL is none, or the answer isn't a bridge's.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("give it as http://host:port")
    made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = made(parts.hostname, parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/readyz")
        response = connection.getresponse()
        body = response.read(MAX_ANSWER)
    finally:
        connection.close()
    try:
        answer = json.loads(body)
        if {"ready", "parts", "books", "outbox", "health"} <= answer.keys():
            return dict(answer)
    except (ValueError, AttributeError):
        pass
    raise ValueError(f"/readyz answered {response.status} with what is no bridge's answer; an older one, perhaps")
