"""Infers routes, streams and columns from sample messages. Pure.

Samples are grouped by the shape of their topics, the format of their payloads and the members of their rows; each group
becomes a route and a stream. Groups on the same topics get conditions (``when``). The routes are then tested with the
real mapper: samples that fail are left out, and a group that fails on most of its own samples falls back to a simpler
format, down to ``raw``, which takes any bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from bridge.cli.init import sparkplug
from bridge.cli.init.columns import MAX_MEMBERS, Columns, Member
from bridge.cli.init.groups import (
    TEXTUAL,
    Group,
    Part,
    convert,
    drop,
    holds,
    no_reading,
    parts_of,
    place_all,
    samples_of,
    settled,
)
from bridge.cli.init.names import join_name, safe_name
from bridge.cli.init.payload_formats import (
    EVERY_ELEMENT,
    STRUCTURED,
    UNMARKED,
    GuessedFormat,
    guess_format,
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
from bridge.cli.init.shapes import condition, guard
from bridge.cli.init.topics import (
    Levels,
    is_writable,
    named,
    stream_words,
)
from bridge.mapping import Example, Mapper, Route
from bridge.mapping.formats import MissingExtra
from bridge.mapping.payload import MAX_PAYLOAD
from bridge.message import DeadLetter
from bridge.streamql.syntax import Attribute, AttributeType

MAX_SAMPLES = 2000
MAX_BYTES = 2 * 1024 * 1024
"""Topics and payloads of all samples."""

MAX_TOPIC = 1000
"""Characters. Samples with longer topics are left out."""

MAX_LEVELS = 32

MAX_FALL_BACKS = 10
"""Rounds in which groups may change to a simpler format; later, samples that fail are only left out. A group may be
changed back for others with the same topics, so that without this bound there may be no end.
"""

_TEXT_OPTIONS = ("json", "jsonl", "scalar", "csv")
"""Formats with the options ``decimal`` and ``null_values``."""


def infer(samples: Iterable[Sample]) -> Inference:
    """Routes that take the samples, except those left out with a reason.

    Samples beyond ``MAX_SAMPLES`` or ``MAX_BYTES`` are ignored.
    """
    usable, from_edge_nodes, left_out = _usable(samples)
    edge_nodes = sparkplug.infer(from_edge_nodes)
    left_out += list(edge_nodes.left_out)
    parts, with_words = _without_words([part for sample, guess in usable for part in parts_of(sample, guess)], left_out)
    groups: list[Group] = []
    place_all(parts, groups, left_out)
    fall_backs = MAX_FALL_BACKS
    while groups := settled(groups, with_words, left_out):
        inferred = _named(groups, with_words)
        mapper = mapper_of(inferred)
        fall_backs -= 1
        if not _corrected(groups, inferred, mapper, left_out, may_fall_back=fall_backs > 0):
            routes = _with_examples(inferred, groups, mapper)
            # The first route that matches takes a message; no group has topics in Sparkplug's namespace.
            return Inference((*edge_nodes.routes, *routes), tuple(left_out), (*edge_nodes.taken, *samples_of(groups)))
    return Inference(edge_nodes.routes, tuple(left_out), edge_nodes.taken)


# --- samples ----------------------------------------------------------------------------------------------


def _usable(samples: Iterable[Sample]) -> tuple[list[tuple[Sample, GuessedFormat]], list[Sample], list[LeftOut]]:
    """The usable samples with their formats, then those of Sparkplug edge nodes, then those left out."""
    usable: list[tuple[Sample, GuessedFormat]] = []
    from_edge_nodes: list[Sample] = []
    left_out: list[LeftOut] = []
    room = MAX_BYTES
    for number, sample in enumerate(samples):
        room -= len(sample.topic) + len(sample.payload)
        if number == MAX_SAMPLES or room < 0:
            break
        problem = _problem(sample)
        if problem is not None:
            left_out.append(LeftOut(sample.topic, problem))
        elif sparkplug.is_sparkplug(sample):
            from_edge_nodes.append(sample)
        else:
            try:
                guess = guess_format(sample.payload)
                usable.append((Sample(*sample), guess))  # a copy: samples are compared by identity
            except MissingExtra as exc:
                left_out.append(LeftOut(sample.topic, str(exc)))
    return usable, from_edge_nodes, left_out


def _problem(sample: Sample) -> str | None:
    if (problem := _topic_problem(sample.topic)) is not None:
        return problem
    if not sample.payload:
        return "the payload is empty: it clears a retained message (MQTT 5, 3.3.1.3), and is no reading"
    if len(sample.payload) > MAX_PAYLOAD:
        return f"the payload has more than {MAX_PAYLOAD} bytes"
    return None


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
    if topic.startswith("$") and not is_writable(topic.split("/", 1)[0]):
        return "its first level can't be written in a route, and no wildcard matches it (MQTT 5, 4.7.2)"
    return None


def _without_words(parts: Sequence[Part], left_out: list[LeftOut]) -> tuple[list[Part], set[Levels]]:
    """The parts without texts such as ``offline`` on topics that have readings, then these topics."""
    readings = {part.levels for part in parts if part.shape.kind not in TEXTUAL or part.guess.options.name == "raw"}
    shapes = Counter(id(part.sample) for part in parts)
    kept, with_words = [], set()
    for part in parts:
        if part.shape.kind == "word" and part.levels in readings and shapes[id(part.sample)] == 1:
            left_out.append(LeftOut(part.sample.topic, no_reading(part.sample)))
            with_words.add(part.levels)
        else:
            kept.append(part)
    return kept, with_words


# --- the test with the mapper -----------------------------------------------------------------------------


def _corrected(
    groups: list[Group],
    inferred: Sequence[InferredRoute],
    mapper: Mapper,
    left_out: list[LeftOut],
    *,
    may_fall_back: bool,
) -> bool:
    """Whether samples didn't become their rows, and the groups were changed for it."""
    failed: dict[int, tuple[Sample, str]] = {}
    for sample in samples_of(groups):
        mapped = mapper.map(sample.message)
        if isinstance(mapped, DeadLetter):
            failed[id(sample)] = (sample, f"{mapped.reason}: {mapped.detail}")
            continue
        expected = Counter[str]()
        for group, one in zip(groups, inferred, strict=True):
            expected[one.route.stream] += sum(len(part.rows) for part in group.parts if part.sample is sample)
        if Counter(row.stream for row in mapped) != +expected:
            failed[id(sample)] = (sample, "other routes would take a part of its rows")
    if not failed:
        return False
    for group in list(groups) if may_fall_back else ():
        bad = [sample for sample in group.samples if id(sample) in failed]
        options = simpler_format(group.guess.options)
        if options is not None and 2 * len(bad) > len(group.samples):
            samples = {id(sample) for sample in group.samples}
            convert([group], GuessedFormat(options), groups, left_out)
            failed = {key: value for key, value in failed.items() if key not in samples}
    left_out += [LeftOut(sample.topic, reason) for sample, reason in failed.values()]
    drop([sample for sample, _ in failed.values()], groups)
    return True


# --- routes and columns -----------------------------------------------------------------------------------


def _named(groups: Sequence[Group], with_words: set[Levels]) -> list[InferredRoute]:
    inferred: list[InferredRoute] = []
    taken = {sparkplug.STREAM, table_of(sparkplug.STREAM)}
    shared = Counter(id(sample) for group in groups for sample in group.samples)
    for group in groups:
        words = stream_words(group.template, list(group.topics))
        suffix = [group.when.word] if group.when is not None else []
        stream = safe_name(join_name([*words, *suffix]) or "messages", taken)
        while table_of(stream).casefold() in taken:
            stream = safe_name(stream, taken)
        taken.add(table_of(stream).casefold())
        is_shared = any(shared[id(sample)] > 1 for sample in group.samples)
        one = _inferred(group, stream, is_shared=is_shared)
        if one.route.when is None and with_words & group.topics.keys():
            when = condition(group.shape, [], group.guess.options.name)
            one = replace(one, route=replace(one.route, when=None if when is None else when.expression))
        inferred.append(one)
    return inferred


def _inferred(group: Group, stream: str, *, is_shared: bool) -> InferredRoute:
    options = group.guess.options
    names: set[str] = set()
    topics = [topic for one in group.cluster for topic in one.topics]  # so that all give the captures the same names
    is_value = all(len(one.shape.paths) == 1 for one in group.cluster)
    levels = named(group.template, topics, is_value=is_value, taken=names)
    columns = [Attribute(level[1:-1], AttributeType.STRING) for level in levels if level.startswith("{")]
    captures = len(columns)
    draft = Columns(names, columns, is_text=options.name == "csv", notes=list(group.notes))
    if group.is_broken_json:
        draft.note("the payloads look like JSON, but can't be read as such")
    if options.name in UNMARKED:
        draft.note(
            f"every sample can be decoded as {UNMARKED[options.name]}, which may be chance: check that the values "
            "make sense"
        )
    tree, root = Member(), Member()
    for part in group.parts:
        if part.root is not None:
            root.add(part.root, is_text=False)
        for row in part.rows:
            tree.add(row, is_text=options.name == "csv")
    draft.take(root, root=True)
    draft.take(tree)
    if options.name in _TEXT_OPTIONS:
        options = replace(options, **tree.text_options())
    is_incomplete = tree.is_incomplete or bool(options.null_values)
    takes_nulls = options.name in STRUCTURED and (len(draft.columns) - captures > 1 or is_incomplete)
    if not draft.columns:
        draft.add_column(("$topic",), AttributeType.STRING, "$topic")
    if tree.is_full:
        draft.note(f"there are more than {MAX_MEMBERS} different members; the others were ignored")
    route = Route(
        topic="/".join(levels),
        stream=stream,
        fields=draft.fields,
        format=options,
        each=group.guess.each,
        when=group.when.expression if group.when is not None else _guard(group) if takes_nulls else None,
        match="all" if is_shared and not group.is_general else "first",
        name=stream,
    )
    return InferredRoute(route, tuple(draft.columns), tuple(draft.notes), len(group.samples), takes_nulls)


def _guard(group: Group) -> str | None:
    """A condition that keeps messages without any known reading from becoming rows of nulls."""
    if group.guess.options.name not in ("json", "jsonl", "msgpack", "cbor") or group.guess.each == EVERY_ELEMENT:
        return None
    expression = guard(group.shape)
    return expression if expression is not None and holds(expression, group) else None


# --- examples ---------------------------------------------------------------------------------------------


def _with_examples(
    inferred: Sequence[InferredRoute], groups: Sequence[Group], mapper: Mapper
) -> Iterator[InferredRoute]:
    written: set[int] = set()  # a sample with rows of several routes is an example of the first
    for one, group in zip(inferred, groups, strict=True):
        examples: list[Example] = []
        for sample in group.samples:
            if len(examples) == MAX_EXAMPLES:
                break
            example = example_of(sample, mapper) if id(sample) not in written else None
            if example is not None and example not in examples:
                examples.append(example)
                written.add(id(sample))
        yield replace(one, route=replace(one.route, examples=tuple(examples)))
