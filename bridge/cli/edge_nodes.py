"""From samples of Sparkplug edge nodes to one route for all of them. Pure.

Topics and members are given by the specification; what has to be found out is what most values are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bridge.cli.findings import MAX_EXAMPLES, Findings, Found, LeftOut, Sample, example_of, mapping_of
from bridge.mapping import Example, FieldSpec, FormatOptions, Route
from bridge.mapping.formats import MissingExtra
from bridge.mapping.sparkplug import NAMESPACE, Sparkplug
from bridge.mapping.unmappable import NoReading, Unmappable, preview
from bridge.message import DeadLetter
from bridge.reasons import Reason
from bridge.streamql.syntax import Attribute, AttributeType

STREAM = "sparkplug"

NO_BIRTH = (
    "its metrics are named by a birth certificate that is not among the samples; the running bridge asks for births"
)
"""Why data was left out that the route will take."""

_TRIED = 50
"""Samples of which examples are tried to be made."""

_NUMBER = ("number", AttributeType.DOUBLE)
_KINDS: dict[type, tuple[str, AttributeType]] = {
    int: _NUMBER,
    float: _NUMBER,
    bool: ("boolean", AttributeType.BOOL),
    str: ("string", AttributeType.STRING),
    list: ("array", AttributeType.OBJECT),
    dict: ("object", AttributeType.OBJECT),
}
"""What JMESPath calls a value, and the column that takes it."""


def is_of(sample: Sample) -> bool:
    """Whether it can only be Sparkplug B."""
    return sample.topic.startswith(f"{NAMESPACE}/")


def infer(samples: Sequence[Sample]) -> Findings:
    """A route for the samples, in the order in which they came, or the reasons why there is none."""
    if not samples:
        return Findings((), ())
    try:
        state = Sparkplug()
    except MissingExtra as exc:
        return Findings((), tuple(LeftOut(sample.topic, str(exc)) for sample in samples))
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
        return Findings((), tuple(left_out))
    found = _found(rows)
    while taken:
        mapping = mapping_of([found])
        failed = [(s, mapped) for s in taken if isinstance(mapped := mapping.map(s.message), DeadLetter)]
        if not failed:
            break
        # Once more without them: what a birth said that is left out is not known to the samples after it either.
        left_out += [LeftOut(sample.topic, letter.detail) for sample, letter in failed]
        taken = [sample for sample in taken if not any(sample is other for other, _ in failed)]
    route = replace(found.route, examples=_examples(found, taken))
    return Findings((replace(found, route=route, samples=len(taken)),), tuple(left_out), tuple(taken))


def _found(rows: Sequence[dict[str, Any]]) -> Found:
    kinds = {
        row["metric"]: _KINDS[type(row["value"])]
        for row in rows
        if row["value"] is not None and row["metric"] != "bdSeq" and not row["metric"].startswith("Node Control/")
    }
    kind, wanted = Counter(kinds.values()).most_common(1)[0][0] if kinds else _NUMBER
    notes = []
    if not kinds:
        notes.append("no values were among the samples: that they are numbers is a guess")
    if others := [(name, other) for name, (other, _) in kinds.items() if other != kind]:
        count = "1 metric has" if len(others) == 1 else f"{len(others)} metrics have"
        name, other = others[0]
        notes.append(
            f"{count} another type of value, as {preview(name)} ({other}): the condition (when) passes them over; "
            "a later route, with a stream of its own, can take them"
        )
    route = Route(
        topic=f"{NAMESPACE}/{{group_id}}/+/{{edge_node_id}}/#",
        stream=STREAM,
        format=FormatOptions(name="sparkplug"),
        when=f"type(value) == '{kind}' && metric != 'bdSeq'",
        fields={"device_id": FieldSpec("device", default=""), "timestamp": FieldSpec("timestamp", default=0)},
        name=STREAM,
    )
    columns = [
        *((name, AttributeType.STRING) for name in ("group_id", "edge_node_id", "device_id", "metric")),
        ("value", wanted),
        ("timestamp", AttributeType.LONG),
    ]
    return Found(route, tuple(Attribute(name, type_) for name, type_ in columns), tuple(notes), 0)


def _examples(found: Found, taken: Sequence[Sample]) -> tuple[Example, ...]:
    """Examples that need no message before them: births, most of all."""
    examples: list[Example] = []
    for sample in sorted(taken, key=lambda sample: "BIRTH/" not in sample.topic)[:_TRIED]:
        example = example_of(sample, mapping_of([found]))
        if example is not None and example not in examples and len(examples) < MAX_EXAMPLES:
            examples.append(example)
    return tuple(examples)
