"""The sections ``[[routes]]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from bridge.config.values import TABLE_TAG, VALUE_TAG, Group, Text, duration, lower
from bridge.mapping.fields import Scalar

Otherwise = Annotated[Literal["next", "dead_letter"], BeforeValidator(lower)]


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
    default: Scalar | None = Field(default=None, description="Used where there is no value.")
    time: Literal["s", "ms", "us", "ns", "iso8601"] | None = Field(
        default=None,
        description="The value is a point in time: a number since 1970 in this unit, or an ISO 8601 string. A long or "
        "double column gets milliseconds since 1970, a string column ISO 8601 in UTC.",
    )


FieldSetting = Annotated[
    Annotated[Scalar, Tag(VALUE_TAG)] | Annotated[FieldTable, Tag(TABLE_TAG)],
    Discriminator(lambda value: TABLE_TAG if isinstance(value, dict | FieldTable) else VALUE_TAG),
]


_Difference = Annotated[float, Field(ge=0)]

Change = Annotated[_Difference, Tag(VALUE_TAG)] | Annotated[dict[str, _Difference], Tag(TABLE_TAG)]


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
        description="`first`: what this route takes of a message is not offered to later routes. `all`: it is.",
    )
    when: Text | None = Field(
        default=None,
        description="JMESPath condition on the object that becomes a row, such as `type == 'reading'`. What it isn't "
        "true for goes on to the next route, of an array each element by itself; what no route takes is counted as "
        "dropped, `filtered`.",
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
        "array. A step `*` is every member of an object, `$key` in `fields` its name.",
    )
    on_empty: Otherwise = Field(
        default="next",
        description="What becomes of an empty payload, as when a retained message is cleared, and of an empty array or "
        "object at `each`. `next`: the next route is tried; if none takes it, it is counted as dropped, `filtered`. "
        "`dead_letter`: it is kept.",
    )
    on_absent: Otherwise = Field(
        default="dead_letter",
        description="The same for a payload without a value at `each`.",
    )
    on_unreadable: Otherwise = Field(
        default="dead_letter",
        description="The same for a payload that isn't in this format, or is neither an object nor an array of "
        "objects, except that one that no route can read is a dead letter in any case.",
    )
    fields: dict[str, FieldSetting] = Field(
        default={},
        description="How to fill columns that are neither a capture of the topic nor a member of the payload with the "
        "same name: column = path (`sensors.0.temp`), `{capture}`, text with several `{…}`, metadata "
        "(`$topic`), `jmespath:…`, a constant (`=text`), a number or a boolean; or a table with `source` "
        "and conversions (`scale`, `offset`, `map`, `default`, `time`). docs/mapping.md has the details.",
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
    every: Annotated[float | None, BeforeValidator(duration)] = Field(
        default=None,
        ge=0.001,
        le=86400,
        description="Report by exception: within this time after a device's last row, in seconds or as `10s`, `5m`, "
        "its next rows are held back while their values don't change. What is held back is counted as dropped, "
        "`unchanged`. Not set: every row is sent.",
    )
    change: Annotated[Change, Discriminator(lambda value: TABLE_TAG if isinstance(value, dict) else VALUE_TAG)] = Field(
        default=0.0,
        description="With `every`: numbers that differ from the last row's by no more than this count as unchanged. As "
        "a table, for each column; other columns then aren't compared.",
    )
    device: Text | None = Field(
        default=None,
        description="With `every`: source of the device's name, as in `fields`. Not set: the topic, and `$key`.",
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
