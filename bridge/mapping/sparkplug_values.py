"""Converts values of Sparkplug metrics to JSON-like ones by their datatypes (Sparkplug 3.0, 6.4.17)."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable
from typing import Any

from bridge.mapping.unmappable import Unmappable, preview
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
"""Names of datatypes by number."""

MAX_VALUES = 100_000
"""Array elements, dataset cells and template members of one message: a single bit of payload can become a hundred bytes
in memory."""

MAX_DEPTH = 16
"""Levels of nested templates."""

_BITS = {"Int8": 8, "Int16": 16, "Int32": 32, "Int64": 64, "UInt8": 8, "UInt16": 16, "UInt32": 32, "UInt64": 64}

# The field of `oneof value` by datatype; whole numbers are in either of two fields.
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

# Formats of `struct`, used as little endian: by the text of 6.4.17 (its float examples differ) and as devices send.
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

_DATATYPE_OF_FIELD = {"float_value": 9, "double_value": 10, "boolean_value": 11, "string_value": 12}


def datatype_of(metric: Any) -> int:
    """The datatype that a metric gives, or that follows from its value's field; 0: neither."""
    return metric.datatype or _DATATYPE_OF_FIELD.get(metric.WhichOneof("value"), 0)


def quality_of(metric: Any) -> int | None:
    """The metric's quality (6.4.9: 0 bad, 192 good, 500 stale); None if not given, which means good."""
    if metric.HasField("properties"):
        for key, value in zip(metric.properties.keys, metric.properties.values, strict=False):
            if key == "Quality" and value.WhichOneof("value") in _WHOLE_FIELDS:
                quality: int = getattr(value, value.WhichOneof("value"))
                return quality
    return None


class ValueReader:
    """Reads the values of one message and enforces the bounds per message."""

    def __init__(self) -> None:
        self._room = MAX_VALUES

    def read(self, metric: Any, datatype: int, *, depth: int = 0) -> Any:
        """The metric's value: None for null, base64 for bytes, an array of row objects for a dataset.

        Raises:
            Unmappable: it doesn't have the datatype, or it is too large.
        """
        oneof = metric.WhichOneof("value")
        if oneof is None or metric.is_null:
            return None
        name = DATATYPES.get(datatype)
        raw = getattr(metric, oneof)
        if name in _ARRAYS or name in ("BooleanArray", "StringArray"):
            if oneof != "bytes_value":
                raise _mismatch(oneof, name)
            return self._array(raw, name)
        plain = _plain(raw, oneof, name)
        if name in ("Bytes", "File"):
            return base64.b64encode(plain).decode()
        if name == "DataSet":
            return self._dataset(plain)
        if name == "Template":
            return self._template(plain, depth + 1)
        return plain

    def _count(self, count: int) -> None:
        self._room -= count
        if self._room < 0:
            raise Unmappable(
                Reason.TOO_LARGE, f"arrays, datasets and templates have more than {MAX_VALUES} values in total"
            )

    def _array(self, packed: bytes, name: str) -> list[Any]:
        if name == "BooleanArray":
            return self._booleans(packed)
        if name == "StringArray":
            return self._strings(packed)
        size = struct.calcsize(f"<{_ARRAYS[name]}")
        if len(packed) % size:
            raise Unmappable(Reason.UNDECODABLE, f"{len(packed)} bytes are not {name}: each element has {size}")
        self._count(len(packed) // size)
        return list(struct.unpack(f"<{len(packed) // size}{_ARRAYS[name]}", packed))

    def _booleans(self, packed: bytes) -> list[bool]:
        """A count of four bytes, then a bit for each element, the highest of a byte first."""
        count = int.from_bytes(packed[:4], "little")
        if len(packed) < 4 or len(packed) - 4 != (count + 7) // 8:
            raise Unmappable(Reason.UNDECODABLE, f"{len(packed)} bytes are not a BooleanArray of {count} elements")
        self._count(count)
        return [bool(packed[4 + i // 8] & 0x80 >> i % 8) for i in range(count)]

    def _strings(self, packed: bytes) -> list[str]:
        """Text elements, each ended by a zero byte."""
        if packed and not packed.endswith(b"\0"):
            raise Unmappable(Reason.UNDECODABLE, "the last element of a StringArray doesn't end with a zero byte")
        self._count(packed.count(b"\0"))
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
        self._count(len(dataset.rows) * (len(columns) + 1))
        type_names = [DATATYPES.get(datatype) for datatype in types]
        rows = []
        for row in dataset.rows:
            if len(row.elements) != len(columns):
                raise Unmappable(
                    Reason.UNDECODABLE, f"a dataset with {len(columns)} columns has a row of {len(row.elements)}"
                )
            cells = (_cell(element, name) for element, name in zip(row.elements, type_names, strict=True))
            rows.append(dict(zip(columns, cells, strict=True)))
        return rows

    def _template(self, template: Any, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise Unmappable(Reason.TOO_LARGE, f"templates nest deeper than {MAX_DEPTH} levels")
        self._count(len(template.metrics) + len(template.parameters))
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
    """The value of a dataset element or template parameter; None if it has none."""
    oneof = holder.WhichOneof("value")
    return None if oneof is None else _plain(getattr(holder, oneof), oneof, name)


def _by_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if not name or name in found:
            problem = f"two members named {preview(name)}" if name else "a member without a name"
            raise Unmappable(Reason.UNDECODABLE, f"a template has {problem}")
        found[name] = value
    return found


def _plain(raw: Any, oneof: str, name: str | None) -> Any:
    """The content of the field ``oneof`` as a value of the datatype ``name``."""
    if name in _BITS:
        if oneof not in _WHOLE_FIELDS:
            raise _mismatch(oneof, name)
        return _whole(raw, name)
    if name == "DateTime" and oneof in _WHOLE_FIELDS:
        return raw
    if name is None or _FIELD.get(name) != oneof:
        raise _mismatch(oneof, name)
    return None if isinstance(raw, float) and not math.isfinite(raw) else raw


def _whole(raw: int, name: str) -> int:
    """A whole number from an unsigned field.

    Signed numbers are in two's complement of their own width, of 32 or of 64 bits: encoders differ.
    """
    bits = _BITS[name]
    if name.startswith("U"):
        if raw < 1 << bits:
            return raw
    else:
        # The narrowest width whose number is in range.
        for width in (bits, 32, 64):
            number = raw - (1 << width) if raw >> (width - 1) else raw
            if raw < 1 << width and -(1 << (bits - 1)) <= number < 1 << (bits - 1):
                return number
    raise Unmappable(Reason.UNDECODABLE, f"{raw} is out of range for {name}")


def _mismatch(oneof: str, name: str | None) -> Unmappable:
    problem = f"can't hold a value of datatype {name}" if name else "has a value of unknown datatype"
    return Unmappable(Reason.UNDECODABLE, f"a metric's {oneof} {problem}")
