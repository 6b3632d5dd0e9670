"""Groups samples into routes: by the levels of their topics, the format of their payloads and the shape of their rows.

Groups with the same topics are told apart by conditions, or become one. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import combinations
from typing import Any

from bridge.cli.init.payload_formats import STRUCTURED, UNMARKED, GuessedFormat, common_format, decode
from bridge.cli.init.results import LeftOut, Sample
from bridge.cli.init.shapes import Condition, Shape, condition, shape_of
from bridge.cli.init.texts import is_no_value
from bridge.cli.init.topics import Levels, Template, is_identifier, matches, merged, pinned, template_of
from bridge.mapping.paths import compile_getter
from bridge.mapping.unmappable import Unmappable, preview

MAX_ROUTES = 50
MAX_SHAPES = 8
"""Shapes of rows in a message or on a topic; more of them are rather one, of which each row has some members."""

_LINES = {"json", "jsonl"}
"""A payload of one line has both formats."""

TEXTUAL = ("string", "word")
"""Kinds of shapes that any text has."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The rows of a sample that have the same shape. ``root`` has the members beside the array of rows."""

    sample: Sample
    levels: Levels
    guess: GuessedFormat
    rows: tuple[dict[str, Any], ...]
    root: dict[str, Any] | None
    shape: Shape


def parts_of(sample: Sample, guess: GuessedFormat) -> Iterator[Part]:
    """The sample's rows by shape; all together if the shapes are too many."""
    decoded = decode(guess, sample.payload)
    by_shape: dict[Shape, list[dict[str, Any]]] = {}
    for row in decoded.rows:
        by_shape.setdefault(_shape(row, guess), []).append(row)
    if len(by_shape) > MAX_SHAPES:
        first, *others = by_shape
        for other in others:
            first |= other
        by_shape = {first: decoded.rows}
    levels = tuple(sample.topic.split("/"))
    for shape, rows in by_shape.items():
        yield Part(sample, levels, guess, tuple(rows), decoded.root, shape)


def _shape(row: dict[str, Any], guess: GuessedFormat) -> Shape:
    if guess.options.name == "raw":
        paths = frozenset((name,) for name in row)
        return Shape(paths, paths, order=tuple(paths))
    return shape_of(row, guess.options.name)


def no_reading(sample: Sample) -> str:
    """Why a sample such as ``offline`` or ``unavailable`` is left out."""
    text = preview(sample.payload.decode(errors="replace"))
    return f"{text} is no reading: it is a will, or says that there is no value"


# --- groups -----------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Group:
    """Parts for one route.

    Attributes:
        parts: at least one.
        guess: the format of all.
        shape: of all rows.
        common: the topics' levels, with None where they differ.
        is_pinned: whether its only topic is written without captures, because another route takes topics like it.
        wider: what the template must take at least, because groups with the same topics do.
        cluster: the groups with the same topics, itself included.
        when: the condition, if another group has the same topics.
        is_general: whether it takes what no other group with the same topics takes.
        is_union: whether it takes every shape, because there are many on its topics.
        notes: remarks on the format.
    """

    parts: list[Part]
    guess: GuessedFormat
    shape: Shape
    common: Template
    is_pinned: bool = False
    wider: Template | None = None
    cluster: Sequence[Group] = ()
    when: Condition | None = None
    is_general: bool = False
    is_union: bool = False
    notes: list[str] = field(default_factory=list)
    _own: tuple[int, Template] | None = None
    """The template of the topics alone, computed for this number of parts."""

    @classmethod
    def of(cls, part: Part) -> Group:
        """A group of one part."""
        return cls([part], part.guess, part.shape, part.levels)

    @property
    def samples(self) -> list[Sample]:
        """The samples, each once."""
        return list({id(part.sample): part.sample for part in self.parts}.values())

    @property
    def topics(self) -> dict[Levels, None]:
        """The topics, each once."""
        return dict.fromkeys(part.levels for part in self.parts)

    @property
    def template(self) -> Template:
        """The levels of the route's topic."""
        if self.is_pinned:
            return pinned(self.parts[0].levels)
        if self._own is None or self._own[0] != len(self.parts):
            self._own = (len(self.parts), template_of(list(self.topics), is_value=self.is_value))
        own = self._own[1]
        return own if self.wider is None else merged(own, self.wider)

    @property
    def is_value(self) -> bool:
        """Whether the payloads are single numbers, booleans or words."""
        return len(self.shape.paths) == 1 and self.shape.kind in ("number", "number in text", "boolean", "word")

    @property
    def is_broken_json(self) -> bool:
        """Whether the payloads look like JSON, but can't be read as such."""
        is_other = self.guess.options.name != "json"
        return is_other and all(part.sample.payload.lstrip()[:1] in (b"{", b"[") for part in self.parts)

    def is_like(self, other: Group) -> bool:
        """Whether both can be one route: payloads of one shape, on topics with something in common."""
        if len(self.common) != len(other.common) or self.guess != other.guess or not self.shape.is_like(other.shape):
            return False
        if self.common == other.common:
            return True
        pairs = list(zip(self.common, other.common, strict=True))
        if self.shape.kind in TEXTUAL or self.guess.options.name == "raw":
            # Any payload has these formats: topics that differ more are rather about something else.
            return len(pairs) > 1 and sum(a != b or a is None for a, b in pairs if not _are_identifiers(a, b)) <= 1
        return any(a == b and a for a, b in pairs)

    def distance(self, other: Group) -> int:
        """How many more levels would differ if the other were added."""
        return sum(mine is not None and mine != its for mine, its in zip(self.common, other.common, strict=True))

    def add(self, other: Group) -> None:
        """Add another group's parts, which have the same format."""
        self.parts += other.parts
        self.shape |= other.shape
        self.common = merged(self.common, other.common)
        self.notes += [note for note in other.notes if note not in self.notes]
        self.is_pinned, self.wider, self.is_union = False, None, self.is_union or other.is_union

    def takes_topic_of(self, other: Group) -> bool:
        """Whether a topic of the other group matches this one's template."""
        template = self.template
        return len(self.common) == len(other.common) and any(matches(template, topic) for topic in other.topics)


def _are_identifiers(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and is_identifier(one) and is_identifier(other)


def _place(part: Part, groups: list[Group]) -> Group | None:
    """Add the part to the nearest group like it, or to a new one; None if there are too many groups."""
    one = Group.of(part)
    near = [group for group in groups if group.is_like(one)]
    if not near:
        rivals = [group for group in groups if group.guess == one.guess and group.takes_topic_of(one)]
        if len(rivals) >= MAX_SHAPES or any(group.is_union for group in rivals):
            near = [_joined(rivals, groups)]
    if near:
        nearest = min(near, key=lambda group: group.distance(one))
        nearest.add(one)
        return nearest
    if len(groups) >= MAX_ROUTES:
        return None
    groups.append(one)
    return one


def place_all(parts: Iterable[Part], groups: list[Group], left_out: list[LeftOut]) -> list[Group]:
    """Place the parts; samples with a part that has no place are left out. Returns the groups that got parts."""
    unplaced: dict[int, Sample] = {}
    found: dict[int, Group] = {}
    for part in parts:
        if id(part.sample) in unplaced:
            continue
        if (group := _place(part, groups)) is not None:
            found[id(group)] = group
        else:
            unplaced[id(part.sample)] = part.sample
    drop(unplaced.values(), groups)
    reason = f"it needs another route, but there are already {MAX_ROUTES}"
    left_out += [LeftOut(sample.topic, reason) for sample in unplaced.values()]
    return list(found.values())


def _joined(some: Sequence[Group], groups: list[Group]) -> Group:
    """One group instead of some."""
    first, *others = some
    for other in others:
        first.add(other)
        groups.remove(other)
    first.is_union = True
    return first


def drop(samples: Iterable[Sample], groups: list[Group]) -> None:
    """Remove samples from all groups, and groups without any."""
    dropped = {id(sample) for sample in samples}
    for group in groups:
        group.parts = [part for part in group.parts if id(part.sample) not in dropped]
    groups[:] = [group for group in groups if group.parts]


def samples_of(groups: Iterable[Group]) -> list[Sample]:
    """The samples of all groups, each once."""
    return list({id(sample): sample for group in groups for sample in group.samples}.values())


# --- groups with the same topics --------------------------------------------------------------------------


def settled(groups: list[Group], with_words: set[Levels], left_out: list[LeftOut]) -> list[Group]:
    """The groups in an order, and with conditions, in which each gets its own samples."""
    while True:
        _merge_alike(groups)
        with_words |= _dropped_words(groups, left_out)
        for group in groups:
            group.when, group.is_general, group.cluster = None, False, (group,)
        # Groups with more literal levels go first, so that no group takes the samples of a later one.
        groups.sort(key=_order)
        if _reconciled(groups, left_out) or _widened(groups):
            continue
        pair = _conditioned(groups)
        if pair is None:
            groups.sort(key=_order)
            return groups
        pair[0].add(pair[1])
        groups.remove(pair[1])


def _dropped_words(groups: list[Group], left_out: list[LeftOut]) -> set[Levels]:
    """Leave out samples that say only that there is no value, beside devices that send some; their topics."""
    found: set[Levels] = set()
    for group in list(groups):
        rivals = [one for one in groups if one.guess == group.guess and one.takes_topic_of(group)]
        has_readings = any(one.shape.type in ("number", "boolean") for one in rivals)
        is_empty = group.shape.kind == "word" and all(_says_no_value(part) for part in group.parts)
        if has_readings and is_empty:
            left_out += [LeftOut(sample.topic, no_reading(sample)) for sample in group.samples]
            found.update(group.topics, *(one.topics for one in rivals))
            drop(group.samples, groups)
    return found


def _says_no_value(part: Part) -> bool:
    return all(isinstance(value, str) and is_no_value(value) for row in part.rows for value in row.values())


def _order(group: Group) -> tuple[int, bool]:
    return -sum(level is not None for level in group.template), group.is_general


def _merge_alike(groups: list[Group]) -> None:
    while pair := next(((a, b) for a, b in combinations(groups, 2) if a.is_like(b)), None):
        pair[0].add(pair[1])
        groups.remove(pair[1])


def _reconciled(groups: list[Group], left_out: list[LeftOut]) -> bool:
    """Whether two groups with the same topics had different formats, and now one of them is changed."""
    for earlier, later in combinations(groups, 2):
        if earlier.guess == later.guess or not earlier.takes_topic_of(later):
            continue
        small, large = sorted((earlier, later), key=_weight)
        if _pin(small, large):
            return True
        formats = [replace(group.guess.options, compression="none") for group in (small, large)]
        is_sure = large.guess.options.name not in (*UNMARKED, "raw") and {one.name for one in formats} != _LINES
        if is_sure and formats[0] != formats[1] and (small.is_broken_json or len(small.samples) < len(large.samples)):
            _leave_out(small, large.guess, groups, left_out)
        else:
            both = GuessedFormat(common_format(small.guess.options, large.guess.options))
            both = both._replace(each=small.guess.each or large.guess.each) if both.options.name == "json" else both
            convert([small, large], both, groups, left_out)
        return True
    return False


def _weight(group: Group) -> tuple[bool, int, bool]:
    """Of two groups with different formats, the one with the smaller weight gives way."""
    return not group.is_broken_json, len(group.samples), group.guess.options.name in STRUCTURED


def _pin(small: Group, large: Group) -> bool:
    """Whether the small group now has its only topic to itself."""
    is_own = len(small.topics) == 1 and not small.topics.keys() & large.topics.keys()
    if small.is_pinned or small.is_broken_json or not is_own:
        return False
    small.is_pinned = True
    if _order(small) < _order(large) or not large.takes_topic_of(small):
        return True
    small.is_pinned = False
    return False


def _leave_out(small: Group, guess: GuessedFormat, groups: list[Group], left_out: list[LeftOut]) -> None:
    """Leave out a group's samples that don't have the format of most messages on their topics; convert the others."""
    unfit = {}
    for sample in small.samples:
        try:
            decode(guess, sample.payload)
        except Unmappable as exc:
            unfit[id(sample)] = sample
            left_out.append(LeftOut(sample.topic, f"{exc.reason.value}: {exc}"))
    drop(unfit.values(), groups)
    if small.parts:
        convert([small], guess, groups, left_out)


def convert(changed: Sequence[Group], guess: GuessedFormat, groups: list[Group], left_out: list[LeftOut]) -> None:
    """Give these groups' samples another format, and group them again."""
    samples = samples_of(changed)
    is_mixed = any(group.guess.options.name != guess.options.name for group in changed)
    drop(samples, groups)
    parts: list[Part] = []
    for sample in samples:
        try:
            parts += parts_of(sample, guess)
        except Unmappable as exc:
            left_out.append(LeftOut(sample.topic, f"{exc.reason.value}: {exc}"))
    for group in place_all(parts, groups, left_out):
        if is_mixed and (note := _mixed(guess)) not in group.notes:
            group.notes.append(note)


def _mixed(guess: GuessedFormat) -> str:
    return f"payloads on these topics have several formats: {guess.options.name} takes them all"


def _widened(groups: Sequence[Group]) -> bool:
    """Whether groups with the same topics got a wider template: a new device may send any of their shapes."""
    changed = False
    for cluster in _clusters(groups):
        free = [group for group in cluster if not group.is_pinned]
        wider = reduce(merged, [group.template for group in free]) if len(free) > 1 else None
        for group in free:
            if wider is not None and group.template != wider:
                group.wider, changed = wider, True
    return changed


def _conditioned(groups: Sequence[Group]) -> tuple[Group, Group] | None:
    """Give groups with the same topics conditions; two groups that can't be told apart are returned instead."""
    for cluster in _clusters(groups):
        general: Group | None = None
        for group in cluster:
            group.cluster = cluster
            others = [other.shape for other in cluster if other is not group]
            group.when = condition(group.shape, others, group.guess.options.name)
            if group.when is None or not holds(group.when.expression, group):
                if general is not None:
                    return general, group
                group.when, group.is_general, general = None, True, group
        for group, other in combinations(cluster, 2):
            if any(
                a.when is not None and _holds_for_any(a.when.expression, b) for a, b in ((group, other), (other, group))
            ):
                return group, other
    return None


def _clusters(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups of one format of which some take topics of others, together; groups alone are not listed."""
    clusters: list[list[Group]] = []
    for number, group in enumerate(groups):
        rivals = [
            other
            for other in groups[:number]
            if other.guess == group.guess and (other.takes_topic_of(group) or group.takes_topic_of(other))
        ]
        joined = [cluster for cluster in clusters if any(rival in cluster for rival in rivals)]
        clusters = [cluster for cluster in clusters if cluster not in joined]
        together = [*(one for cluster in joined for one in cluster)]
        together += [rival for rival in rivals if rival not in together]
        clusters.append([*together, group])
    return [cluster for cluster in clusters if len(cluster) > 1]


def holds(expression: str, group: Group) -> bool:
    """Whether the condition is true for all rows of the group."""
    return all(_truths(expression, group))


def _holds_for_any(expression: str, group: Group) -> bool:
    return any(_truths(expression, group))


def _truths(expression: str, group: Group) -> Iterator[bool]:
    get = compile_getter(f"jmespath:{expression}")
    for part in group.parts:
        for row in part.rows:
            try:
                yield get(row) is True
            except Unmappable:
                yield False
