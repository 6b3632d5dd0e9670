"""Reads the messages of a stream as its source's mapper does (gdn-api.md F.6): JSON, flat or by paths, CSV and text.

Independent of the bridge's own code, so that a mistake isn't made on both sides.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import Any

from bridge.streamql.properties import read_mapping_list
from bridge.streamql.streams import InputStream
from bridge.streamql.syntax import AttributeType

READ = ("", "json", "csv", "text")
"""The mappers that are executed."""


def events(payload: bytes, stream: InputStream) -> list[Any]:
    """The events in a message, by column. If several sources read the stream, the first one's mapping counts.

    Raises:
        ValueError: the message isn't in the form that the source takes.
    """
    if not stream.mappings:
        return _flat(payload)
    mapping = stream.mappings[0]
    options = {key.lower(): value for key, value in mapping.options}
    names = [column.name for column in mapping.columns]
    paths = _paths(mapping.options, names)
    if mapping.type == "csv":
        rows = csv.reader(io.StringIO(payload.decode(), newline=""), delimiter=options.get("delimiter", ","))
        cells = [{name: row[int(paths.get(name, n))] for n, name in enumerate(names)} for row in rows]
        return [_typed(row, stream) for row in cells]
    if mapping.type == "text":
        lines = (line.partition(":") for line in payload.decode().split(",\n"))
        return [_typed({name: re.sub(r'(?s)^"(.*)"$', r"\1", text) for name, _, text in lines}, stream)]
    if not paths:
        return _flat(payload)
    found = _at(json.loads(payload), options.get("enclosing.element", "$"))
    return [
        {name: _at(event, path) for name, path in paths.items()}
        for event in (found if isinstance(found, list) else [found])
    ]


def _flat(payload: bytes) -> list[Any]:
    found = json.loads(payload)
    return [_without_envelope(event) for event in (found if isinstance(found, list) else [found])]


def _without_envelope(event: Any) -> Any:
    first = next(iter(event), "") if isinstance(event, dict) else ""
    return event[first] if first.lower() == "event" and isinstance(event[first], dict) else event


def _paths(options: tuple[tuple[str, str], ...], names: list[str]) -> dict[str, str]:
    paths: dict[str, str] = {}
    for key, value in options:
        if key.lower() == "attributes":
            listed = enumerate(read_mapping_list(value))
            paths |= {name or names[number]: path for number, (name, path) in listed}
        elif key.lower().startswith("attributes."):
            paths[key.partition(".")[2]] = value
    return paths


def _at(document: Any, path: str) -> Any:
    """The value at a path; None if there is none."""
    for name, index in re.findall(r"""(?:^|\.|\[['"])([^.\[\]'"$]+)|\[(\d+|\*)\]""", path):
        if index == "*":
            continue  # an array's elements are events
        try:
            document = document[int(index) if index else name]
        except (LookupError, TypeError):
            return None
    return document


def _typed(row: Mapping[str, str], stream: InputStream) -> dict[str, Any]:
    types = {column.name: column.type for column in stream.attributes or ()}
    return dict(_value(name, text, types[name]) for name, text in row.items() if name in types)


def _value(name: str, text: str, type_: AttributeType) -> tuple[str, Any]:
    return name, text if type_ is AttributeType.STRING else json.loads(text)
