"""Drift: how the worker in GDN differs from the definition file, by lines and columns, and which rows it would drop.

GDN's definition comes from outside and may be unreadable here; then only its text is compared.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bridge.gdn.worker import is_other
from bridge.streamql import Attribute, InputStream, StreamQLError, Worker, input_streams, parse
from bridge.text import printable

if TYPE_CHECKING:
    from bridge.gdn.rest import WorkerState

MAX_LINES = 2000
"""Longest definition that is compared line by line: the time grows faster than the number of lines."""

MAX_SENTENCES = 100
"""Maximum sentences about columns; further differences are in the diff of the text."""

MAX_SENTENCE = 500
"""Longest sentence, in characters."""


def text_changes(state: WorkerState, worker: Worker, *, ours: str) -> list[str]:
    """A unified diff from GDN's definition to ours; empty if they are the same.

    Args:
        state: GDN's.
        worker: ours.
        ours: the name of ours in the diff.
    """
    if not is_other(state, worker):
        return []
    before, after = state.definition.strip().splitlines(), worker.text.strip().splitlines()
    if max(len(before), len(after)) > MAX_LINES:
        same = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
        line = min(same, len(after)) + 1
        return [f"they differ from line {line} on; definitions of more than {MAX_LINES} lines are not compared further"]
    return list(difflib.unified_diff(before, after, fromfile="GDN", tofile=ours, lineterm=""))


def column_changes(state: WorkerState, streams: Mapping[str, InputStream]) -> list[str]:
    """How the names and columns of GDN's input streams differ from ours, one sentence for each difference."""
    theirs = _streams(state)
    if theirs is None:
        return ["GDN's definition can't be read here, so its columns are unknown"]
    sentences = []
    for name in dict.fromkeys((*theirs, *streams)):
        if name not in theirs or name not in streams:
            sentences.append(f"stream {name}: only in {'GDN' if name in theirs else 'the file'}")
        else:
            sentences += [f"stream {name}: {change}" for change in _columns(theirs[name], streams[name])]
    return [_safe(sentence) for sentence in sentences[:MAX_SENTENCES]]


def losses(state: WorkerState, streams: Mapping[str, InputStream], used: Sequence[str]) -> dict[str, str]:
    """The streams whose rows GDN's worker would lose, each with the reason.

    The worker silently drops a row without one of its columns, after the receipt (gdn-api.md F.6); what it does with a
    value of another type isn't documented.

    Args:
        state: GDN's.
        streams: ours, for which rows are made.
        used: the names of those that rows are sent to.
    """
    theirs = _streams(state)
    if theirs is None:
        return {}
    found: dict[str, str] = {}
    for name in used:
        stream, ours = theirs.get(name), streams.get(name)
        if ours is None:
            continue
        if stream is None or not stream.read_by_worker or stream.scope is not ours.scope:
            found[name] = f"GDN's worker doesn't read a {ours.scope.value} stream {name}"
        elif why := ", ".join(_unfit(stream, ours)):
            found[name] = _safe(f"GDN's worker drops rows of {name}: {why}")
    return found


def _streams(state: WorkerState) -> dict[str, InputStream] | None:
    try:
        return input_streams(parse(state.definition))
    except StreamQLError:
        return None


def _columns(theirs: InputStream, ours: InputStream) -> Iterator[str]:
    if theirs.scope is not ours.scope:
        yield f"{theirs.scope.value} in GDN, {ours.scope.value} in the file"
    in_gdn, in_file = _by_name(theirs), _by_name(ours)
    for name in dict.fromkeys((*in_gdn, *in_file)):
        if name not in in_file:
            yield f"column {_shown(in_gdn[name])} is only in GDN"
        elif name not in in_gdn:
            yield f"column {_shown(in_file[name])} is only in the file"
        elif in_gdn[name].type is not in_file[name].type:
            yield f"column {name} is {in_gdn[name].type.value} in GDN, {in_file[name].type.value} in the file"
    if _form(theirs) != _form(ours):
        yield "the source's mapping (map.…) differs"


def _unfit(theirs: InputStream, ours: InputStream) -> Iterator[str]:
    """How rows for our stream don't fit theirs."""
    in_file = _by_name(ours)
    for attribute in theirs.attributes or ():
        if attribute.name not in in_file:
            if theirs.fail_on_missing:
                yield f"they lack the column {_shown(attribute)}"
        elif in_file[attribute.name].type is not attribute.type:
            type_ = in_file[attribute.name].type.value
            yield f"their column {attribute.name} is {type_} and not {attribute.type.value}"
    if _form(theirs) != _form(ours):
        yield "its source's mapping (map.…) takes another form of message"


def _form(stream: InputStream) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """The mappings of the stream's sources that don't take a flat JSON object."""
    forms = {
        (m.type or "json", tuple(option for option in m.options if not option[0].lower().startswith("fail.on.")))
        for m in stream.mappings
    }
    return forms - {("json", ())}


def _by_name(stream: InputStream) -> dict[str, Attribute]:
    return {attribute.name: attribute for attribute in stream.attributes or ()}


def _shown(attribute: Attribute) -> str:
    return f"{attribute.name} {attribute.type.value}"


def _safe(sentence: str) -> str:
    """Safe for a log line and a terminal: a name in backticks may contain anything, at any length."""
    cut = sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[:MAX_SENTENCE]}…"
    return printable(cut)
