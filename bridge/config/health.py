"""The sections ``[health]`` and ``[canary]``: checks that rows come out of the worker."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from bridge.config.values import Group, Text
from bridge.mapping.fields import Scalar


class HealthCheck(Group):
    """A query and the result it is expected to have."""

    name: Text = Field(max_length=64, description="Name in the status and the metrics.")
    query: Text = Field(max_length=10_000, description="C8QL query.")
    period: float = Field(default=60, ge=1, le=86400, description="Seconds between queries.")
    min: float | None = Field(
        default=None, ge=-1e300, le=1e300, description="The result is one row, a number that is at least this."
    )
    equals: Scalar | None = Field(default=None, description="The result is one row that equals this.")
    rows: int | None = Field(default=None, ge=0, le=99, description="The result has this many rows.")
    changes_within: float | None = Field(
        default=None, ge=1, le=31_536_000, description="Seconds within which the result must change."
    )


class HealthSettings(Group):
    """Checks that rows come out of the worker. Each check costs one request to GDN, whose free tier allows 20,000 a
    day; a check every 60 seconds takes 1,440 of them.
    """

    query: str | None = Field(
        default=None,
        min_length=1,
        description="C8QL query that returns one number, which grows with the rows; it isn't compared with the number "
        "of receipts. Not set: count the tables that the worker fills, and compare each with the streams that feed it.",
    )
    query_interval: float = Field(
        default=60,
        ge=1,
        le=86400,
        description="Seconds between queries. A failure in the worker may stay undetected for this long.",
    )
    worker_interval: float = Field(
        default=60,
        ge=1,
        le=86400,
        description="Seconds between checks that the worker is active: GDN deactivates a worker that exceeds a limit.",
    )
    checks: list[HealthCheck] = Field(
        default=[],
        max_length=50,
        description="Further checks, each a table `[[health.checks]]` with `name`, `query`, `period` (seconds, "
        "default 60) and the expected result: `min`, `equals`, `rows`, `changes_within` (seconds). "
        "docs/operating.md has examples.",
    )

    @field_validator("checks")
    @classmethod
    def _check_names(cls, checks: list[HealthCheck]) -> list[HealthCheck]:
        if len({check.name for check in checks}) != len(checks):
            raise ValueError("must have different names")
        return checks


class CanarySettings(Group):
    """A marked message that is sent through every step, from the broker to a row that a query finds. `{marker}` stands
    for a string that is new each time: `canary-` and twelve hexadecimal digits. docs/operating.md has an example.
    """

    topic: Text | None = Field(
        default=None,
        max_length=1000,
        description="Topic to publish to; a route must take it. May contain `{marker}`.",
    )
    payload: str = Field(default="{}", max_length=100_000, description="Payload to publish. May contain `{marker}`.")
    query: Text | None = Field(
        default=None,
        max_length=10_000,
        description="C8QL query with `{marker}` that returns a row for each row that the message became.",
    )
    cleaning_query: Text | None = Field(
        default=None,
        max_length=10_000,
        description="C8QL query with `{marker}` that removes these rows once they are found. Not set: they stay.",
    )
    interval: float = Field(
        default=300,
        ge=5,
        le=86400,
        description="Seconds between two canaries, and the longest time that one may take. A worker that drops rows "
        "is detected within two intervals. A canary costs two or three requests, a lost one about ten.",
    )
    enabled: bool = Field(default=False, description="Whether to send canaries.")

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
            raise ValueError("must contain {marker}, so that it finds only the canary's rows")
        return query

    @field_validator("enabled")
    @classmethod
    def _check_enabled(cls, enabled: bool, info: ValidationInfo) -> bool:
        if not enabled:
            return enabled
        if missing := [name for name in ("topic", "query") if info.data.get(name, "") is None]:
            raise ValueError(f"is true, but canary.{' and canary.'.join(missing)} isn't set")
        if "{marker}" not in f"{info.data.get('topic', '{marker}')}{info.data.get('payload', '{marker}')}":
            raise ValueError("is true, but neither canary.topic nor canary.payload contains {marker}")
        return enabled
