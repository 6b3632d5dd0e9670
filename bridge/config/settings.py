"""The settings: every group and every setting with its default, its bounds and what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bridge.config.values import (
    KEY,
    TABLE_TAG,
    VALUE_TAG,
    Scalar,
    Text,
    checked_file,
    listen_endpoint,
    lower,
    mqtt_endpoint,
    number_as_text,
)
from bridge.gdn.address import GdnAddress


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class Mqtt(_Group):
    """The broker that devices publish to."""

    url: str = Field(
        description="The broker: `mqtt://host[:port]` (port 1883) or `mqtts://host[:port]` (TLS, port 8883). "
        "Without user and password: those have settings of their own."
    )
    username: Text | None = Field(default=None, description="User name for the broker. Not set: log in without.")
    password: SecretStr | None = Field(default=None, description="Password for `username`.")
    client_id: Text = Field(
        default="gdn-bridge",
        max_length=65535,
        description="Name of the session at the broker. Keep it: under another name the bridge gets none of "
        "what the broker kept. Two bridges with the same name throw each other out.",
    )
    protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(number_as_text)] = Field(
        default="5", description="MQTT version. 3.1.1 only for a broker that doesn't speak 5."
    )
    keepalive: int = Field(
        default=30,
        ge=5,
        le=65535,
        description="Seconds between signs of life. A link that died without a word is noticed after at most "
        "one and a half of them.",
    )
    session_expiry: int = Field(
        default=604800,
        ge=60,
        le=4294967295,
        description="Seconds that the broker keeps the session, and messages for it, while the bridge is "
        "away (MQTT 5; the broker may allow less). An outage that lasts longer loses what was "
        "published in it. 4294967295: for ever. With 3.1.1 the broker alone decides.",
    )
    receive_maximum: int = Field(
        default=1000,
        ge=1,
        le=65535,
        description="Messages that the broker may have under way to the bridge, unacknowledged (MQTT 5). At "
        "the bound it waits for acknowledgements; a small one slows a broker that is far away.",
    )
    silence_timeout: float = Field(
        default=300,
        ge=0,
        le=86400,
        description="Seconds without any message after which the bridge asks the broker for its subscriptions "
        "again, and makes a new connection if no answer comes: a link that lives and says nothing may have lost "
        "them. Give more than the longest silence that is normal. 0: never.",
    )
    rebirth_requests: bool = Field(
        default=True,
        description="Whether Sparkplug nodes are asked for their births where those are unknown: an NCMD is "
        "published at QoS 0, which the broker must allow. Switch it off where another host does it.",
    )
    watch_drops: bool = Field(
        default=True,
        description="Whether to read `$SYS/broker/publish/messages/dropped`, where Mosquitto tells how many "
        "messages it dropped, for the metrics. A broker that has no such topic or refuses it is left in peace.",
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file with the authorities that may vouch for the broker, with `mqtts://`. Not set: "
        "the system's.",
    )
    cert_file: Path | None = Field(
        default=None, description="PEM file with the bridge's own certificate, for brokers that ask for one."
    )
    key_file: Path | None = Field(
        default=None,
        validate_default=True,
        description="PEM file with the key of `cert_file`, without passphrase.",
    )
    connect_timeout: float = Field(
        default=10,
        ge=1,
        le=300,
        description="Seconds that a connection attempt may take, TLS included. After them it is given up and "
        "made again later.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        mqtt_endpoint(url)
        return url

    @field_validator("password")
    @classmethod
    def _check_password(cls, password: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if password is not None and info.data.get("username", "") is None:
            raise ValueError("is set, but mqtt.username isn't; a broker takes a password only with a user name")
        return password

    @field_validator("ca_file", "cert_file", "key_file")
    @classmethod
    def _check_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        url = info.data.get("url")
        if path is not None and url is not None and not mqtt_endpoint(url)[0]:
            raise ValueError("is for TLS, but mqtt.url starts with mqtt://; write mqtts:// or take this out")
        if info.field_name == "key_file" and "cert_file" in info.data:
            if path is None and info.data["cert_file"] is not None:
                raise ValueError("is required with mqtt.cert_file")
            if path is not None and info.data["cert_file"] is None:
                raise ValueError("is set, but mqtt.cert_file isn't; a key is of no use without its certificate")
        return checked_file(path)

    @property
    def tls(self) -> bool:
        """Whether the URL asks for TLS."""
        return mqtt_endpoint(self.url)[0]

    @property
    def host(self) -> str:
        """The broker's name or address; an IPv6 address without brackets."""
        return mqtt_endpoint(self.url)[1]

    @property
    def port(self) -> int:
        """The broker's port, the scheme's own if the URL names none."""
        return mqtt_endpoint(self.url)[2]


class Gdn(_Group):
    """The GDN account that rows go to."""

    kind: Annotated[Literal["gdn", "pulsar"], BeforeValidator(lower)] = Field(
        default="gdn",
        description="`pulsar`: a plain Apache Pulsar with its WebSocket service, instead of a GDN. Rows go to the "
        "topic of the stream's name; there is no worker to keep and none to ask.",
    )
    url: str = Field(
        description="The federation or region: `https://host` or just the host, with or without `api-` "
        "before it. `http://` only for a GDN on this machine: the API key goes over it readable. With "
        '`gdn.kind = "pulsar"`: where its web service listens, such as `http://pulsar:8080`.'
    )
    email: Text | None = Field(
        default=None, description="E-mail address of an account that logs in with `password`, in place of an API key."
    )
    username: Text | None = Field(
        default=None,
        description="User name, in place of `email`; it needs `tenant`. Limited users log in this way.",
    )
    password: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="Password for `email` or `username`. GDN gives a token for 12 hours for it, which is renewed in "
        "time. An API key is better for a daemon: it can be limited and taken back alone.",
    )
    api_key: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="The API key, bare, as GDN showed it. It needs the right to administrate the fabric (to "
        "keep the worker) and to write the streams. Keep it out of the TOML file: use a secret "
        'file. With `gdn.kind = "pulsar"`: the token, if Pulsar asks for one.',
    )
    tenant: Text | None = Field(
        default=None,
        validate_default=True,
        description="The tenant's name, as GDN's account page shows it; not the e-mail address of the account. Not "
        "set: GDN is asked for it, one more request for each connection. Required with `username` and with "
        '`gdn.kind = "pulsar"`.',
    )
    fabric: Text = Field(
        default="_system",
        description='The fabric that holds worker, streams and collections. With `gdn.kind = "pulsar"`: the namespace.',
    )
    authentication: Literal["otp", "header"] = Field(
        default="otp",
        description="How a producer logs in. `otp`: with a one-time password, one more request for each "
        "connection. `header`: with the API key in the header of the WebSocket request.",
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file with the authorities that may vouch for GDN. Not set: the usual public ones.",
    )
    request_timeout: float = Field(
        default=30,
        ge=1,
        le=600,
        description="Seconds that a request may take. Activating a worker takes GDN 3 seconds and more; "
        "after the time a request counts as failed and is made again later.",
    )
    requests_per_minute: int = Field(
        default=400,
        ge=0,
        le=1_000_000,
        description="Requests that the bridge makes in any minute at most; beyond it, it waits. At least 10, or 0: no "
        "limit. GDN's free tier allows an account 500 a minute. Health checks take half of them at most, so that they "
        "can't keep a link from being made anew.",
    )
    requests_per_day: int = Field(
        default=18_000,
        ge=0,
        le=100_000_000,
        description="Requests that the bridge makes in any 24 hours at most; beyond it, it waits. At least 100, or 0: "
        "no limit. GDN's free tier allows an account 20,000 a day. Counted from the start of the bridge; health checks "
        "as above.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            GdnAddress.parse(url)
        except ValueError:  # its text repeats the host, which may be a secret here
            raise ValueError(
                "must be https://host or host, without user, path or query, as in https://api-play.paas.macrometa.io"
            ) from None
        return url

    @field_validator("password")
    @classmethod
    def _check_password(cls, password: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        names = [name for name in ("email", "username") if info.data.get(name) is not None]
        if password is None and names:
            raise ValueError(f"is required with gdn.{names[0]}")
        if password is not None:
            if info.data.get("kind") == "pulsar":
                raise ValueError("is for a GDN: a plain Pulsar takes a token, as gdn.api_key")
            if len(names) != 1:
                raise ValueError("needs either gdn.email, or gdn.username and gdn.tenant")
        return password

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if key is None:
            if info.data.get("kind") != "pulsar" and info.data.get("password", "") is None:
                raise PydanticCustomError("missing", "Field required")
            return None
        if info.data.get("password") is not None:
            raise ValueError("is set, and gdn.password, too; leave one of them out")
        if not KEY.fullmatch(key.get_secret_value()):
            raise ValueError("must be the bare key: printable ASCII without spaces, and without `apikey` before it")
        return key

    @field_validator("requests_per_minute", "requests_per_day")
    @classmethod
    def _check_requests(cls, requests: int, info: ValidationInfo) -> int:
        least = 10 if info.field_name == "requests_per_minute" else 100
        if 0 < requests < least:
            raise ValueError(f"must be at least {least}, or 0 for no limit; with less the bridge couldn't connect")
        return requests

    @field_validator("tenant", "fabric")
    @classmethod
    def _check_name(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is None:
            if info.data.get("kind") == "pulsar" or info.data.get("username") is not None:
                raise PydanticCustomError("missing", "Field required")
            return None
        if "/" in name or " " in name:
            raise ValueError("must be the bare name, without slash or space")
        return name

    @field_validator("ca_file")
    @classmethod
    def _check_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and info.data.get("url", "").lower().startswith("http://"):
            raise ValueError("is for TLS, but gdn.url starts with http://; write https:// or take this out")
        return checked_file(path)


class Worker(_Group):
    """The stream worker that the bridge keeps in place."""

    definition: Path = Field(
        description="File with the stream worker's definition. The bridge creates and activates the worker "
        "from it, and reads from it what columns the streams have."
    )
    regions: list[Text] = Field(
        default=[],
        description="Regions the worker runs in, as GDN names them, such as `gdn-us-west`. Empty: the region "
        "that answers.",
    )
    settle_time: float = Field(
        default=10,
        ge=0,
        le=600,
        description="Seconds between activating the worker and the first row. A fresh worker hears nothing "
        "until its inputs are attached: with too little time, first rows are received by GDN but "
        "not seen by the worker. Not waited for if the worker was active already.",
    )
    on_drift: Annotated[Literal["report", "apply", "fail"], BeforeValidator(lower)] = Field(
        default="report",
        description="What happens when GDN's definition isn't the file's, the regions aren't those above, or the "
        "worker is deleted while the bridge runs; looked at on starting and each `health.worker_interval`. `report`: "
        "said in log and status; nothing is sent to a worker that is gone, or whose columns would cost the rows. "
        "`apply`: made what the file says, while nothing is sent. `fail`: the bridge ends with exit code 1. A worker "
        "that was only switched off is activated again in any case.",
    )

    @field_validator("definition")
    @classmethod
    def _check_file(cls, path: Path) -> Path:
        checked_file(path)
        return path


class FieldTable(_Group):
    """A column's source, and what is made of its value."""

    source: Scalar = Field(description="Where the value comes from, as in `fields`.")
    scale: float | None = Field(
        default=None, ge=-1e300, le=1e300, description="Factor, by decimals: 217 by 0.1 is 21.7."
    )
    offset: float | None = Field(default=None, ge=-1e300, le=1e300, description="Summand, after `scale`.")
    map: dict[str, Scalar] | None = Field(
        default=None, min_length=1, description="Value as text to value: `{ on = true, off = false }`; `*` for others."
    )
    default: Scalar | None = Field(default=None, description="Where there is no value.")
    time: Literal["s", "ms", "us", "ns", "iso8601"] | None = Field(
        default=None,
        description="The value is a point in time: a number since 1970 in this unit, or a text by ISO 8601. A long or "
        "double column gets milliseconds since 1970, a string column ISO 8601 in UTC.",
    )


FieldSetting = Annotated[
    Annotated[Scalar, Tag(VALUE_TAG)] | Annotated[FieldTable, Tag(TABLE_TAG)],
    Discriminator(lambda value: TABLE_TAG if isinstance(value, dict | FieldTable) else VALUE_TAG),
]


class ExampleTable(_Group):
    """A message, and what must become of it."""

    topic: Text = Field(description="The topic it comes on.")
    payload: Any = Field(description="A text is the payload as it is; anything else is written as JSON.")
    encoding: Literal["text", "base64"] = Field(default="text", description="How the payload is written here.")
    expect: Any = Field(description="The row as a table, a list of such, or the reason code of a dead letter.")


class Route(_Group):
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
    key: Scalar | None = Field(default=None, description="Pulsar key of the rows, as in `fields`.")
    properties: dict[str, Scalar] = Field(default={}, description="Pulsar properties of the rows, each as in `fields`.")
    event_time: FieldTable | None = Field(
        default=None, description="Pulsar event time of the rows: a table with `source` and `time`."
    )
    test: list[ExampleTable] = Field(
        default=[], description="Examples for `gdn-bridge test`: tables with `topic`, `payload` and `expect`."
    )


class OutboxSettings(_Group):
    """The store on disk between broker and GDN."""

    path: Path = Field(
        default=Path("outbox.db"),
        description="The store's file. Not set: `outbox.db` in `$STATE_DIRECTORY` (systemd sets it), else in "
        "the working directory. On a disk that survives a restart: everything acknowledged and "
        "not delivered is in it.",
    )

    max_bytes: int = Field(
        default=1 << 30,
        ge=1 << 20,
        le=1 << 40,
        description="Bytes of rows that may wait for delivery, everything that the disk needs for them included. At "
        "the bound `outbox.full` says what happens. The file doesn't shrink; it is used again.",
    )
    max_age: float = Field(
        default=0,
        ge=0,
        le=315360000,
        description="Seconds that the oldest row may wait; past it the outbox counts as full. 0: any time.",
    )
    full: Annotated[Literal["hold", "drop_oldest", "reject_new"], BeforeValidator(lower)] = Field(
        default="hold",
        description="What happens while the outbox is full. `hold`: the bridge leaves the broker, which keeps the "
        "session and its messages as far as its own limits go, and comes back when a tenth is free; nothing is lost "
        "here. `drop_oldest`: the rows that wait longest and were never sent make room. `reject_new`: new messages "
        "are acknowledged and thrown away. Every row dropped is counted, in the metrics and the books.",
    )
    dead_letter_bytes: int = Field(
        default=100 << 20,
        ge=1 << 20,
        le=1 << 40,
        description="Bytes of dead letters that are kept; beyond it the oldest are purged, which is counted.",
    )
    dead_letter_age: float = Field(
        default=0,
        ge=0,
        le=315360000,
        description="Seconds that a dead letter is kept; older ones are purged, which is counted. 0: any time.",
    )

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: Path) -> Path:
        if path.is_dir():
            raise ValueError("is a directory; name a file in it, as in /var/lib/gdn-bridge/outbox.db")
        return path


class DeliverySettings(_Group):
    """How rows travel to a stream."""

    window: int = Field(
        default=500,
        ge=1,
        le=1000,
        description="Rows per stream that may be under way without a receipt. At the bound, rows wait in the "
        "outbox. It must cover rate x round trip (500 at 20 ms: some 20,000 a second); GDN "
        "refuses more than 1000. What is under way when a link breaks is sent again, so a small "
        "window means few duplicates.",
    )
    receipt_timeout: float = Field(
        default=30,
        ge=1,
        le=600,
        description="Seconds to wait for a row's receipt. After them the link counts as broken: it is made "
        "anew and the rows without a receipt are sent again. GDN itself gives up after 30.",
    )
    ping_interval: float = Field(
        default=20,
        ge=1,
        le=240,
        description="Seconds between pings on an idle link, which keep it from being cut. GDN cuts after 300 "
        "at the latest, gateways on the way often after 60.",
    )
    deduplicate: bool = Field(
        default=False,
        description="Whether GDN is asked to drop what it has stored already (effectively once): rows get sequence "
        "numbers, kept in the outbox, under one producer name, and what the broker hands over again is told and "
        "skipped. It works where deduplication is switched on for the "
        "namespace; it costs one more synced write a batch.",
    )
    linger: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Milliseconds to wait for a batch to gather. 5 halves the CPU at 1,000 messages a second "
        "and adds up to that much latency; 0 sends at once, in batches only as far as load makes "
        "them.",
    )


class HealthCheck(_Group):
    """A query, and what is expected of its rows."""

    name: Text = Field(max_length=64, description="What it is called in statuses and metrics.")
    query: Text = Field(max_length=10_000, description="C8QL.")
    period: float = Field(default=60, ge=1, le=86400, description="Seconds between queries.")
    min: float | None = Field(
        default=None, ge=-1e300, le=1e300, description="The one row is a number and at least this."
    )
    equals: Scalar | None = Field(default=None, description="The one row is this.")
    rows: int | None = Field(default=None, ge=0, le=99, description="There are so many rows.")
    changes_within: float | None = Field(
        default=None, ge=1, le=31_536_000, description="Seconds in which the rows must change."
    )


class HealthSettings(_Group):
    """Asking GDN whether rows really come out at the far end. Each check is one request; GDN's free tier allows
    20,000 a day, and a check every 60 seconds takes 1,440 of them.
    """

    query: str | None = Field(
        default=None,
        min_length=1,
        description="C8QL query that yields one number which grows with the rows. Not set: count the "
        "worker's output table.",
    )
    query_interval: float = Field(
        default=60,
        ge=1,
        le=86400,
        description="Seconds between queries. What goes wrong behind the stream is noticed no sooner.",
    )
    worker_interval: float = Field(
        default=60,
        ge=1,
        le=86400,
        description="Seconds between looks whether the worker is still active: GDN switches off a worker "
        "that breaks a limit.",
    )
    checks: list[HealthCheck] = Field(
        default=[],
        max_length=50,
        description="Further checks, each a table `[[health.checks]]` with `name`, `query`, `period` (seconds, 60) and "
        "what is expected: `min`, `equals`, `rows`, `changes_within` (seconds). docs/operating.md has examples.",
    )

    @field_validator("checks")
    @classmethod
    def _check_names(cls, checks: list[HealthCheck]) -> list[HealthCheck]:
        if len({check.name for check in checks}) != len(checks):
            raise ValueError("must have a name each that no other has")
        return checks


class CanarySettings(_Group):
    """A marked message that goes the whole way, from the broker to a row that a query finds. `{marker}` stands for a
    text that is new each time: `canary-` and twelve hexadecimal digits. docs/operating.md has an example.
    """

    topic: Text | None = Field(
        default=None,
        max_length=1000,
        description="Topic to publish to; a route must take it. May hold `{marker}`.",
    )
    payload: str = Field(default="{}", max_length=100_000, description="What is published. May hold `{marker}`.")
    query: Text | None = Field(
        default=None,
        max_length=10_000,
        description="C8QL query with `{marker}` that gives a row for each row that the message became.",
    )
    cleaning_query: Text | None = Field(
        default=None,
        max_length=10_000,
        description="C8QL query with `{marker}` that removes these rows, after they were found. Not set: they stay.",
    )
    interval: float = Field(
        default=300,
        ge=5,
        le=86400,
        description="Seconds between two messages, and what one may take. A worker that swallows rows is noticed "
        "within two of them. A message costs two or three requests, one that is lost about ten.",
    )
    enabled: bool = Field(default=False, description="Whether to do so.")

    @field_validator("topic")
    @classmethod
    def _check_topic(cls, topic: str | None) -> str | None:
        if topic is not None and any(character in topic for character in "+#"):
            raise ValueError("must be a topic to publish to, without + and #")
        return topic

    @field_validator("query", "cleaning_query")
    @classmethod
    def _check_query(cls, query: str | None) -> str | None:
        if query is not None and "{marker}" not in query:
            raise ValueError("must hold {marker}, to find the message's rows and no others")
        return query

    @field_validator("enabled")
    @classmethod
    def _check_enabled(cls, enabled: bool, info: ValidationInfo) -> bool:
        if not enabled:
            return enabled
        if missing := [name for name in ("topic", "query") if info.data.get(name, "") is None]:
            raise ValueError(f"is true, but canary.{' and canary.'.join(missing)} isn't set")
        if "{marker}" not in f"{info.data.get('topic', '{marker}')}{info.data.get('payload', '{marker}')}":
            raise ValueError("is true, but neither canary.topic nor canary.payload holds {marker}")
        return enabled


class StatusSettings(_Group):
    """The page, the probes and the metrics for operators."""

    listen: str = Field(
        default="127.0.0.1:8080",
        description="Address for /livez, /readyz, /metrics and the status page, `host:port`. It asks no "
        "password: bind it to other than this machine only where the network is yours. Port 0 "
        "takes any free one.",
    )

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, listen: str) -> str:
        listen_endpoint(listen)
        return listen

    @property
    def host(self) -> str:
        """The address to bind; an IPv6 address without brackets."""
        return listen_endpoint(self.listen)[0]

    @property
    def port(self) -> int:
        """The port to bind."""
        return listen_endpoint(self.listen)[1]


class LogSettings(_Group):
    """What is written to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = Field(
        default="info",
        description="The least level that is written. Libraries speak from warning on, whatever this says.",
    )
    format: Annotated[Literal["auto", "json", "console"], BeforeValidator(lower)] = Field(
        default="auto",
        description="`json`: one object a line. `console`: for people. `auto`: console on a terminal, else json.",
    )


class Settings(BaseSettings):
    """All settings, checked. Made by ``load``: by itself it reads neither environment nor files."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, case_sensitive=True
    )

    mqtt: Mqtt
    gdn: Gdn
    worker: Worker
    routes: list[Route] = Field(min_length=1)
    outbox: OutboxSettings = OutboxSettings()
    delivery: DeliverySettings = DeliverySettings()
    health: HealthSettings = HealthSettings()
    canary: CanarySettings = CanarySettings()
    status: StatusSettings = StatusSettings()
    log: LogSettings = LogSettings()
    stop_timeout: float = Field(
        default=10,
        ge=1,
        le=600,
        description="Seconds that stopping may take. What isn't delivered by then stays in the outbox. Give "
        "systemd's TimeoutStopSec or Docker's stop_grace_period some more.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the caller hands in: the library's sources stop at their first problem and name no place."""
        return (init_settings,)
