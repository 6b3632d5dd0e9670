"""What can change while the bridge runs, and what another set of settings would need a restart for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from bridge.config import Settings
from bridge.config.tree import Location, dotted, every_setting
from bridge.mapping import Route
from bridge.streamql import Worker

FOLLOWED = frozenset(
    {
        *("gdn.api_key", "gdn.email", "gdn.username", "gdn.password"),
        *("mqtt.username", "mqtt.password", "log.level", "log.format"),
    }
)
"""Settings that a running bridge follows, beside the routes."""


class Plan(Protocol):
    """Settings, and what they name, checked."""

    @property
    def settings(self) -> Settings:
        """Checked."""

    @property
    def worker(self) -> Worker:
        """The definition as it stands in its file now."""

    @property
    def routes(self) -> Sequence[Route]:
        """Checked against that definition."""


def need_restart(running: Settings, found: Settings) -> list[str]:
    """The dotted names of the settings that differ and that a running bridge can't follow, in the reference's order."""
    locations = [location for location, _ in every_setting() if location[0] != "routes"]
    differing = [dotted(loc) for loc in locations if _value(running, loc) != _value(found, loc)]
    return [name for name in differing if name not in FOLLOWED]


def _value(settings: Settings, location: Location) -> Any:
    value: Any = settings
    for key in location:
        value = getattr(value, str(key))
    return value
