"""All settings together, and the sections that are short: every setting with its default, its bounds, what it does."""

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


class WorkerSettings(Group):
    """The stream worker that the bridge keeps in place."""

    definition: Annotated[Path, AfterValidator(checked_file)] = Field(
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


class OutboxSettings(Group):
    """The store on disk between broker and GDN."""

    path: Path = Field(
        default=Path("outbox.db"),
        description="The store's file. Not set: `outbox.db` in `$STATE_DIRECTORY` (systemd sets it), else in the "
        "working directory. On a disk that survives a restart: everything acknowledged and not delivered is in it.",
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


class DeliverySettings(Group):
    """How rows travel to a stream."""

    window: int = Field(
        default=500,
        ge=1,
        le=1000,
        description="Rows per stream that may be under way without a receipt. At the bound, rows wait in the outbox. "
        "It must cover rate x round trip (500 at 20 ms: some 20,000 a second); GDN refuses more than 1000. What is "
        "under way when a link breaks is sent again, so a small window means few duplicates.",
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
        description="Milliseconds to wait for a batch to gather. 5 halves the CPU at 1,000 messages a second and adds "
        "up to that much latency; 0 sends at once, in batches only as far as load makes them.",
    )


class StatusSettings(Group):
    """The page, the probes and the metrics for operators."""

    listen: str = Field(
        default="127.0.0.1:8080",
        description="Address for /livez, /readyz, /metrics and the status page, `host:port`. It asks no password: bind "
        "it to other than this machine only where the network is yours. Port 0 takes any free one.",
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
        description="Seconds that stopping may take. What isn't delivered by then stays in the outbox. Give "
        "systemd's TimeoutStopSec or Docker's stop_grace_period some more.",
    )

    @field_validator("health", "canary")
    @classmethod
    def _check_askable(cls, group: HealthSettings | CanarySettings, info: ValidationInfo) -> Any:
        gdn = info.data.get("gdn")
        asks = group.enabled if isinstance(group, CanarySettings) else bool(group.checks or group.query)
        if asks and gdn is not None and gdn.kind == "pulsar":
            what = "enabled" if isinstance(group, CanarySettings) else "query or checks"
            raise ValueError(f'{what}: a plain Pulsar answers no queries; take it out, or use gdn.kind = "gdn"')
        return group

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **_others: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the caller hands in: the library's sources stop at their first problem and name no place."""
        return (init_settings,)
