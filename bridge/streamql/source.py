"""A definition's text, positions in it, and the package's only error.

Lines and columns are 1-based and count characters; CR LF, CR and LF each end a line.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property

from bridge.streamql.syntax import Place

_LINE_END = re.compile(r"\r\n|\r|\n")


class StreamQLError(ValueError):
    """A definition that can't be parsed. ``str()`` is ``line L, column C: message``."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(line, column, message)
        self.line = line
        self.column = column
        self.message = message

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


def error_at(place: Place, message: str) -> StreamQLError:
    """An error at ``place``, for the caller to raise."""
    return StreamQLError(place.line, place.column, message)


class Source:
    """A definition's text; turns offsets into places and errors."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(match.end() for match in _LINE_END.finditer(self.text))]

    def place(self, offset: int) -> Place:
        """The line and column of ``offset``."""
        line = bisect_right(self._line_starts, offset)
        return Place(line, offset - self._line_starts[line - 1] + 1)

    def error(self, offset: int, message: str) -> StreamQLError:
        """An error at ``offset``, for the caller to raise."""
        return error_at(self.place(offset), message)
