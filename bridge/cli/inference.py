"""From sample messages to routes, streams and columns that take them. Pure.

Samples are grouped by the shape of their topics and the kind of their payloads; a group becomes a route and a stream.
Whatever was guessed is then tried with the real mapping: a group that doesn't take its own samples falls back to a
simpler format, down to ``raw``, which takes every byte.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

from bridge.cli.columns import MAX_COLUMNS, MAX_MEMBERS, NUMBER, Columns, Member
from bridge.cli.naming import capture_name, joined, safe_name
from bridge.mapping import Example, FormatOptions, Mapping, Route
from bridge.mapping.formats import compile_decoder
from bridge.mapping.payload import MAX_PAYLOAD, elements, objects
from bridge.mapping.reasons import Unmappable
from bridge.message import DeadLetter, MqttMessage
from bridge.streamql.streams import InputStream
from bridge.streamql.syntax import Attribute, AttributeType, Place, Scope

MAX_SAMPLES = 2000
MAX_BYTES = 2 * 1024 * 1024
"""Topics and payloads of all samples."""

MAX_TOPIC = 1000
"""Characters. Longer topics are left out."""

MAX_LEVELS = 32
MAX_ROUTES = 50
MAX_EXAMPLES = 3
"""Of a route."""

MAX_EXAMPLE = 4096
"""Bytes of an example's payload, and of the rows that it gives."""

EVERY_ELEMENT = "jmespath:@"
"""``each`` for arrays whose elements are no objects."""

DELIMITERS = (",", ";", "|")

_HEADER = re.compile(r"[^\W\d][\w .()/%°-]*")
_VERSION = re.compile(r"[vV][0-9]+(?:\.[0-9]+)*")
# In the order in which a group falls back; each takes what those before it take.
_SCALAR, _RAW = FormatOptions(name="scalar"), FormatOptions(name="raw")


class Sample(NamedTuple):
    """A message as a device sent it."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A route with its stream's columns. ``notes`` are sentences for a person, one line each."""

    route: Route
    columns: tuple[Attribute, ...]
    notes: tuple[str, ...]
    samples: int


class LeftOut(NamedTuple):
    """A sample that no route was made for."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What was inferred: routes in the order in which they are to stand."""

    found: tuple[Found, ...]
    left_out: tuple[LeftOut, ...]
    taken: tuple[Sample, ...] = ()
    """The samples that become rows."""


def infer(samples: Iterable[Sample]) -> Findings:
    """Routes that take the samples, but for those left out with their reasons.

    Of more than ``MAX_SAMPLES`` samples or ``MAX_BYTES`` bytes the first are taken.
    """
    read, left_out = _read_all(samples)
    groups, homeless = _groups(read)
    left_out += homeless
    while groups:
        groups = _disjoint(groups)
        found = _named(groups)
        mapping = Mapping(routes=[f.route for f in found], streams=streams_of(found))
        failed: dict[int, list[tuple[_Read, DeadLetter]]] = {}
        for number, group in enumerate(groups):
            for one in group.read:
                mapped = mapping.map(_message(one.sample))
                if isinstance(mapped, DeadLetter):
                    failed.setdefault(number, []).append((one, mapped))
        if not failed:
            return Findings(
                tuple(_with_examples(f, g, mapping) for f, g in zip(found, groups, strict=True)),
                left_out,
                tuple(one.sample for group in groups for one in group.read),
            )
        for number, letters in failed.items():
            if groups[number].fall_back():
                continue
            left_out += tuple(LeftOut(one.sample.topic, letter.detail) for one, letter in letters)
            groups[number].drop([one for one, _ in letters])
        groups = [group for group in groups if group.read]
    return Findings((), left_out)


def table_of(stream: str) -> str:
    """The name of the table that a stream's rows go to."""
    return f"{stream}_rows"


def streams_of(found: Iterable[Found]) -> dict[str, InputStream]:
    """The streams that the routes feed, as their definition will say."""
    return {
        f.route.stream: InputStream(
            name=f.route.stream,
            scope=Scope.LOCAL,
            attributes=f.columns,
            read_by_worker=True,
            place=Place(1, 1),
            fail_on_missing=True,
        )
        for f in found
    }


def _message(sample: Sample) -> MqttMessage:
    return MqttMessage(sample.topic, sample.payload, 1, False, 1, 0)


# --- samples ----------------------------------------------------------------------------------------------


class _Read(NamedTuple):
    """A sample with what its payload seems to be."""

    sample: Sample
    levels: tuple[str, ...]
    shape: tuple[str | None, ...]
    """Its levels, but for those that are a capture whatever other samples say."""
    options: FormatOptions
    each: str | None
    signature: frozenset[str]
    """What payloads of one kind have in common: names of members, or the type of a single value."""


def _read_all(samples: Iterable[Sample]) -> tuple[list[_Read], tuple[LeftOut, ...]]:
    read: list[_Read] = []
    left_out: list[LeftOut] = []
    room = MAX_BYTES
    for number, sample in enumerate(samples):
        room -= len(sample.topic) + len(sample.payload)
        if number == MAX_SAMPLES or room < 0:
            break
        problem = _topic_problem(sample.topic)
        if problem is None and not 0 < len(sample.payload) <= MAX_PAYLOAD:
            problem = f"the payload has over {MAX_PAYLOAD} bytes" if sample.payload else "the payload is empty"
        if problem is not None:
            left_out.append(LeftOut(sample.topic, problem))
            continue
        levels = tuple(sample.topic.split("/"))
        read.append(_Read(sample, levels, _shape(levels), *_kind(sample.payload)))
    return read, tuple(left_out)


def _topic_problem(topic: str) -> str | None:
    if not topic or "\0" in topic:
        return "a topic must hold at least one character, and no NUL"
    try:
        topic.encode()
    except UnicodeEncodeError:
        return "the topic is not UTF-8"
    if "+" in topic or "#" in topic:
        return "messages have no wildcards in their topics (MQTT 5, 3.3.2.1); give one that a device publishes to"
    if topic.startswith("$share/"):
        return "that is a subscription, not the topic of a message"
    if len(topic) > MAX_TOPIC or topic.count("/") >= MAX_LEVELS:
        return f"the topic has over {MAX_TOPIC} characters or {MAX_LEVELS} levels"
    if topic.startswith("$") and not _can_stand(topic.split("/", 1)[0]):
        return "its first level can't be written in a route, and no wildcard takes it (MQTT 5, 4.7.2)"
    return None


def _kind(payload: bytes) -> tuple[FormatOptions, str | None, frozenset[str]]:
    """The format, ``each`` and the signature that a payload seems to have."""
    options = FormatOptions()
    try:
        decoded = compile_decoder(options)(payload)
        try:
            names = dict.fromkeys(name for element in objects(decoded) for name in element)
            return options, None, frozenset(islice(names, MAX_MEMBERS))
        except Unmappable:
            if isinstance(decoded, list):
                elements(decoded, EVERY_ELEMENT)
                return options, EVERY_ELEMENT, frozenset({"value"})
    except Unmappable:
        pass
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _RAW, None, frozenset()
    table = _csv(text)
    if table is not None:
        return table[0], None, frozenset(table[1])
    try:
        value = _decoded(_SCALAR, None, payload)[0]["value"]
    except Unmappable:
        return _RAW, None, frozenset()
    return _SCALAR, None, frozenset({"number" if type(value) in (int, float) else type(value).__name__})


def _csv(text: str) -> tuple[FormatOptions, Sequence[str]] | None:
    """The table that a text seems to be, and its columns: names over lines of as many cells, or lines with a number."""
    for delimiter in DELIMITERS:
        if delimiter not in text:
            continue
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            lines = [line for line in reader if line]
        except csv.Error:
            continue
        if not lines or any(len(line) != len(lines[0]) for line in lines) or not 2 <= len(lines[0]) <= MAX_COLUMNS:
            continue
        head, body = lines[0], lines[1:]
        if body and all(_HEADER.fullmatch(cell.strip()) for cell in head) and len(set(head)) == len(head):
            return FormatOptions(name="csv", delimiter=delimiter), head
        if any(NUMBER.fullmatch(cell.strip()) for cell in head):
            names = tuple(f"cell_{number}" for number in range(1, len(head) + 1))
            return FormatOptions(name="csv", delimiter=delimiter, columns=names), names
    return None


def _decoded(options: FormatOptions, each: str | None, payload: bytes) -> list[dict[str, Any]]:
    """What becomes a row each.

    Raises:
        Unmappable: the payload is of another kind.
    """
    decoded = compile_decoder(options)(payload)
    return objects(decoded) if each is None else elements(decoded, each)


# --- groups -----------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class _Group:
    """Samples that one route takes. ``levels``: of its topics, None where they differ."""

    levels: tuple[str | None, ...]
    read: list[_Read]
    options: FormatOptions
    each: str | None
    signature: frozenset[str]

    @classmethod
    def of(cls, one: _Read) -> _Group:
        return cls(one.shape, [one], one.options, one.each, one.signature)

    def merged_levels(self, levels: Sequence[str | None]) -> tuple[str | None, ...]:
        """The levels that both have in common."""
        return tuple(mine if mine == other else None for mine, other in zip(self.levels, levels, strict=True))

    def takes(self, one: _Read) -> bool:
        """Whether a sample is of this group's kind, and some level of its topic too."""
        if len(one.levels) != len(self.levels) or one.options != self.options:
            return False
        if self.signature != one.signature:
            common, all_ = len(self.signature & one.signature), len(self.signature | one.signature)
            if one.options.name != "json" or 2 * common < all_:
                return False
        return one.shape == self.levels or any(level is not None for level in self.merged_levels(one.shape))

    def distance(self, one: _Read) -> int:
        """How many more levels would differ with the sample."""
        return sum(mine is not None and mine != other for mine, other in zip(self.levels, one.shape, strict=True))

    def add(self, other: _Group) -> None:
        """Take another group's samples, in a format that fits both."""
        self.levels = self.merged_levels(other.levels)
        self.read += other.read
        if len(self.signature) < MAX_MEMBERS:
            self.signature |= other.signature
        self.each = self.each or other.each
        if self.options != other.options:
            raw = _RAW in (self.options, other.options)
            self.options, self.each = (_RAW if raw else _SCALAR), None

    def fall_back(self) -> bool:
        """To the next simpler format; False: there is none."""
        if self.options == _RAW:
            return False
        self.options, self.each = (_RAW if self.options == _SCALAR else _SCALAR), None
        return True

    def drop(self, read: Sequence[_Read]) -> None:
        """Give samples up."""
        self.read = [one for one in self.read if not any(one is other for other in read)]


def _groups(read: Iterable[_Read]) -> tuple[list[_Group], tuple[LeftOut, ...]]:
    groups: list[_Group] = []
    by_topic: dict[str, _Group] = {}  # one topic is one route's
    homeless: list[LeftOut] = []
    for one in read:
        group = by_topic.get(one.sample.topic)
        if group is None and (near := [group for group in groups if group.takes(one)]):
            group = min(near, key=lambda group: group.distance(one))
        if group is not None:
            group.add(_Group.of(one))
        elif len(groups) < MAX_ROUTES:
            group = _Group.of(one)
            groups.append(group)
        if group is not None:
            by_topic[one.sample.topic] = group
        else:
            homeless.append(LeftOut(one.sample.topic, f"it would need a route of its own, after {MAX_ROUTES} others"))
    return groups, tuple(homeless)


def _disjoint(groups: list[_Group]) -> list[_Group]:
    """The groups in an order in which each gets its own samples; those between which no order can choose merged."""
    while True:
        # What names more levels goes first: no group is hidden by one before it.
        groups.sort(key=lambda group: -sum(level is not None for level in group.levels))
        clash = _clash(groups)
        if clash is None:
            return groups
        taker, other = clash
        taker.add(other)
        groups.remove(other)


def _clash(groups: Sequence[_Group]) -> tuple[_Group, _Group] | None:
    """A group that would take another one's samples."""
    for number, group in enumerate(groups):
        for earlier in groups[:number]:
            if len(earlier.levels) != len(group.levels):
                continue
            if any(_matches(earlier.levels, one.levels) for one in group.read):
                return earlier, group
    return None


def _matches(levels: Sequence[str | None], topic: Sequence[str]) -> bool:
    if levels[0] is None and topic[0].startswith("$"):
        return False
    return all(level in (None, given) for level, given in zip(levels, topic, strict=True))


def _shape(levels: tuple[str, ...]) -> tuple[str | None, ...]:
    """The levels that are names of kinds; None for those that look like names of things, or can't be written."""
    shape = tuple(
        level if _can_stand(level) and (not _is_identifier(level) or (number == 0 and level.startswith("$"))) else None
        for number, level in enumerate(levels)
    )
    if any(level is not None for level in shape):
        return shape
    return tuple(level if _can_stand(level) else None for level in levels)


def _can_stand(level: str) -> bool:
    return level.isprintable() and "{" not in level and "}" not in level


def _is_identifier(level: str) -> bool:
    """Whether there is a digit in it, as in ``AD11`` or ``200``, but not in a version such as ``v1``."""
    return any(character.isdigit() for character in level) and not _VERSION.fullmatch(level)


# --- routes and columns -----------------------------------------------------------------------------------


def _named(groups: Sequence[_Group]) -> list[Found]:
    found: list[Found] = []
    taken: set[str] = set()
    for group in groups:
        literals = [level for level in group.levels if level is not None]
        stream = safe_name(joined(literals) or "messages", taken)
        while table_of(stream).casefold() in taken:
            stream = safe_name(stream, taken)
        taken.add(table_of(stream).casefold())
        found.append(_found(group, stream))
    return found


def _found(group: _Group, stream: str) -> Found:
    names: set[str] = set()
    levels, columns = [], []
    for number, level in enumerate(group.levels):
        if level is None:
            name = capture_name(number, group.levels[number - 1] if number else None, names)
            levels.append(f"{{{name}}}")
            columns.append(Attribute(name, AttributeType.STRING))
        else:
            levels.append(level)
    draft = Columns(names, columns)
    tree = Member()
    for one in group.read:
        try:
            rows = _decoded(group.options, group.each, one.sample.payload)
        except Unmappable:
            continue  # the mapping says so as well, and the group falls back
        for row in rows:
            tree.add(row, is_text=group.options.name == "csv")
    draft.take(tree)
    if not draft.columns:
        draft.column(("$topic",), AttributeType.STRING, "$topic", is_missing=False)
    if tree.is_full:
        draft.say(f"there are over {MAX_MEMBERS} names of members; those that came later were not looked at")
    route = Route(
        topic="/".join(levels), stream=stream, fields=draft.fields, format=group.options, each=group.each, name=stream
    )
    return Found(route, tuple(draft.columns), tuple(draft.notes), len(group.read))


# --- examples ---------------------------------------------------------------------------------------------


def _with_examples(found: Found, group: _Group, mapping: Mapping) -> Found:
    examples: list[Example] = []
    for one in group.read:
        if len(examples) == MAX_EXAMPLES:
            break
        example = _example(one.sample, mapping)
        if example is not None and example not in examples:
            examples.append(example)
    return replace(found, route=replace(found.route, examples=tuple(examples)))


def _example(sample: Sample, mapping: Mapping) -> Example | None:
    """The sample with the rows it gives; None if a TOML file can't say it, or not briefly."""
    mapped = mapping.map(_message(sample))
    if isinstance(mapped, DeadLetter) or not sample.topic.isprintable() or len(sample.payload) > MAX_EXAMPLE:
        return None
    rows = [json.loads(row.payload) for row in mapped]
    if sum(len(row.payload) for row in mapped) > MAX_EXAMPLE or _has_null(rows):
        return None
    expected = rows[0] if len(rows) == 1 else rows
    try:
        return Example(sample.topic, sample.payload.decode(), "text", expected)
    except UnicodeDecodeError:
        return Example(sample.topic, base64.b64encode(sample.payload).decode(), "base64", expected)


def _has_null(value: Any) -> bool:
    """Whether there is a null anywhere in it, which TOML has no word for."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if one is None:
            return True
        if isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one
    return False
