"""The sections ``[[routes]]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from bridge.config.values import TABLE_TAG, VALUE_TAG, Group, Text, TomlScalar, lower


class FieldTable(Group):
    """A column's source, and what is made of its value."""

    source: TomlScalar = Field(description="Where the value comes from, as in `fields`.")
    scale: float | None = Field(
        default=None, ge=-1e300, le=1e300, description="Factor, by decimals: 217 by 0.1 is 21.7."
    )
    offset: float | None = Field(default=None, ge=-1e300, le=1e300, description="Summand, after `scale`.")
    map: dict[str, TomlScalar] | None = Field(
        default=None, min_length=1, description="Value as text to value: `{ on = true, off = false }`; `*` for others."
    )
    default: TomlScalar | None = Field(default=None, description="Where there is no value.")
    time: Literal["s", "ms", "us", "ns", "iso8601"] | None = Field(
        default=None,
        description="The value is a point in time: a number since 1970 in this unit, or a text by ISO 8601. A long or "
        "double column gets milliseconds since 1970, a string column ISO 8601 in UTC.",
    )


FieldSetting = Annotated[
    Annotated[TomlScalar, Tag(VALUE_TAG)] | Annotated[FieldTable, Tag(TABLE_TAG)],
    Discriminator(lambda value: TABLE_TAG if isinstance(value, dict | FieldTable) else VALUE_TAG),
]


class ExampleTable(Group):
    """A message, and what must become of it."""

    topic: Text = Field(description="The topic it comes on.")
    payload: Any = Field(description="A text is the payload as it is; anything else is written as JSON.")
    encoding: Literal["text", "base64"] = Field(default="text", description="How the payload is written here.")
    expect: Any = Field(description="The row as a table, a list of such, or the reason code of a dead letter.")


class RouteSettings(Group):
    """Which messages become rows of which stream. Routes are tried in their order."""

    topic: Text = Field(
        max_length=65535,
        description="Topic to subscribe. `{name}` takes one level and gives it a name, `+` takes one, `#` at "
        "the end takes the rest, as in `devices/{deviceID}/rooms/{roomNo}/telemetry`.",
    )
    stream: Text = Field(description="The worker's input stream, by its name in the definition.")
    name: Text | None = Field(default=None, description="A name for people, to find the route by.")
    match: Annotated[Literal["first", "all"], BeforeValidator(lower)] = Field(
        default="first",
        description="`first`: a message that this route takes goes to no later route. `all`: later routes get it "
        "as well.",
    )
    when: Text | None = Field(
        default=None,
        description="Condition in JMESPath on what becomes a row, as `temperature > `-40``. Where it isn't true the "
        "next route is tried; what no route takes for that is counted as dropped, `filtered`.",
    )
    format: Annotated[
        Literal["json", "scalar", "text", "csv", "msgpack", "cbor", "influx", "sparkplug", "raw"],
        BeforeValidator(lower),
    ] = Field(default="json", description="What payloads are written in. docs/mapping.md says what each gives.")
    compression: Annotated[Literal["none", "gzip", "zlib", "zstd", "auto"], BeforeValidator(lower)] = Field(
        default="none", description="What is around the format; `auto` looks at the first bytes."
    )
    pattern: Text | None = Field(
        default=None, description="Regular expression for the format `text`; its named groups are the members."
    )
    delimiter: Text = Field(default=",", description="Between the cells of the format `csv`, one character.")
    columns: list[Text] = Field(
        default=[], description="Names of the cells of the format `csv`. Empty: the first line names them."
    )
    each: Text | None = Field(
        default=None, description="Path to what becomes a row each. Not set: the payload, or each object of its array."
    )
    fields: dict[str, FieldSetting] = Field(
        default={},
        description="Where columns come from that are neither a capture of the topic nor a member of the "
        "payload by their own name: column = path (`sensors.0.temp`), `{capture}`, text with several `{…}`, metadata "
        "(`$topic`), `jmespath:…`, a constant (`=text`), a number or a boolean; or a table with `source` and what is "
        "made of it (`scale`, `offset`, `map`, `default`, `time`). docs/mapping.md has the whole of it.",
    )
    types: Annotated[Literal["lenient", "strict"], BeforeValidator(lower)] = Field(
        default="lenient",
        description='Whether a value may be written as another type that spells the same, as `"21.5"` for a double.',
    )
    id: Text | None = Field(
        default=None,
        description="Path to what identifies a row in the payload, text or a whole number, for `$id` in "
        "`fields`. Not set: `$id` is the row's number in the outbox, which a message that comes again doesn't keep.",
    )
    key: TomlScalar | None = Field(default=None, description="Pulsar key of the rows, as in `fields`.")
    properties: dict[str, TomlScalar] = Field(
        default={}, description="Pulsar properties of the rows, each as in `fields`."
    )
    event_time: FieldTable | None = Field(
        default=None, description="Pulsar event time of the rows: a table with `source` and `time`."
    )
    test: list[ExampleTable] = Field(
        default=[], description="Examples for `gdn-bridge test`: tables with `topic`, `payload` and `expect`."
    )
