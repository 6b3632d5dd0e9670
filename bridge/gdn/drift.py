"""What the worker in GDN has become, against the definition file: by lines, by columns, and what it costs.

What GDN holds is text from outside: it may not even be readable here, and then only the text is compared.
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
"""Lines of a definition that are compared one by one: the time that takes grows faster than they do."""

MAX_SENTENCES = 100
"""About columns: what isn't said of a worker with more to say is in the text's difference."""

MAX_SENTENCE = 500
"""Characters."""


def text_changes(state: WorkerState, worker: Worker, *, ours: str) -> list[str]:
    """A unified diff from GDN's definition to ours; empty where they are the same.

    Args:
        state: GDN's.
        worker: ours.
        ours: what ours is called.
    """
    if not is_other(state, worker):
        return []
    before, after = state.definition.strip().splitlines(), worker.text.strip().splitlines()
    if max(len(before), len(after)) > MAX_LINES:
        same = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
        line = min(same, len(after)) + 1
        return [f"they differ from line {line} on; with more than {MAX_LINES} lines they are not compared further"]
    return list(difflib.unified_diff(before, after, fromfile="GDN", tofile=ours, lineterm=""))


def column_changes(state: WorkerState, streams: Mapping[str, InputStream]) -> list[str]:
    """How GDN's input streams differ from ours in names and columns, a sentence each."""
    theirs = _streams(state)
    if theirs is None:
        return ["GDN's definition can't be read here, so its columns are not known"]
    said = []
    for name in dict.fromkeys((*theirs, *streams)):
        if name not in theirs or name not in streams:
            said.append(f"stream {name}: only in {'GDN' if name in theirs else 'the file'}")
        else:
            said += [f"stream {name}: {change}" for change in _columns(theirs[name], streams[name])]
    return [_safe(sentence) for sentence in said[:MAX_SENTENCES]]


def losses(state: WorkerState, streams: Mapping[str, InputStream], used: Sequence[str]) -> dict[str, str]:
    """Which streams' rows are of no use to the worker as GDN has it, and why.

    A row that lacks an attribute is dropped by the worker without a word, after its receipt (gdn-api.md F.6); what
    becomes of one with another type isn't documented.

    Args:
        state: GDN's.
        streams: ours, which rows are made for.
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
    there, here = _by_name(theirs), _by_name(ours)
    for name in dict.fromkeys((*there, *here)):
        if name not in here:
            yield f"column {_shown(there[name])} is only in GDN"
        elif name not in there:
            yield f"column {_shown(here[name])} is only in the file"
        elif there[name].type is not here[name].type:
            yield f"column {name} is {there[name].type.value} in GDN, {here[name].type.value} in the file"


def _unfit(theirs: InputStream, ours: InputStream) -> Iterator[str]:
    """What rows for ours lack for theirs."""
    here = _by_name(ours)
    for attribute in theirs.attributes or ():
        if attribute.name not in here:
            if theirs.fail_on_missing:
                yield f"they lack the column {_shown(attribute)}"
        elif here[attribute.name].type is not attribute.type:
            type_ = here[attribute.name].type.value
            yield f"their column {attribute.name} is {type_} and not {attribute.type.value}"


def _by_name(stream: InputStream) -> dict[str, Attribute]:
    return {attribute.name: attribute for attribute in stream.attributes or ()}


def _shown(attribute: Attribute) -> str:
    return f"{attribute.name} {attribute.type.value}"


def _safe(sentence: str) -> str:
    """Fit for a log line and a terminal: a name in backticks may hold anything, and be long."""
    cut = sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[:MAX_SENTENCE]}…"
    return printable(cut)
