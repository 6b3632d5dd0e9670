"""The sections ``[[routes]]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from bridge.config.values import TABLE_TAG, VALUE_TAG, Group, Text, duration, lower
from bridge.mapping.fields import Scalar

Otherwise = Annotated[Literal["next", "dead_letter"], BeforeValidator(lower)]


def _tab(value: object) -> object:
    """``tab`` means a tab character."""
    return "\t" if value == "tab" else value


_ENCODINGS = {
    "latin1": "latin-1",
    "iso-8859-1": "latin-1",
    "windows-1252": "cp1252",
    "utf8": "utf-8",
    "utf16": "utf-16",
}


def _encoding(value: object) -> object:
    """``Latin1``, ``ISO-8859-1`` and the like by the names that the setting has."""
    return _ENCODINGS.get(value.lower(), value.lower()) if isinstance(value, str) else value


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
        description="JMESPath condition on the object that becomes a row, such as `type == 'reading'`; it may use "
        "metadata and captures (`$retain`, `{room}`). What it isn't true for, also because a member is absent, goes on "
        "to the next route, of an array each element by itself; what no route takes is counted as dropped, `filtered`.",
    )
    format: Annotated[
        Literal["json", "jsonl", "scalar", "text", "csv", "msgpack", "cbor", "influx", "sparkplug", "raw"],
        BeforeValidator(lower),
    ] = Field(default="json", description="Payload format. docs/mapping.md describes each.")
    compression: Annotated[Literal["none", "gzip", "zlib", "zstd", "auto"], BeforeValidator(lower)] = Field(
        default="none", description="Compression of the payload; `auto` detects it from the first bytes."
    )
    pattern: Text | None = Field(
        default=None, description="Regular expression for the format `text`; its named groups become members."
    )
    delimiter: Annotated[str, BeforeValidator(_tab)] = Field(
        default=",", description="Cell delimiter of the format `csv`: one character, or `tab`."
    )
    columns: list[Text] = Field(
        default=[], description="Names of the cells of the format `csv`. Empty: the first line has them."
    )
    encoding: Annotated[
        Literal["utf-8", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be"], BeforeValidator(_encoding)
    ] = Field(default="utf-8", description="Character encoding of the payload, in formats that are text.")
    nan: Annotated[Literal["refuse", "null"], BeforeValidator(lower)] = Field(
        default="refuse",
        description="What `NaN`, `nan`, `Infinity`, `inf` and the like are in JSON: refused, because JSON has no such "
        "values, or read as null.",
    )
    decimal: Literal[".", ","] = Field(
        default=".",
        description='Decimal separator of numbers in texts. With `","`, `"1.234,5"` in a number column is 1234.5.',
    )
    null_values: list[str] = Field(
        default=[],
        description='Texts that mean no value, such as `["", "N/A", "unavailable", "nan"]`, without the white space '
        "around them. They become null wherever they are in the payload, also for string columns.",
    )
    embedded_json: list[Text] = Field(
        default=[],
        description="Paths to texts in the payload that are JSON themselves; each is replaced by its value. `$root` is "
        "the whole payload.",
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
