"""Reads and writes the protobuf payload of Sparkplug B, with message classes built at run time.

Field numbers and types are those of the Sparkplug 3.0 specification, 6.4.1. Only fields that are read are declared:
protobuf skips the rest. protobuf comes with the extra `formats` and is imported on first use.
"""

from __future__ import annotations

import functools
from typing import Any

from bridge.mapping.formats.options import load_extra
from bridge.mapping.unmappable import Unmappable
from bridge.reasons import Reason

REBIRTH = "Node Control/Rebirth"
"""The metric that requests a rebirth from an edge node (6.4.19); it never has an alias."""

BOOLEAN = 11
"""The datatype of that metric (6.4.16)."""

_PACKAGE = "org.eclipse.tahu.protobuf"

# Name and type by message and field number; * marks repeated fields.
_FIELDS = {
    "Payload": {1: "timestamp uint64", 2: "metrics Metric*", 3: "seq uint64", 5: "body bytes"},
    "Metric": {
        1: "name string",
        2: "alias uint64",
        3: "timestamp uint64",
        4: "datatype uint32",
        5: "is_historical bool",
        6: "is_transient bool",
        7: "is_null bool",
        9: "properties PropertySet",
    },
    "PropertySet": {1: "keys string*", 2: "values PropertyValue*"},
    "PropertyValue": {},
    "DataSet": {2: "columns string*", 3: "types uint32*", 4: "rows Row*"},
    "Row": {1: "elements DataSetValue*"},
    "DataSetValue": {},
    "Template": {
        1: "version string",
        2: "metrics Metric*",
        3: "parameters Parameter*",
        4: "template_ref string",
        5: "is_definition bool",
    },
    "Parameter": {1: "name string", 2: "type uint32"},
    "Extension": {},
}

# The same for the fields of `oneof value`, in messages that have it.
_PLAIN_VALUES = (
    "int_value uint32",
    "long_value uint64",
    "float_value float",
    "double_value double",
    "boolean_value bool",
    "string_value string",
)
_VALUES = {
    "Metric": dict(
        enumerate(
            (
                *_PLAIN_VALUES,
                "bytes_value bytes",
                "dataset_value DataSet",
                "template_value Template",
                "extension_value Extension",
            ),
            start=10,
        )
    ),
    "PropertyValue": dict(enumerate(_PLAIN_VALUES, start=3)),
    "DataSetValue": dict(enumerate((*_PLAIN_VALUES, "extension_value Extension"), start=1)),
    "Parameter": dict(enumerate((*_PLAIN_VALUES, "extension_value Extension"), start=3)),
}


@functools.cache
def message_class() -> Any:
    """The protobuf message class of a payload.

    Raises:
        MissingExtra: protobuf isn't installed.
    """
    descriptor_pb2 = _module("descriptor_pb2")
    # Edition 2023, not proto2: it has the same wire format and refuses text that isn't UTF-8.
    file = descriptor_pb2.FileDescriptorProto(
        name="sparkplug_b.proto", package=_PACKAGE, syntax="editions", edition=descriptor_pb2.EDITION_2023
    )
    descriptor = descriptor_pb2.FieldDescriptorProto
    scalars = {
        "uint32": descriptor.TYPE_UINT32,
        "uint64": descriptor.TYPE_UINT64,
        "float": descriptor.TYPE_FLOAT,
        "double": descriptor.TYPE_DOUBLE,
        "bool": descriptor.TYPE_BOOL,
        "string": descriptor.TYPE_STRING,
        "bytes": descriptor.TYPE_BYTES,
    }

    def add(message: Any, number: int, declared: str, oneof: int | None = None) -> None:
        name, type_ = declared.split()
        field = message.field.add(name=name, number=number)
        field.label = descriptor.LABEL_REPEATED if type_.endswith("*") else descriptor.LABEL_OPTIONAL
        type_ = type_.rstrip("*")
        field.type = scalars.get(type_, descriptor.TYPE_MESSAGE)
        if type_ not in scalars:
            field.type_name = f".{_PACKAGE}.{type_}"
        if oneof is not None:
            field.oneof_index = oneof

    for title, fields in _FIELDS.items():
        message = file.message_type.add(name=title)
        for number, declared in fields.items():
            add(message, number, declared)
        if title in _VALUES:
            message.oneof_decl.add(name="value")
            for number, declared in _VALUES[title].items():
                add(message, number, declared, oneof=0)
    # Not the default pool: another library in the process may have registered the same names there.
    pool = _module("descriptor_pool").DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return _module("message_factory").GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))


def _module(name: str) -> Any:
    return load_extra(f"google.protobuf.{name}", 'the format "sparkplug"')


@functools.cache
def _decode_error() -> type[Exception]:
    error: type[Exception] = _module("message").DecodeError
    return error


def parse(payload: bytes) -> Any:
    """Parse a payload.

    Raises:
        Unmappable: it isn't a Sparkplug payload.
    """
    try:
        return message_class().FromString(payload)
    except _decode_error() as exc:
        raise Unmappable(Reason.UNDECODABLE, f"the payload is not Sparkplug B protobuf: {exc}") from exc


def rebirth_command(time_ms: int) -> bytes:
    """The payload of the NCMD that requests a rebirth from an edge node (6.4.23: a timestamp, no seq).

    ``time_ms`` is milliseconds since the epoch.
    """
    payload = message_class()(timestamp=time_ms)
    payload.metrics.add(name=REBIRTH, timestamp=time_ms, datatype=BOOLEAN, boolean_value=True)
    encoded: bytes = payload.SerializeToString()
    return encoded
