"""Payloads of lines: CSV, and InfluxDB's line protocol."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from bridge.mapping.formats.options import Decode, load_extra
from bridge.mapping.formats.text import decoded
from bridge.mapping.payload import MAX_ROWS
from bridge.mapping.unmappable import Unmappable, shown
from bridge.reasons import Reason

MAX_TAGS = 256
"""Tags of a point. The parser takes time by their square: 90,000 tags, 8 s."""

# A point ends with its line, but for line breaks in a text, which begins with =" after the first space that isn't
# escaped (InfluxDB 1.x models/points.go, scanLine). Possessive: no backtracking.
_POINT = re.compile(
    r"""[\ \t]*+ (?: \#[^\n]*+ | (?P<key> (?: [^\n\ ] | (?<=\\)\  )*+ ) (?: ="(?:[^"\\]|\\.)*+" | [^\n] )*+ )""",
    re.VERBOSE | re.DOTALL,
)


def compile_csv(delimiter: str, columns: tuple[str, ...]) -> Decode:
    """What makes an object of text cells of each line (RFC 4180); blank lines are skipped.

    Args:
        delimiter: one character.
        columns: the cells' names; empty: the first line of each payload names them.

    Raises:
        ValueError: delimiter or columns can't be such.
    """
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise ValueError(f"the delimiter {delimiter!r} must be one character, neither a quote nor a line break")
    if problem := _wrong_names(columns):
        raise ValueError(f"columns: {problem}")

    def decode(payload: bytes) -> list[dict[str, str]]:
        lines = csv.reader(io.StringIO(decoded(payload), newline=""), delimiter=delimiter, strict=True)
        names: tuple[str, ...] = columns
        rows: list[dict[str, str]] = []
        try:
            for cells in lines:
                if not cells:
                    continue
                if not names:
                    names = tuple(cell.strip() for cell in cells)
                    if problem := _wrong_names(names):
                        raise Unmappable(Reason.UNDECODABLE, f"the line of names: {problem}")
                    continue
                if len(cells) != len(names):
                    text = f"line {lines.line_num} has {len(cells)} cells, {len(names)} are named"
                    raise Unmappable(Reason.UNDECODABLE, text)
                if len(rows) == MAX_ROWS:
                    raise Unmappable(Reason.TOO_LARGE, f"there are more than {MAX_ROWS} lines")
                rows.append(dict(zip(names, cells, strict=True)))
        except csv.Error as exc:
            raise Unmappable(Reason.UNDECODABLE, f"line {lines.line_num}: {exc}") from exc
        if not rows:
            raise Unmappable(Reason.EMPTY, "the only line names the columns")
        return rows

    return decode


def _wrong_names(names: tuple[str, ...]) -> str:
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            return f"the name {shown(name)} is there twice" if name else "a column has no name"
        seen.add(name)
    return ""


def compile_influx() -> Decode:
    """What makes an object of each point of InfluxDB's line protocol; comments and blank lines are skipped.

    Members are ``measurement``, ``tags`` and ``fields`` (objects), ``time`` (as the device writes it, by the protocol
    nanoseconds since the epoch; null if it writes none).

    Raises:
        MissingExtra: the parser isn't installed.
    """
    library = load_extra("line_protocol_parser", 'format "influx"')
    parse_line, error = library.parse_line, library.LineFormatError

    def decode(payload: bytes) -> list[dict[str, Any]]:
        text = decoded(payload)
        points: list[dict[str, Any]] = []
        end = -1
        while end < len(text):
            found = _POINT.match(text, end + 1)
            assert found is not None  # it may be empty
            start, end = found.span()
            point = found[0].strip(" \t\r")
            if not point or found["key"] is None:
                continue
            if len(points) == MAX_ROWS:
                raise Unmappable(Reason.TOO_LARGE, f"there are more than {MAX_ROWS} points")
            try:
                if found["key"].count(",") > MAX_TAGS:
                    raise error(f"more than {MAX_TAGS} tags")
                points.append(parse_line(point))
            except error as exc:
                line = 1 + text.count("\n", 0, start)
                raise Unmappable(Reason.UNDECODABLE, f"line {line} is no line protocol: {exc}") from exc
        if not points:
            raise Unmappable(Reason.EMPTY, "there are only comments")
        return points

    return decode
