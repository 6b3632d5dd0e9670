"""What a route's ``fields`` say: where a column's value comes from, and what is made of it.

``=text`` is a constant; a number or a boolean is itself; ``{capture}`` is a topic level; ``$…`` is what is known of the
message beside its payload; text with several ``{…}`` joins such parts; ``jmespath:`` begins an expression; everything
else is a dotted path, as ``sensors.0.temp`` or ``"a.b".c``. A table adds what is made of the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from bridge.mapping.coercion import FRACTION_TYPES, WHOLE_TYPES, as_text, from_text
from bridge.mapping.paths import JMESPATH, compile_getter, compile_path, path_steps
from bridge.mapping.payload import kind
from bridge.mapping.times import TIME_FORMATS, iso8601, parse_time
from bridge.mapping.unmappable import Unmappable, shown
from bridge.reasons import Reason
from bridge.streamql.syntax import AttributeType

Field = Callable[[Mapping[str, Any], Any], Any]
"""(captures and metadata, payload) -> the value; None where there is none."""

RowId = Callable[[Any, int], str]
"""(payload, record id) -> the row's id."""

ROW_ID = "$id"
ROOT = "$root"
USER = "$user"
METADATA = {
    ROW_ID: "the row's id",
    "$topic": "the topic",
    "$client": "the bridge's client id",
    "$qos": "0 or 1",
    "$retain": "whether it was retained",
    "$received_at": "when the bridge received it",
    ROOT: "the whole payload, where each or an array makes several rows",
    USER: "MQTT 5 user properties, as $user.name",
}
"""What is known of a message beside its payload. At run time it stands among the captures, which have no dollar."""

_TEXTS = (ROW_ID, "$topic", "$client")

Scalar = str | int | float | bool

_HOLE = re.compile(r"\{([^{}]*)\}")
_DIGITS = Context(prec=40)
_LARGEST = Decimal(10) ** 300


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A column's source, and what is made of its value: mapped, then scaled, or read as a point in time."""

    source: Scalar
    scale: float | None = None
    offset: float | None = None
    map: Mapping[str, Scalar] | None = None
    """From the value as text; ``*`` for all others."""
    default: Scalar | None = None
    """Where there is no value."""
    time: str | None = None
    """A point in time in one of ``TIME_FORMATS``: milliseconds since the epoch, or ISO 8601 for a text column."""


def compile_column(value: Scalar | FieldSpec, *, captures: frozenset[str], wanted: AttributeType) -> Field:
    """The field that an entry of ``fields`` describes, for a column of the type ``wanted``.

    Raises:
        ValueError: it describes none; the message says why.
    """
    if isinstance(value, FieldSpec):
        return compile_spec(value, captures=captures, wanted=wanted)
    return compile_field(value, captures=captures, wanted=wanted)


def compile_spec(spec: FieldSpec, *, captures: frozenset[str], wanted: AttributeType) -> Field:
    """The field that ``spec`` describes, for a column of the type ``wanted``.

    Raises:
        ValueError: it describes none; the message says why.
    """
    if spec.time is not None:
        return _with_default(_time(spec, captures, wanted), spec.default)
    mapped, scaled = spec.map is not None, spec.scale is not None or spec.offset is not None
    # What is still to be mapped or scaled need not look like the column yet.
    from_ = AttributeType.STRING if mapped else AttributeType.DOUBLE if scaled else wanted
    field = compile_field(spec.source, captures=captures, wanted=from_)
    if spec.map is not None:
        field = _mapped(field, spec.map)
    if scaled:
        if wanted not in (*WHOLE_TYPES, *FRACTION_TYPES):
            raise ValueError(f"scale and offset make a number, and the column is {wanted.value}")
        field = _scaled(field, spec.scale, spec.offset)
    return _with_default(field, spec.default)


def compile_field(value: Scalar, *, captures: frozenset[str], wanted: AttributeType) -> Field:
    """The field that ``value`` describes, for a column of the type ``wanted``.

    Raises:
        ValueError: it describes none; the message says why.
    """
    if not isinstance(value, str):
        return lambda _captures, _payload: value
    if value.startswith("="):
        text = value[1:]
        return lambda _captures, _payload: text
    if value.startswith(JMESPATH):
        return _of_payload(compile_getter(value))
    holes = list(_HOLE.finditer(value))
    if not holes:
        if "{" in value or "}" in value:
            raise ValueError(f"a brace without its partner in {value!r}")
        return _hole(value, frozenset(), wanted)
    if len(holes) == 1 and holes[0][0] == value:
        return _hole(holes[0][1], captures, wanted)
    if wanted is AttributeType.OBJECT:
        raise ValueError(f"{value!r} makes text, and the column is object")
    return _template(value, holes, captures)


def metadata_in(value: Scalar) -> set[str]:
    """The metadata that the field which ``value`` describes takes, by its names in ``METADATA``."""
    if not isinstance(value, str) or value.startswith(("=", JMESPATH)):
        return set()
    holes = [hole[1] for hole in _HOLE.finditer(value)] or [value]
    return {name for hole in holes for name in METADATA if hole == name or hole.startswith(f"{name}.")}


def compile_row_id(path: str | None, *, outbox_name: str) -> RowId:
    """What makes a row's id: the payload's value at ``path``; without a path, outbox and record id.

    Raises:
        ValueError: ``path`` is none; the message says why.
    """
    if path is None:
        return lambda _payload, record_id: f"{outbox_name}-{record_id}"
    get = compile_getter(path)

    def row_id(payload: Any, _record_id: int) -> str:
        found = get(payload)
        if type(found) is int:
            return str(found)
        if found is None or found == "":
            raise Unmappable(Reason.MISSING_FIELD, f"there is no value at {path}")
        if type(found) is not str:
            raise Unmappable(Reason.TYPE_MISMATCH, f"{kind(found)} ({shown(found)}) is neither text nor a whole number")
        return found

    return row_id


def _of_payload(get: Callable[[Any], Any]) -> Field:
    return lambda _captures, payload: get(payload)


def _hole(name: str, captures: frozenset[str], wanted: AttributeType) -> Field:
    if name.startswith("$"):
        return _metadata(name, wanted)
    if name in captures:
        if wanted is AttributeType.OBJECT:
            raise ValueError(f"the topic's level {{{name}}} is text, and the column is object")
        return lambda captured, _payload: from_text(captured[name], wanted)
    steps = path_steps(name)
    if len(steps) == 1:
        (only,) = steps
        return lambda _captures, payload: payload.get(only)
    return _of_payload(compile_path(name))


def _metadata(name: str, wanted: AttributeType) -> Field:
    head, _, rest = name.partition(".")
    if head == ROOT:
        if not rest:
            return lambda captured, _payload: captured[ROOT]
        get = compile_path(rest)
        return lambda captured, _payload: get(captured[ROOT])
    if head == USER and rest:
        steps = path_steps(rest)
        if len(steps) > 1:
            raise ValueError(f'{name}: a user property is one name; one with a dot is written in quotes, $user."a.b"')
        return lambda captured, _payload: (
            None if (text := captured[USER].get(steps[0])) is None else from_text(text, wanted)
        )
    if head not in METADATA or rest or head == USER:
        raise ValueError(
            f"there is no {name}, there are {', '.join(METADATA)}.NAME; a payload's member of that name is written "
            f"'\"{name}\"'"
        )
    if head in _TEXTS and wanted is not AttributeType.STRING:
        raise ValueError(f"{head} is text, and the column is {wanted.value}")
    if head == "$received_at":
        if wanted is AttributeType.STRING:
            return lambda captured, _payload: iso8601(captured[head])
        if wanted is AttributeType.INT:
            raise ValueError(f"{head} is milliseconds since 1970, which don't fit int: make the column long")
        return lambda captured, _payload: captured[head] // 10**6
    return lambda captured, _payload: captured[head]


def _template(value: str, holes: list[re.Match[str]], captures: frozenset[str]) -> Field:
    parts: list[str | Field] = []
    at = 0
    for hole in holes:
        parts += [value[at : hole.start()], _hole(hole[1], captures, AttributeType.STRING)]
        at = hole.end()
    parts.append(value[at:])
    if any(isinstance(part, str) and ("{" in part or "}" in part) for part in parts):
        raise ValueError(f"a brace without its partner in {value!r}")

    def field(captured: Mapping[str, Any], payload: Any) -> str | None:
        texts = []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            found = part(captured, payload)
            if found is None:
                return None
            texts.append(as_text(found))
        return "".join(texts)

    return field


# --- what is made of a value ------------------------------------------------------------------------------


def _with_default(field: Field, default: Scalar | None) -> Field:
    if default is None:
        return field

    def defaulted(captured: Mapping[str, Any], payload: Any) -> Any:
        found = field(captured, payload)
        return default if found is None else found

    return defaulted


def _mapped(field: Field, values: Mapping[str, Scalar]) -> Field:
    def mapped(captured: Mapping[str, Any], payload: Any) -> Any:
        found = field(captured, payload)
        if found is None:
            return None
        text = as_text(found)
        value = values.get(text, values.get("*"))
        if value is None:
            raise Unmappable(Reason.TYPE_MISMATCH, f"{shown(text)} is not in the field's map")
        return value

    return mapped


def _scaled(field: Field, scale: float | None, offset: float | None) -> Field:
    factor = Decimal(1) if scale is None else Decimal(repr(scale))
    summand = Decimal(0) if offset is None else Decimal(repr(offset))

    def scaled(captured: Mapping[str, Any], payload: Any) -> Any:
        found = field(captured, payload)
        if found is None:
            return None
        if type(found) is str:
            found = from_text(found.strip(), AttributeType.DOUBLE)
        if type(found) not in (int, float):
            raise Unmappable(Reason.TYPE_MISMATCH, f"{kind(found)} ({shown(found)}) is no number to scale")
        try:
            # By decimals: 217 times 0.1 is 21.7, not 21.700000000000003.
            number = _DIGITS.add(_DIGITS.multiply(Decimal(repr(found)), factor), summand)
        except InvalidOperation as exc:
            raise Unmappable(Reason.TYPE_MISMATCH, f"{shown(found)} is no number to scale") from exc
        if not number.is_finite() or abs(number) > _LARGEST:
            raise Unmappable(Reason.OUT_OF_RANGE, f"{shown(found)} is too large to scale")
        return int(number) if number == number.to_integral_value() else float(number)

    return scaled


def _time(spec: FieldSpec, captures: frozenset[str], wanted: AttributeType) -> Field:
    format_ = spec.time
    if format_ not in TIME_FORMATS:
        raise ValueError(f"time {format_!r} is none of {', '.join(TIME_FORMATS)}")
    if spec.scale is not None or spec.offset is not None or spec.map is not None:
        raise ValueError("time goes with default only, not with scale, offset or map")
    if wanted not in (AttributeType.LONG, AttributeType.DOUBLE, AttributeType.STRING):
        raise ValueError(f"a point in time fits a long, double or string column, not {wanted.value}")
    field = compile_field(spec.source, captures=captures, wanted=AttributeType.STRING)

    def time(captured: Mapping[str, Any], payload: Any) -> Any:
        found = field(captured, payload)
        if found is None:
            return None
        nanoseconds = parse_time(found, format_)
        return iso8601(nanoseconds) if wanted is AttributeType.STRING else nanoseconds // 10**6

    return time
