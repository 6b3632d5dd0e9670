"""The sections ``[health]`` and ``[canary]``: asking GDN whether rows come out at the far end."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from bridge.config.values import Group, Text, TomlScalar


class HealthCheck(Group):
    """A query, and what is expected of its rows."""

    name: Text = Field(max_length=64, description="What it is called in statuses and metrics.")
    query: Text = Field(max_length=10_000, description="C8QL.")
    period: float = Field(default=60, ge=1, le=86400, description="Seconds between queries.")
    min: float | None = Field(
        default=None, ge=-1e300, le=1e300, description="The one row is a number and at least this."
    )
    equals: TomlScalar | None = Field(default=None, description="The one row is this.")
    rows: int | None = Field(default=None, ge=0, le=99, description="There are so many rows.")
    changes_within: float | None = Field(
        default=None, ge=1, le=31_536_000, description="Seconds in which the rows must change."
    )


class HealthSettings(Group):
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


class CanarySettings(Group):
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
