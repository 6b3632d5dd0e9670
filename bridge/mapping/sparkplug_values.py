"""Values of Sparkplug metrics to JSON-like ones, by their datatypes (Sparkplug 3.0, 6.4.17)."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable
from typing import Any

from bridge.mapping.unmappable import Unmappable, shown
from bridge.reasons import Reason

DATATYPES = dict(
    enumerate(
        (
            *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float", "Double", "Boolean"),
            *("String", "DateTime", "Text", "UUID", "DataSet", "Bytes", "File", "Template"),
            *("PropertySet", "PropertySetList", "Int8Array", "Int16Array", "Int32Array", "Int64Array", "UInt8Array"),
            *("UInt16Array", "UInt32Array", "UInt64Array", "FloatArray", "DoubleArray", "BooleanArray"),
            *("StringArray", "DateTimeArray"),
        ),
        start=1,
    )
)
"""Names by number."""

MAX_VALUES = 100_000
"""Array elements, dataset cells and template members of one message: some take a bit of the payload and a hundred bytes
of memory."""

MAX_DEPTH = 16
"""Templates within templates."""

_BITS = {"Int8": 8, "Int16": 16, "Int32": 32, "Int64": 64, "UInt8": 8, "UInt16": 16, "UInt32": 32, "UInt64": 64}

# Where a value stands, by datatype; whole numbers stand in either of the two fields for them.
_FIELD = {
    "Float": "float_value",
    "Double": "double_value",
    "Boolean": "boolean_value",
    "String": "string_value",
    "Text": "string_value",
    "UUID": "string_value",
    "Bytes": "bytes_value",
    "File": "bytes_value",
    "DataSet": "dataset_value",
    "Template": "template_value",
}
_WHOLE_FIELDS = ("int_value", "long_value")

# Formats of `struct`. Little endian: so says the text of 6.4.17, against its own examples of floats, and so it is sent.
_ARRAYS = {
    "Int8Array": "b",
    "Int16Array": "h",
    "Int32Array": "i",
    "Int64Array": "q",
    "UInt8Array": "B",
    "UInt16Array": "H",
    "UInt32Array": "I",
    "UInt64Array": "Q",
    "FloatArray": "f",
    "DoubleArray": "d",
    "DateTimeArray": "Q",
}

_TOLD_BY_FIELD = {"float_value": 9, "double_value": 10, "boolean_value": 11, "string_value": 12}


def datatype_of(metric: Any) -> int:
    """The datatype that a metric names, or that its value's field leaves no doubt of; 0: neither."""
    return metric.datatype or _TOLD_BY_FIELD.get(metric.WhichOneof("value"), 0)


def quality_of(metric: Any) -> int | None:
    """The metric's quality (6.4.9: 0 bad, 192 good, 500 stale); None where it says none, which counts as good."""
    if metric.HasField("properties"):
        for key, value in zip(metric.properties.keys, metric.properties.values, strict=False):
            if key == "Quality" and value.WhichOneof("value") in _WHOLE_FIELDS:
                quality: int = getattr(value, value.WhichOneof("value"))
                return quality
    return None


class Values:
    """Reads the values of one message, within the message's bounds."""

    def __init__(self) -> None:
        self._room = MAX_VALUES

    def read(self, metric: Any, datatype: int, *, depth: int = 0) -> Any:
        """The metric's value: None for null, base64 for bytes, an array of row objects for a dataset.

        Raises:
            Unmappable: it isn't of the datatype, or it is too large.
        """
        kind = metric.WhichOneof("value")
        if kind is None or metric.is_null:
            return None
        name = DATATYPES.get(datatype)
        given = getattr(metric, kind)
        if name in _ARRAYS or name in ("BooleanArray", "StringArray"):
            if kind != "bytes_value":
                raise _mismatch(kind, name)
            return self._array(given, name)
        plain = _plain(given, kind, name)
        if name in ("Bytes", "File"):
            return base64.b64encode(plain).decode()
        if name == "DataSet":
            return self._dataset(plain)
        if name == "Template":
            return self._template(plain, depth + 1)
        return plain

    def _take(self, count: int) -> None:
        self._room -= count
        if self._room < 0:
            raise Unmappable(
                Reason.TOO_LARGE, f"the arrays, datasets and templates have over {MAX_VALUES} values together"
            )

    def _array(self, packed: bytes, name: str) -> list[Any]:
        if name == "BooleanArray":
            return self._booleans(packed)
        if name == "StringArray":
            return self._strings(packed)
        size = struct.calcsize(f"<{_ARRAYS[name]}")
        if len(packed) % size:
            raise Unmappable(Reason.UNDECODABLE, f"{len(packed)} bytes are no {name}: each element has {size}")
        self._take(len(packed) // size)
        return list(struct.unpack(f"<{len(packed) // size}{_ARRAYS[name]}", packed))

    def _booleans(self, packed: bytes) -> list[bool]:
        """From four bytes of count, then a bit each, the highest of a byte first."""
        count = int.from_bytes(packed[:4], "little")
        if len(packed) < 4 or len(packed) - 4 != (count + 7) // 8:
            raise Unmappable(Reason.UNDECODABLE, f"{len(packed)} bytes are no BooleanArray of {count} elements")
        self._take(count)
        return [bool(packed[4 + i // 8] & 0x80 >> i % 8) for i in range(count)]

    def _strings(self, packed: bytes) -> list[str]:
        """Each ends with a zero byte."""
        if packed and not packed.endswith(b"\0"):
            raise Unmappable(Reason.UNDECODABLE, "the last element of a StringArray doesn't end with a zero byte")
        self._take(packed.count(b"\0"))
        try:
            return packed.decode().split("\0")[:-1]
        except UnicodeDecodeError as exc:
            raise Unmappable(Reason.UNDECODABLE, "a StringArray isn't UTF-8") from exc

    def _dataset(self, dataset: Any) -> list[dict[str, Any]]:
        columns, types = list(dataset.columns), list(dataset.types)
        if len(columns) != len(types):
            raise Unmappable(Reason.UNDECODABLE, f"a dataset has {len(columns)} columns and {len(types)} types")
        if len(set(columns)) != len(columns):
            raise Unmappable(Reason.UNDECODABLE, "two columns of a dataset have the same name")
        self._take(len(dataset.rows) * (len(columns) + 1))
        kinds = [DATATYPES.get(datatype) for datatype in types]
        rows = []
        for row in dataset.rows:
            if len(row.elements) != len(columns):
                raise Unmappable(
                    Reason.UNDECODABLE, f"a dataset of {len(columns)} columns has a row of {len(row.elements)}"
                )
            cells = (_cell(element, name) for element, name in zip(row.elements, kinds, strict=True))
            rows.append(dict(zip(columns, cells, strict=True)))
        return rows

    def _template(self, template: Any, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise Unmappable(Reason.TOO_LARGE, f"templates stand over {MAX_DEPTH} deep in each other")
        self._take(len(template.metrics) + len(template.parameters))
        members = ((m.name, self.read(m, datatype_of(m), depth=depth)) for m in template.metrics)
        parameters = ((p.name, _cell(p, DATATYPES.get(p.type))) for p in template.parameters)
        return {
            "template": template.template_ref if template.HasField("template_ref") else None,
            "version": template.version if template.HasField("version") else None,
            "definition": template.is_definition,
            "metrics": _by_name(members),
            "parameters": _by_name(parameters),
        }


def _cell(holder: Any, name: str | None) -> Any:
    """The value of a dataset's element or a template's parameter; None if it has none."""
    kind = holder.WhichOneof("value")
    return None if kind is None else _plain(getattr(holder, kind), kind, name)


def _by_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if not name or name in found:
            raise Unmappable(Reason.UNDECODABLE, f"a template's member {shown(name)} has no name or stands twice")
        found[name] = value
    return found


def _plain(given: Any, kind: str, name: str | None) -> Any:
    """What stands in the field ``kind``, as the datatype ``name`` has it."""
    if name in _BITS:
        if kind not in _WHOLE_FIELDS:
            raise _mismatch(kind, name)
        return _whole(given, name)
    if name == "DateTime" and kind in _WHOLE_FIELDS:
        return given
    if name is None or _FIELD.get(name) != kind:
        raise _mismatch(kind, name)
    return None if isinstance(given, float) and not math.isfinite(given) else given


def _whole(given: int, name: str) -> int:
    """A whole number from an unsigned field.

    Signed ones are there in two's complement of their own width, of 32 or of 64 bits: encoders differ.
    """
    bits = _BITS[name]
    if name.startswith("U"):
        if given < 1 << bits:
            return given
    else:
        for width in (bits, 32, 64):
            number = given - (1 << width) if given >> (width - 1) else given
            if given < 1 << width and -(1 << (bits - 1)) <= number < 1 << (bits - 1):
                return number
    raise Unmappable(Reason.UNDECODABLE, f"{given} is no {name}")


def _mismatch(kind: str, name: str | None) -> Unmappable:
    return Unmappable(Reason.UNDECODABLE, f"a metric's {kind} holds no {name or 'value: its datatype is not known'}")
