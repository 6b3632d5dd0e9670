"""The sections ``[[routes]]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from bridge.config.values import TABLE_TAG, VALUE_TAG, Group, Text, lower
from bridge.mapping.fields import Scalar


class FieldTable(Group):
    """The source of a column's value, and how the value is converted."""

    source: Scalar = Field(description="Source of the value, as in `fields`.")
    scale: float | None = Field(
        default=None, ge=-1e300, le=1e300, description="Factor, applied in decimal arithmetic: 217 with 0.1 is 21.7."
    )
    offset: float | None = Field(default=None, ge=-1e300, le=1e300, description="Added after `scale`.")
    map: dict[str, Scalar] | None = Field(
        default=None,
        min_length=1,
        description="Replaces the value, as text, by another: `{ on = true, off = false }`; `*` matches all others.",
    )
    default: FieldSetting | None = Field(
        default=None,
        description="Used where there is no value: a constant, or a table with another `source` and its conversions.",
    )
    time: Literal["s", "ms", "us", "ns", "iso8601"] | None = Field(
        default=None,
        description="The value is a point in time: a number since 1970 in this unit, or an ISO 8601 string. A long or "
        "double column gets milliseconds since 1970, a string column ISO 8601 in UTC.",
    )
    format: Text | None = Field(
        default=None,
        description="The value is a point in time, as text in this format of `strptime`, such as `%d.%m.%Y %H:%M`.",
    )
    zone: Text | None = Field(
        default=None,
        description="Time zone of texts without offset, such as `Europe/Zurich`. Not set: UTC. Without `dst`, a time "
        "that occurs twice is the first.",
    )
    dst: dict[str, bool] | None = Field(
        default=None,
        min_length=1,
        description="What the end of the text says of daylight saving time: `{ S = true, W = false }`.",
    )
    unset_before: Text | None = Field(
        default=None,
        description="An earlier time is no value, because the device's clock isn't set: `2020-01-01`.",
    )
    registers: (
        Literal["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"] | None
    ) = Field(
        default=None,
        description="The value is a register, or an array of 16-bit registers, that holds a number of this type.",
    )
    byte_order: Text | None = Field(
        default=None, description="Order of the bytes in `registers`, such as `CDAB`. Not set: `ABCD`."
    )
    bit: int | None = Field(default=None, ge=0, le=63, description="The bit of the number; 0 is the least significant.")


FieldSetting = Annotated[
    Annotated[Scalar, Tag(VALUE_TAG)] | Annotated[FieldTable, Tag(TABLE_TAG)],
    Discriminator(lambda value: TABLE_TAG if isinstance(value, dict | FieldTable) else VALUE_TAG),
]

FieldTable.model_rebuild()


class ExampleTable(Group):
    """A message and its expected result."""

    topic: Text = Field(description="Topic of the message.")
    payload: Any = Field(description="A string is the payload itself; anything else is encoded as JSON.")
    encoding: Literal["text", "base64"] = Field(default="text", description="How `payload` is written here.")
    expect: Any = Field(description="The row as a table, a list of rows, or the reason code of a dead letter.")


class RouteSettings(Group):
    """Which messages become rows of which stream. Routes are tried in order."""

    topic: Text = Field(
        max_length=65535,
        description="Topic to subscribe to. `{name}` matches one level and captures it under that name, `+` matches "
        "one level, `#` at the end matches the rest, as in `devices/{deviceID}/rooms/{roomNo}/telemetry`.",
    )
    stream: Text = Field(description="The worker's input stream, by its name in the definition.")
    name: Text | None = Field(default=None, description="A name for people to recognise the route by.")
    match: Annotated[Literal["first", "all"], BeforeValidator(lower)] = Field(
        default="first",
        description="`first`: a message that this route takes is not offered to later routes. `all`: it is.",
    )
    when: Text | None = Field(
        default=None,
        description="JMESPath condition on the object that becomes a row, such as `type == 'reading'`; it may use "
        "metadata and captures (`$retain`, `{room}`). If it isn't true, also because a member is absent, the next "
        "route is tried; a message that no route takes for this reason is counted as dropped, `filtered`.",
    )
    format: Annotated[
        Literal["json", "scalar", "text", "csv", "msgpack", "cbor", "influx", "sparkplug", "raw"],
        BeforeValidator(lower),
    ] = Field(default="json", description="Payload format. docs/mapping.md describes each.")
    compression: Annotated[Literal["none", "gzip", "zlib", "zstd", "auto"], BeforeValidator(lower)] = Field(
        default="none", description="Compression of the payload; `auto` detects it from the first bytes."
    )
    pattern: Text | None = Field(
        default=None, description="Regular expression for the format `text`; its named groups become members."
    )
    delimiter: Text = Field(default=",", description="Cell delimiter of the format `csv`, one character.")
    columns: list[Text] = Field(
        default=[], description="Names of the cells of the format `csv`. Empty: the first line has them."
    )
    each: Text | None = Field(
        default=None,
        description="Path to the objects that become one row each. Not set: the payload, or each object if it is an "
        "array.",
    )
    fields: dict[str, FieldSetting] = Field(
        default={},
        description="How to fill columns that are neither a capture of the topic nor a member of the payload with the "
        "same name: column = path (`sensors.0.temp`), `{capture}`, text with several `{…}`, metadata "
        "(`$topic`), `jmespath:…`, a constant (`=text`), a number or a boolean; or a table with `source` "
        "and conversions (such as `scale`, `map`, `default`, `time`). docs/mapping.md has the details.",
    )
    types: Annotated[Literal["lenient", "strict"], BeforeValidator(lower)] = Field(
        default="lenient",
        description='`lenient`: a value of another type is converted if that loses nothing, such as `"21.5"` for a '
        "double. `strict`: it is not.",
    )
    id: Text | None = Field(
        default=None,
        description="Path to a string or whole number in the payload that identifies a row, for `$id` in `fields`. "
        "Not set: `$id` is the outbox's name and the record's id, which is new for a redelivered message.",
    )
    key: Scalar | None = Field(default=None, description="Pulsar key of the rows, written as in `fields`.")
    properties: dict[str, Scalar] = Field(
        default={}, description="Pulsar properties of the rows, each written as in `fields`."
    )
    event_time: FieldTable | None = Field(
        default=None, description="Pulsar event time of the rows: a table with `source` and `time`."
    )
    test: list[ExampleTable] = Field(
        default=[], description="Examples for `gdn-bridge test`: tables with `topic`, `payload` and `expect`."
    )
