"""Infers one route from all samples of Sparkplug edge nodes. Pure.

The specification fixes topics and members; only the type that most values have must be inferred.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bridge.cli.init.results import MAX_EXAMPLES, Inference, InferredRoute, LeftOut, Sample, example_of, mapper_of
from bridge.mapping import Example, FormatOptions, Route
from bridge.mapping.formats import MissingExtra
from bridge.mapping.sparkplug import NAMESPACE, Sparkplug
from bridge.mapping.unmappable import NoReading, Unmappable, preview
from bridge.message import DeadLetter
from bridge.reasons import Reason
from bridge.streamql.syntax import Attribute, AttributeType

STREAM = "sparkplug"

NO_BIRTH = "the birth certificate that names its metrics is not among the samples; the running bridge requests births"
"""Why a sample is left out although the route will take such messages."""

_EXAMPLE_CANDIDATES = 50
"""Samples that are tried as examples."""

_NUMBER = ("number", AttributeType.DOUBLE)
_KINDS: dict[type, tuple[str, AttributeType]] = {
    int: _NUMBER,
    float: _NUMBER,
    bool: ("boolean", AttributeType.BOOL),
    str: ("string", AttributeType.STRING),
    list: ("array", AttributeType.OBJECT),
    dict: ("object", AttributeType.OBJECT),
}
"""JMESPath's name for a value's type, and the column type that takes it."""


def is_sparkplug(sample: Sample) -> bool:
    """Whether the topic is in Sparkplug B's namespace."""
    return sample.topic.startswith(f"{NAMESPACE}/")


def infer(samples: Sequence[Sample]) -> Inference:
    """A route for the samples, given in the order received, or the reasons why there is none."""
    if not samples:
        return Inference((), ())
    try:
        state = Sparkplug()
    except MissingExtra as exc:
        return Inference((), tuple(LeftOut(sample.topic, str(exc)) for sample in samples))
    taken: list[Sample] = []
    left_out: list[LeftOut] = []
    rows: list[dict[str, Any]] = []
    for sample in samples:
        try:
            rows += state.decode(sample.topic, sample.payload)
            taken.append(sample)
        except NoReading as exc:
            left_out.append(LeftOut(sample.topic, str(exc)))
        except Unmappable as exc:
            left_out.append(LeftOut(sample.topic, NO_BIRTH if exc.reason is Reason.UNKNOWN_ALIAS else str(exc)))
    if not taken and not any(one.reason == NO_BIRTH for one in left_out):
        return Inference((), tuple(left_out))
    inferred = _inferred(rows)
    while taken:
        mapper = mapper_of([inferred])
        failed = [(s, mapped) for s in taken if isinstance(mapped := mapper.map(s.message), DeadLetter)]
        if not failed:
            break
        # Try again without them: later samples may depend on a birth that was left out.
        left_out += [LeftOut(sample.topic, dead_letter.detail) for sample, dead_letter in failed]
        taken = [sample for sample in taken if not any(sample is other for other, _ in failed)]
    route = replace(inferred.route, examples=_examples(inferred, taken))
    return Inference((replace(inferred, route=route, samples=len(taken)),), tuple(left_out), tuple(taken))


def _inferred(rows: Sequence[dict[str, Any]]) -> InferredRoute:
    kinds = {
        row["metric"]: _KINDS[type(row["value"])]
        for row in rows
        if row["value"] is not None and row["metric"] != "bdSeq" and not row["metric"].startswith("Node Control/")
    }
    kind, wanted = Counter(kinds.values()).most_common(1)[0][0] if kinds else _NUMBER
    notes = []
    if not kinds:
        notes.append("the samples contain no values; their type, number, is a guess")
    if others := [(name, other) for name, (other, _) in kinds.items() if other != kind]:
        count = "1 metric has" if len(others) == 1 else f"{len(others)} metrics have"
        name, other = others[0]
        notes.append(
            f"{count} values of another type, such as {preview(name)} ({other}): the condition (when) excludes them; "
            "a later route with its own stream can take them"
        )
    route = Route(
        topic=f"{NAMESPACE}/{{group_id}}/+/{{edge_node_id}}/#",
        stream=STREAM,
        format=FormatOptions(name="sparkplug"),
        when=f"type(value) == '{kind}' && metric != 'bdSeq'",
        fields={"device_id": "device"},
        name=STREAM,
    )
    columns = [
        *((name, AttributeType.STRING) for name in ("group_id", "edge_node_id", "device_id", "metric")),
        ("value", wanted),
        ("timestamp", AttributeType.LONG),
    ]
    return InferredRoute(
        route, tuple(Attribute(name, type_) for name, type_ in columns), tuple(notes), 0, takes_nulls=True
    )


def _examples(inferred: InferredRoute, taken: Sequence[Sample]) -> tuple[Example, ...]:
    """Examples that work without earlier messages; births come first."""
    examples: list[Example] = []
    for sample in sorted(taken, key=lambda sample: "BIRTH/" not in sample.topic)[:_EXAMPLE_CANDIDATES]:
        example = example_of(sample, mapper_of([inferred]))
        if example is not None and example not in examples and len(examples) < MAX_EXAMPLES:
            examples.append(example)
    return tuple(examples)
