"""``Settings``, and the short sections: every setting with its default, bounds and description."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bridge.config.gdn import GdnSettings
from bridge.config.health import CanarySettings, HealthSettings
from bridge.config.mqtt import MqttSettings
from bridge.config.routes import RouteSettings
from bridge.config.values import Group, Text, checked_file, listen_endpoint, lower
from bridge.outbox import Bounds
from bridge.outbox.bounds import exact_sum


class WorkerSettings(Group):
    """The stream worker that the bridge creates and keeps active."""

    definition: Annotated[Path, AfterValidator(checked_file)] = Field(
        description="File with the stream worker's definition. The bridge creates and activates the worker from it, "
        "and reads the streams' columns from it."
    )
    regions: list[Text] = Field(
        default=[],
        description="Regions that the worker runs in, by their GDN names, such as `gdn-us-west`. Empty: the region "
        "that answers.",
    )
    settle_time: float = Field(
        default=10,
        ge=0,
        le=600,
        description="Seconds to wait between activating the worker and sending the first row. A new worker receives "
        "nothing until its inputs are attached: if this is too short, GDN accepts the first rows but the "
        "worker never sees them. There is no wait if the worker is already active.",
    )
    on_drift: Annotated[Literal["report", "apply", "fail"], BeforeValidator(lower)] = Field(
        default="report",
        description="What to do when the definition in GDN differs from the file, the worker runs in other regions "
        "than `regions`, or it is deleted while the bridge runs. Checked at the start and every "
        "`health.worker_interval`. `report`: report it in the log and the status; send nothing to a "
        "worker that is missing or whose columns would make it drop rows. `apply`: make the worker match "
        "the file and the settings, and send nothing meanwhile. `fail`: end with exit code 1. A worker "
        "that was only deactivated is always activated again.",
    )


class OutboxSettings(Group):
    """The file on disk that holds records until GDN has receipted them."""

    path: Path = Field(
        default=Path("outbox.db"),
        description="The outbox file. Not set: `outbox.db` in `$STATE_DIRECTORY` (set by systemd), else in the "
        "working directory. Put it on a disk that survives a restart: it holds everything acknowledged "
        "and not yet delivered. The bridge keeps more files beside it, whose names begin with its name. "
        "If one of these is another program's file, the start ends with exit code 78.",
    )
    max_bytes: int = Field(
        default=1 << 30,
        ge=1 << 20,
        le=1 << 40,
        description="Maximum size on disk, in bytes, of the rows that wait for delivery, including all overhead. At "
        "this limit, `outbox.full` applies. Freed space in the file is reused.",
    )
    max_age: float = Field(
        default=0,
        ge=0,
        le=315360000,
        description="Maximum time in seconds that the oldest row may wait; beyond that, the outbox counts as full. 0: "
        "no limit.",
    )
    full: Annotated[Literal["hold", "drop_oldest", "reject_new"], BeforeValidator(lower)] = Field(
        default="hold",
        description="What to do while the outbox is full. `hold`: disconnect from the broker, which keeps the session "
        "and its messages within its own limits, and reconnect when a tenth of the outbox is free; the "
        "bridge loses nothing. `drop_oldest`: drop the oldest rows that were never sent, of the streams with the most "
        "bytes for their share. `reject_new`: acknowledge new messages and drop the rows of a stream that has used up "
        "its share. Every dropped row is counted, in the metrics and the books.",
    )
    shares: dict[str, float] = Field(
        default={},
        description="Share of `max_bytes` by stream, as a fraction: `{ alarms = 0.5 }` (in the environment also "
        "`BRIDGE_OUTBOX__SHARES__alarms`). The other streams of the routes have equal parts of the rest. With "
        "`drop_oldest` streams use room that others leave, until the outbox is full: then those beyond their share "
        "lose rows first. With `reject_new` a stream never uses more than its share. No effect with `hold`, unless "
        "`mqtt.session_per_stream` is on.",
    )
    dead_letter_bytes: int = Field(
        default=100 << 20,
        ge=1 << 20,
        le=1 << 40,
        description="Maximum size of the dead letters, in bytes; beyond that, the oldest are purged and counted.",
    )
    dead_letter_age: float = Field(
        default=0,
        ge=0,
        le=315360000,
        description="Seconds to keep a dead letter; older ones are purged and counted. 0: no limit.",
    )

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: Path) -> Path:
        if path.is_dir():
            raise ValueError("is a directory; give a file in it, such as /var/lib/gdn-bridge/outbox.db")
        return path

    @field_validator("shares")
    @classmethod
    def _check_shares(cls, shares: dict[str, float]) -> dict[str, float]:
        if not all(0 < share <= 1 for share in shares.values()):
            raise ValueError("must contain fractions of outbox.max_bytes, above 0 and at most 1, such as 0.25")
        if exact_sum(shares.values()) > 1:
            raise ValueError("has a sum above 1, which is all of outbox.max_bytes")
        return shares

    @property
    def bounds(self) -> Bounds:
        """What the outbox may hold."""
        return Bounds(self.max_bytes, self.max_age, self.dead_letter_bytes, self.dead_letter_age, self.shares)


class DeliverySettings(Group):
    """How rows are sent to a stream."""

    window: int = Field(
        default=500,
        ge=1,
        le=1000,
        description="Maximum number of rows per stream in flight without a receipt. At this limit, rows wait in the "
        "outbox. It must cover rate x round-trip time (500 at 20 ms: about 20,000 a second); GDN refuses "
        "more than 1000. Rows without a receipt are sent again when a link breaks, so a smaller window "
        "means fewer duplicates.",
    )
    max_rate_rows: float = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Maximum number of rows per stream sent in a second, with bursts of one second. Further rows wait "
        "in the outbox. GDN deactivates a worker that exceeds its plan's limits, which a backlog sent at full speed "
        "can do. 0: no limit.",
    )
    max_rate_bytes: int = Field(
        default=0,
        ge=0,
        le=1 << 30,
        description="Maximum number of bytes of rows per stream sent in a second, as `max_rate_rows`. 0: no limit.",
    )
    receipt_timeout: float = Field(
        default=30,
        ge=1,
        le=600,
        description="Seconds to wait for a row's receipt. After that the link counts as broken: the bridge reconnects "
        "and sends the rows without a receipt again. GDN itself gives up after 30.",
    )
    ping_interval: float = Field(
        default=20,
        ge=1,
        le=240,
        description="Seconds between pings on an idle link, which keep it open. GDN closes an idle link after 300 "
        "seconds at most, gateways in between often after 60.",
    )
    deduplicate: bool = Field(
        default=False,
        description="Whether GDN is asked to drop rows that it has already stored (effectively once): rows get "
        "sequence numbers, kept in the outbox, under a fixed producer name, and redelivered messages are "
        "recognised and skipped. Requires that deduplication is enabled for the fabric (in Pulsar: the "
        "namespace); costs one more synced write per batch.",
    )
    linger: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Milliseconds to wait for a batch to fill. 5 halves the CPU use at 1,000 messages a second and "
        "adds up to 5 ms of latency; with 0 nothing waits, and batches form only under load.",
    )


class StatusSettings(Group):
    """The status page, health endpoints and metrics for operators."""

    listen: str = Field(
        default="127.0.0.1:8080",
        description="Address of the status page, /livez, /readyz and /metrics, as `host:port`. There is no password: "
        "bind it to an address beyond this machine only on a trusted network. On a loopback address, only requests for "
        "`localhost` or a loopback address are answered. Port 0: any free port.",
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


class LogSettings(Group):
    """The log, which is written to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = Field(
        default="info",
        description="The lowest level that is logged. Libraries log from warning on, regardless of this setting.",
    )
    format: Annotated[Literal["auto", "json", "console"], BeforeValidator(lower)] = Field(
        default="auto",
        description="`json`: one object per line. `console`: for people. `auto`: console on a terminal, else json.",
    )


class Settings(BaseSettings):
    """All settings, checked. Use ``load``: this class itself reads neither environment nor files."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, case_sensitive=True
    )

    mqtt: MqttSettings
    gdn: GdnSettings
    worker: WorkerSettings
    routes: list[RouteSettings] = Field(min_length=1)
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
        description="Seconds that stopping may take. What isn't delivered by then stays in the outbox. Set systemd's "
        "TimeoutStopSec or Docker's stop_grace_period somewhat higher.",
    )

    @field_validator("health", "canary")
    @classmethod
    def _check_queries(cls, group: HealthSettings | CanarySettings, info: ValidationInfo) -> Any:
        gdn = info.data.get("gdn")
        asks = group.enabled if isinstance(group, CanarySettings) else bool(group.checks or group.query)
        if asks and gdn is not None and gdn.kind == "pulsar":
            what = "enabled" if isinstance(group, CanarySettings) else "query or checks"
            raise ValueError(f'{what}: a plain Pulsar has no queries; remove it, or use gdn.kind = "gdn"')
        return group

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **_others: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the caller's values: the library's sources stop at their first problem and don't report its place."""
        return (init_settings,)
