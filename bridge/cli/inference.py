"""From sample messages to routes, streams and columns that take them. Pure.

Samples are grouped by the shape of their topics and the kind of their payloads; a group becomes a route and a stream.
Whatever was guessed is then tried with the real mapping: a group that doesn't take its own samples falls back to a
simpler format, down to ``raw``, which takes every byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from bridge.cli import edge_nodes
from bridge.cli.columns import MAX_MEMBERS, Columns, Member
from bridge.cli.findings import MAX_EXAMPLES, Findings, Found, LeftOut, Sample, example_of, mapping_of, table_of
from bridge.cli.kinds import NAMELESS, PayloadKind, common, kind_of, rows_of, simpler
from bridge.cli.naming import capture_name, joined, safe_name
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
"""Characters. Longer topics are left out."""

MAX_LEVELS = 32
MAX_ROUTES = 50

_VERSION = re.compile(r"[vV][0-9]+(?:\.[0-9]+)*")


def infer(samples: Iterable[Sample]) -> Findings:
    """Routes that take the samples, but for those left out with their reasons.

    Of more than ``MAX_SAMPLES`` samples or ``MAX_BYTES`` bytes the first are taken.
    """
    read, of_edge_nodes, left_out = _read_all(samples)
    sparkplug = edge_nodes.infer(of_edge_nodes)
    groups, homeless = _groups(read)
    left_out += (*sparkplug.left_out, *homeless)
    while groups:
        groups = _disjoint(groups)
        found = _named(groups)
        mapping = mapping_of(found)
        failed: dict[int, list[tuple[_Read, DeadLetter]]] = {}
        for number, group in enumerate(groups):
            for one in group.read:
                mapped = mapping.map(one.sample.message)
                if isinstance(mapped, DeadLetter):
                    failed.setdefault(number, []).append((one, mapped))
        if not failed:
            found = [_with_examples(f, g, mapping) for f, g in zip(found, groups, strict=True)]
            taken = (one.sample for group in groups for one in group.read)
            # The first route that takes a message gets it, and no group has a topic of Sparkplug's.
            return Findings((*sparkplug.found, *found), left_out, (*sparkplug.taken, *taken))
        for number, letters in failed.items():
            if groups[number].fall_back():
                continue
            left_out += tuple(LeftOut(one.sample.topic, letter.detail) for one, letter in letters)
            groups[number].drop([one for one, _ in letters])
        groups = [group for group in groups if group.read]
    return Findings(sparkplug.found, left_out, sparkplug.taken)


# --- samples ----------------------------------------------------------------------------------------------


class _Read(NamedTuple):
    """A sample with what its payload seems to be."""

    sample: Sample
    levels: tuple[str, ...]
    shape: tuple[str | None, ...]
    """Its levels, but for those that are a capture whatever other samples say."""
    kind: PayloadKind


def _read_all(samples: Iterable[Sample]) -> tuple[list[_Read], list[Sample], tuple[LeftOut, ...]]:
    """The samples, those of Sparkplug's edge nodes apart, and those that can be none."""
    read: list[_Read] = []
    of_edge_nodes: list[Sample] = []
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
        if edge_nodes.is_of(sample):
            of_edge_nodes.append(sample)
            continue
        levels = tuple(sample.topic.split("/"))
        try:
            read.append(_Read(sample, levels, _shape(levels), kind_of(sample.payload)))
        except MissingExtra as exc:
            left_out.append(LeftOut(sample.topic, str(exc)))
    return read, of_edge_nodes, tuple(left_out)


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
        return cls(one.shape, [one], *one.kind)

    def merged_levels(self, levels: Sequence[str | None]) -> tuple[str | None, ...]:
        """The levels that both have in common."""
        return tuple(mine if mine == other else None for mine, other in zip(self.levels, levels, strict=True))

    def takes(self, one: _Read) -> bool:
        """Whether a sample is of this group's kind, and some level of its topic too."""
        if len(one.levels) != len(self.levels) or one.kind.options != self.options:
            return False
        if self.signature != one.kind.signature:
            both, all_ = len(self.signature & one.kind.signature), len(self.signature | one.kind.signature)
            if self.options.name in ("scalar", "csv") or 2 * both < all_:
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
        self.options = common(self.options, other.options)
        self.each = (self.each or other.each) if self.options.name == "json" else None

    def fall_back(self) -> bool:
        """To the next simpler format; False: there is none."""
        options = simpler(self.options)
        if options is None:
            return False
        self.options, self.each = options, None
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
    taken = {edge_nodes.STREAM, table_of(edge_nodes.STREAM)}
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
    if group.options.name in NAMELESS:
        draft.say(
            f"every sample can be read as {NAMELESS[group.options.name]}, but nothing in it names the format: "
            "see that the values make sense"
        )
    tree = Member()
    for one in group.read:
        try:
            rows = rows_of(group.options, group.each, one.sample.payload)
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


def _with_examples(found: Found, group: _Group, mapping: Mapper) -> Found:
    examples: list[Example] = []
    for one in group.read:
        if len(examples) == MAX_EXAMPLES:
            break
        example = example_of(one.sample, mapping)
        if example is not None and example not in examples:
            examples.append(example)
    return replace(found, route=replace(found.route, examples=tuple(examples)))
