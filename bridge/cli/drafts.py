"""What was inferred, as the text of a configuration file and of a stream worker's definition. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bridge.cli.findings import Found, table_of
from bridge.mapping import Example, FieldSpec

CONFIG_FILE = "bridge.toml"
WORKER_FILE = "worker.sql"
"""What the configuration calls the definition's file."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")  # TOML 1.0, Keys
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def configuration(found: Sequence[Found], *, broker: str, protocol: str) -> str:
    """The text of ``bridge.toml``.

    Args:
        found: at least one.
        broker: its URL.
        protocol: of MQTT, ``5`` or ``3.1.1``.
    """
    lines = [
        "# Made by `gdn-bridge init` from sample messages: read it through. docs/settings.md has every setting,",
        "# docs/mapping.md says what routes can do.",
        "",
        "[mqtt]",
        f"url = {_string(broker)}",
        *([f"protocol = {_string(protocol)}"] if protocol != "5" else []),
        "# User and password: BRIDGE_MQTT__USERNAME and a secret file named mqtt__password.",
        "",
        "[gdn]",
        "# Your federation's or region's URL, and your tenant's name (not your e-mail address).",
        'url = "https://api-play.paas.macrometa.io"',
        'tenant = "your_tenant"',
        "# The API key belongs into BRIDGE_GDN__API_KEY or a secret file named gdn__api_key, not here.",
        "",
        "[worker]",
        f"definition = {_string(WORKER_FILE)}",
    ]
    for one in found:
        lines += ["", *_route(one)]
    return "".join(f"{line}\n" for line in lines)


def _route(found: Found) -> Iterator[str]:
    route, options = found.route, found.route.format
    yield from (f"# {note}" for note in found.notes)
    yield "[[routes]]"
    yield f"topic = {_string(route.topic)}"
    yield f"stream = {_string(route.stream)}"
    if options.name != "json":
        yield f"format = {_string(options.name)}"
    if options.compression != "none":
        yield f"compression = {_string(options.compression)}"
    if options.name == "csv":
        if options.delimiter != ",":
            yield f"delimiter = {_string(options.delimiter)}"
        if options.columns:
            yield f"columns = {_value(list(options.columns))}"
    if route.each is not None:
        yield f"each = {_string(route.each)}"
    if route.when is not None:
        yield f"when = {_string(route.when)}"
    if route.fields:
        yield ""
        yield "[routes.fields]"
        for name, source in route.fields.items():
            yield f"{_key(name)} = {_value(_table(source) if isinstance(source, FieldSpec) else source)}"
    for example in route.examples:
        yield ""
        yield from _example(example)


def _table(spec: FieldSpec) -> dict[str, Any]:
    return {"source": spec.source, "default": spec.default}


def _example(example: Example) -> Iterator[str]:
    yield "[[routes.test]]"
    yield f"topic = {_string(example.topic)}"
    yield f"payload = {_value(example.payload)}"
    if example.encoding != "text":
        yield f"encoding = {_string(example.encoding)}"
    yield f"expect = {_value(example.expect)}"


def definition(found: Sequence[Found]) -> str:
    """The text of ``worker.sql``: for each route a stream, a table and the query between them."""
    lines = [
        f"@App:name('{found[0].route.stream}_worker')",
        '@App:qlVersion("2")',
        "-- Made by `gdn-bridge init`: every stream's rows go to a table as they are. Here is the place to choose,",
        "-- reckon and join. The bridge creates the worker from this file; it doesn't replace one that is there.",
    ]
    for one in found:
        stream, table = one.route.stream, table_of(one.route.stream)
        columns = ",\n".join(f"    {column.name} {column.type.value}" for column in one.columns)
        names = ", ".join(column.name for column in one.columns)
        lines += [
            "",
            f"CREATE STREAM {stream} (\n{columns}\n);",
            f"CREATE TABLE GLOBAL {table} (\n{columns}\n);",
            f"@info(name='{stream}_kept')",
            f"INSERT INTO {table}",
            f"SELECT {names}",
            f"FROM {stream};",
        ]
    return "".join(f"{line}\n" for line in lines)


def _value(value: Any) -> str:
    """A JSON-like value without nulls, on one line (TOML 1.0)."""
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        assert math.isfinite(value)  # neither columns nor JSON hold another
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    return "[" + ", ".join(_value(inner) for inner in value) + "]"


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    if ('"' in text or "\\" in text) and "'" not in text and text.isprintable():
        return f"'{text}'"
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\U{ord(c):08X}") for c in text) + '"'
