"""Infers routes, streams and columns from sample messages. Pure.

Samples are grouped by the shape of their topics and the format of their payloads; each group becomes a route and a
stream. The routes are then tested with the real mapper: a group that fails on its own samples falls back to a simpler
format, down to ``raw``, which takes any bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from bridge.cli.init import sparkplug
from bridge.cli.init.columns import MAX_MEMBERS, Columns, Member
from bridge.cli.init.names import capture_name, join_name, safe_name
from bridge.cli.init.payload_formats import (
    UNMARKED,
    GuessedFormat,
    common_format,
    guess_format,
    rows_of,
    simpler_format,
)
from bridge.cli.init.results import (
    MAX_EXAMPLES,
    Inference,
    InferredRoute,
    LeftOut,
    Sample,
    example_of,
    mapper_of,
    table_of,
)
from bridge.mapping import Example, FormatOptions, Mapper, Route
from bridge.mapping.formats import MissingExtra
from bridge.mapping.payload import MAX_PAYLOAD
from bridge.mapping.unmappable import Unmappable
from bridge.message import DeadLetter
from bridge.streamql.syntax import Attribute, AttributeType

MAX_SAMPLES = 2000
MAX_BYTES = 2 * 1024 * 1024
"""Topics and payloads of all samples."""

MAX_TOPIC = 1000
"""Characters. Samples with longer topics are left out."""

MAX_LEVELS = 32
MAX_ROUTES = 50

_VERSION = re.compile(r"[vV][0-9]+(?:\.[0-9]+)*")


def infer(samples: Iterable[Sample]) -> Inference:
    """Routes that take the samples, except those left out with a reason.

    Samples beyond ``MAX_SAMPLES`` or ``MAX_BYTES`` are ignored.
    """
    parsed, from_edge_nodes, left_out = _parse_all(samples)
    edge_nodes = sparkplug.infer(from_edge_nodes)
    groups, ungrouped = _groups(parsed)
    left_out += (*edge_nodes.left_out, *ungrouped)
    while groups:
        groups = _disjoint(groups)
        inferred = _named(groups)
        mapper = mapper_of(inferred)
        failed: dict[int, list[tuple[_ParsedSample, DeadLetter]]] = {}
        for number, group in enumerate(groups):
            for one in group.samples:
                mapped = mapper.map(one.sample.message)
                if isinstance(mapped, DeadLetter):
                    failed.setdefault(number, []).append((one, mapped))
        if not failed:
            inferred = [_with_examples(i, g, mapper) for i, g in zip(inferred, groups, strict=True)]
            taken = (one.sample for group in groups for one in group.samples)
            # The first route that matches takes a message; no group has topics in Sparkplug's namespace.
            return Inference((*edge_nodes.routes, *inferred), left_out, (*edge_nodes.taken, *taken))
        for number, failures in failed.items():
            if groups[number].fall_back():
                continue
            left_out += tuple(LeftOut(one.sample.topic, dead_letter.detail) for one, dead_letter in failures)
            groups[number].drop([one for one, _ in failures])
        groups = [group for group in groups if group.samples]
    return Inference(edge_nodes.routes, left_out, edge_nodes.taken)


# --- samples ----------------------------------------------------------------------------------------------


class _ParsedSample(NamedTuple):
    """A sample with its topic's levels and its payload's format."""

    sample: Sample
    levels: tuple[str, ...]
    shape: tuple[str | None, ...]
    """The levels, with None for those that are captures whatever the other samples are."""
    format: GuessedFormat


def _parse_all(samples: Iterable[Sample]) -> tuple[list[_ParsedSample], list[Sample], tuple[LeftOut, ...]]:
    """The usable samples, then those of Sparkplug edge nodes, then those left out."""
    parsed: list[_ParsedSample] = []
    from_edge_nodes: list[Sample] = []
    left_out: list[LeftOut] = []
    room = MAX_BYTES
    for number, sample in enumerate(samples):
        room -= len(sample.topic) + len(sample.payload)
        if number == MAX_SAMPLES or room < 0:
            break
        problem = _topic_problem(sample.topic)
        if problem is None and not 0 < len(sample.payload) <= MAX_PAYLOAD:
            problem = f"the payload has more than {MAX_PAYLOAD} bytes" if sample.payload else "the payload is empty"
        if problem is not None:
            left_out.append(LeftOut(sample.topic, problem))
            continue
        if sparkplug.is_sparkplug(sample):
            from_edge_nodes.append(sample)
            continue
        levels = tuple(sample.topic.split("/"))
        try:
            parsed.append(_ParsedSample(sample, levels, _shape(levels), guess_format(sample.payload)))
        except MissingExtra as exc:
            left_out.append(LeftOut(sample.topic, str(exc)))
    return parsed, from_edge_nodes, tuple(left_out)


def _topic_problem(topic: str) -> str | None:
    if not topic or "\0" in topic:
        return "a topic must have at least one character and no NUL"
    try:
        topic.encode()
    except UnicodeEncodeError:
        return "the topic is not UTF-8"
    if "+" in topic or "#" in topic:
        return "a message's topic has no wildcards (MQTT 5, 3.3.2.1); give a topic that a device publishes to"
    if topic.startswith("$share/"):
        return "this is a shared subscription, not the topic of a message"
    if len(topic) > MAX_TOPIC or topic.count("/") >= MAX_LEVELS:
        return f"the topic has more than {MAX_TOPIC} characters or {MAX_LEVELS} levels"
    if topic.startswith("$") and not _is_writable(topic.split("/", 1)[0]):
        return "its first level can't be written in a route, and no wildcard matches it (MQTT 5, 4.7.2)"
    return None


# --- groups -----------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class _Group:
    """Samples for one route. ``levels`` are those of its topics, with None where they differ."""

    levels: tuple[str | None, ...]
    samples: list[_ParsedSample]
    options: FormatOptions
    each: str | None
    signature: frozenset[str]

    @classmethod
    def of(cls, one: _ParsedSample) -> _Group:
        return cls(one.shape, [one], *one.format)

    def merged_levels(self, levels: Sequence[str | None]) -> tuple[str | None, ...]:
        """The levels that both have in common."""
        return tuple(mine if mine == other else None for mine, other in zip(self.levels, levels, strict=True))

    def takes(self, one: _ParsedSample) -> bool:
        """Whether a sample's payload is like this group's, and at least one topic level is the same."""
        if len(one.levels) != len(self.levels) or one.format.options != self.options:
            return False
        if self.signature != one.format.signature:
            both, all_ = len(self.signature & one.format.signature), len(self.signature | one.format.signature)
            if self.options.name in ("scalar", "csv") or 2 * both < all_:
                return False
        return one.shape == self.levels or any(level is not None for level in self.merged_levels(one.shape))

    def distance(self, one: _ParsedSample) -> int:
        """How many more levels would differ if the sample were added."""
        return sum(mine is not None and mine != other for mine, other in zip(self.levels, one.shape, strict=True))

    def add(self, other: _Group) -> None:
        """Add another group's samples, and choose a format that fits both."""
        self.levels = self.merged_levels(other.levels)
        self.samples += other.samples
        if len(self.signature) < MAX_MEMBERS:
            self.signature |= other.signature
        self.options = common_format(self.options, other.options)
        self.each = (self.each or other.each) if self.options.name == "json" else None

    def fall_back(self) -> bool:
        """Change to the next simpler format; False if there is none."""
        options = simpler_format(self.options)
        if options is None:
            return False
        self.options, self.each = options, None
        return True

    def drop(self, dropped: Sequence[_ParsedSample]) -> None:
        """Remove samples."""
        self.samples = [one for one in self.samples if not any(one is other for other in dropped)]


def _groups(parsed: Iterable[_ParsedSample]) -> tuple[list[_Group], tuple[LeftOut, ...]]:
    groups: list[_Group] = []
    by_topic: dict[str, _Group] = {}  # all messages of a topic go to one route
    ungrouped: list[LeftOut] = []
    for one in parsed:
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
            ungrouped.append(LeftOut(one.sample.topic, f"it needs another route, but there are already {MAX_ROUTES}"))
    return groups, tuple(ungrouped)


def _disjoint(groups: list[_Group]) -> list[_Group]:
    """The groups in an order in which each gets its own samples; groups for which no order works are merged."""
    while True:
        # Groups with more literal levels go first, so that no group takes the samples of a later one.
        groups.sort(key=lambda group: -sum(level is not None for level in group.levels))
        overlap = _overlap(groups)
        if overlap is None:
            return groups
        earlier, later = overlap
        earlier.add(later)
        groups.remove(later)


def _overlap(groups: Sequence[_Group]) -> tuple[_Group, _Group] | None:
    """A group that would take samples of a later one, and that one."""
    for number, group in enumerate(groups):
        for earlier in groups[:number]:
            if len(earlier.levels) != len(group.levels):
                continue
            if any(_matches(earlier.levels, one.levels) for one in group.samples):
                return earlier, group
    return None


def _matches(levels: Sequence[str | None], topic: Sequence[str]) -> bool:
    if levels[0] is None and topic[0].startswith("$"):
        return False
    return all(level in (None, given) for level, given in zip(levels, topic, strict=True))


def _shape(levels: tuple[str, ...]) -> tuple[str | None, ...]:
    """The literal levels; None for those that look like an identifier of a device or can't be written in a route."""
    shape = tuple(
        level
        if _is_writable(level) and (not _is_identifier(level) or (number == 0 and level.startswith("$")))
        else None
        for number, level in enumerate(levels)
    )
    if any(level is not None for level in shape):
        return shape
    return tuple(level if _is_writable(level) else None for level in levels)


def _is_writable(level: str) -> bool:
    return level.isprintable() and "{" not in level and "}" not in level


def _is_identifier(level: str) -> bool:
    """Whether the level contains a digit, like ``AD11`` or ``200``, and isn't a version such as ``v1``."""
    return any(character.isdigit() for character in level) and not _VERSION.fullmatch(level)


# --- routes and columns -----------------------------------------------------------------------------------


def _named(groups: Sequence[_Group]) -> list[InferredRoute]:
    inferred: list[InferredRoute] = []
    taken = {sparkplug.STREAM, table_of(sparkplug.STREAM)}
    for group in groups:
        literals = [level for level in group.levels if level is not None]
        stream = safe_name(join_name(literals) or "messages", taken)
        while table_of(stream).casefold() in taken:
            stream = safe_name(stream, taken)
        taken.add(table_of(stream).casefold())
        inferred.append(_inferred(group, stream))
    return inferred


def _inferred(group: _Group, stream: str) -> InferredRoute:
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
    if group.options.name in UNMARKED:
        draft.note(
            f"every sample can be decoded as {UNMARKED[group.options.name]}, which may be chance: check that the "
            "values make sense"
        )
    tree = Member()
    for one in group.samples:
        try:
            rows = rows_of(group.options, group.each, one.sample.payload)
        except Unmappable:
            continue  # the mapper fails too, and the group falls back to a simpler format
        for row in rows:
            tree.add(row, is_text=group.options.name == "csv")
    draft.take(tree)
    if not draft.columns:
        draft.add_column(("$topic",), AttributeType.STRING, "$topic", is_missing=False)
    if tree.is_full:
        draft.note(f"there are more than {MAX_MEMBERS} different members; the others were ignored")
    route = Route(
        topic="/".join(levels), stream=stream, fields=draft.fields, format=group.options, each=group.each, name=stream
    )
    return InferredRoute(route, tuple(draft.columns), tuple(draft.notes), len(group.samples))


# --- examples ---------------------------------------------------------------------------------------------


def _with_examples(inferred: InferredRoute, group: _Group, mapper: Mapper) -> InferredRoute:
    examples: list[Example] = []
    for one in group.samples:
        if len(examples) == MAX_EXAMPLES:
            break
        example = example_of(one.sample, mapper)
        if example is not None and example not in examples:
            examples.append(example)
    return replace(inferred, route=replace(inferred.route, examples=tuple(examples)))
