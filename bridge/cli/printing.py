"""Tables and payloads as text that is safe on a terminal: control characters from devices are replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from bridge.text import printable

HEX_WIDTH = 16

MAX_NAMED = 10
"""Maximum streams named in a sentence; further ones are only counted."""


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a table with their members' names as the header; values other than strings are shown as JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names] + [
        ["" if name not in r else str(r[name]) if isinstance(r[name], str) else json.dumps(r[name]) for name in names]
        for r in rows
    ]
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(line[n]) for line in lines) for n in range(len(names))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def content(payload: bytes) -> Iterator[str]:
    """A payload's lines if all of it is printable UTF-8, else a hex dump."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and all(c.isprintable() or c in "\n\t" for c in text):
        yield from text.split("\n")
        return
    for at in range(0, len(payload), HEX_WIDTH):
        part = payload[at : at + HEX_WIDTH]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        yield f"{at:08x}  {part.hex(' '):<{3 * HEX_WIDTH - 1}}  {shown}"


def unwatched_sentence(streams: Sequence[str]) -> str:
    """The line about streams that no check watches."""
    more = len(streams) - MAX_NAMED
    named = ", ".join(streams[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
    return printable(
        f"not watched: nothing shows whether the rows of {named} come out of the worker, because they can't be counted "
        'and no canary passes through them (docs/operating.md, "Streams that are not watched")'
    )
