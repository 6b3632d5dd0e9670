"""Line formats: CSV, and InfluxDB's line protocol."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from bridge.mapping.formats.options import PayloadDecoder, load_extra
from bridge.mapping.formats.text import decode_utf8
from bridge.mapping.payload import MAX_ROWS
from bridge.mapping.unmappable import Unmappable, preview
from bridge.reasons import Reason

MAX_TAGS = 256
"""Maximum tags of a point. The parser takes quadratic time: 90,000 tags took 8 s."""

# A point ends at a line break outside text; text starts with =" after the first space that isn't escaped
# (InfluxDB 1.x models/points.go, scanLine). The quantifiers are possessive, so that nothing backtracks.
_POINT = re.compile(
    r"""[\ \t]*+ (?: \#[^\n]*+ | (?P<key> (?: [^\n\ ] | (?<=\\)\  )*+ ) (?: ="(?:[^"\\]|\\.)*+" | [^\n] )*+ )""",
    re.VERBOSE | re.DOTALL,
)


def compile_csv(delimiter: str, columns: tuple[str, ...]) -> PayloadDecoder:
    """Make the decoder of CSV (RFC 4180): an object of text cells for each line, blank lines are skipped.

    Args:
        delimiter: one character.
        columns: the names of the cells; empty: the first line of each payload has them.

    Raises:
        ValueError: delimiter or columns are invalid.
    """
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise ValueError(f"the delimiter {delimiter!r} must be one character, neither a quote nor a line break")
    if problem := _name_problem(columns):
        raise ValueError(f"columns: {problem}")

    def decode(payload: bytes) -> list[dict[str, str]]:
        rows = _csv_rows(decode_utf8(payload), delimiter, columns)
        if not rows:
            raise Unmappable(Reason.EMPTY, "the payload has only the line of column names")
        return rows

    return decode


def _csv_rows(text: str, delimiter: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = columns
    rows: list[dict[str, str]] = []
    try:
        for cells in lines:
            if not cells:
                continue
            if not names:
                names = tuple(cell.strip() for cell in cells)
                if problem := _name_problem(names):
                    raise Unmappable(Reason.UNDECODABLE, f"the line of column names: {problem}")
                continue
            if len(cells) != len(names):
                detail = f"line {lines.line_num} has {len(cells)} cells for {len(names)} column names"
                raise Unmappable(Reason.UNDECODABLE, detail)
            if len(rows) == MAX_ROWS:
                raise Unmappable(Reason.TOO_LARGE, f"there are more than {MAX_ROWS} lines")
            rows.append(dict(zip(names, cells, strict=True)))
    except csv.Error as exc:
        raise Unmappable(Reason.UNDECODABLE, f"line {lines.line_num}: {exc}") from exc
    return rows


def _name_problem(names: tuple[str, ...]) -> str:
    """The first problem with column names; empty if there is none."""
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            return f"the name {preview(name)} is used twice" if name else "a column has no name"
        seen.add(name)
    return ""


def compile_influx() -> PayloadDecoder:
    """Make the decoder of InfluxDB's line protocol: an object for each point, comments and blank lines are skipped.

    Members are ``measurement``, ``tags`` and ``fields`` (objects), and ``time``: the number that the device sends,
    nanoseconds since the epoch by the protocol, null if it sends none.

    Raises:
        MissingExtra: the parser isn't installed.
    """
    library = load_extra("line_protocol_parser", 'format "influx"')
    parse_line, error = library.parse_line, library.LineFormatError

    def decode(payload: bytes) -> list[dict[str, Any]]:
        text = decode_utf8(payload)
        points: list[dict[str, Any]] = []
        end = -1
        while end < len(text):
            found = _POINT.match(text, end + 1)
            assert found is not None  # the pattern matches an empty text, too
            start, end = found.span()  # at the line break, or at the end of the text
            point = found[0].strip(" \t\r")
            if not point or found["key"] is None:  # a blank line or a comment
                continue
            if len(points) == MAX_ROWS:
                raise Unmappable(Reason.TOO_LARGE, f"there are more than {MAX_ROWS} points")
            try:
                if found["key"].count(",") > MAX_TAGS:
                    raise error(f"more than {MAX_TAGS} tags")
                points.append(parse_line(point))
            except error as exc:
                line = 1 + text.count("\n", 0, start)
                raise Unmappable(Reason.UNDECODABLE, f"line {line} is not line protocol: {exc}") from exc
        if not points:
            raise Unmappable(Reason.EMPTY, "the payload has only comments")
        return points

    return decode
