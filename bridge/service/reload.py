"""Reloads the settings: a running bridge follows some changes, others need a restart."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bridge.config import Settings
from bridge.config.tree import Location, dotted, every_setting
from bridge.errors import ConfigError, fault
from bridge.log import configure, get_logger
from bridge.mapping import Mapper, Route, check
from bridge.outbox import Outbox
from bridge.path.inbox import Change, Inbox
from bridge.path.pipeline import Pipeline
from bridge.service.session_per_stream import moved_topics, session_problems
from bridge.streamql import Worker
from bridge.streamql.streams import InputStream

log = get_logger(__name__)

FOLLOWED = frozenset(
    {
        *("gdn.api_key", "gdn.email", "gdn.username", "gdn.password"),
        *("mqtt.username", "mqtt.password", "outbox.shares", "log.level", "log.format"),
    }
)
"""Settings that a running bridge follows, besides the routes."""


class Configuration(NamedTuple):
    """The settings and what they name, read and checked."""

    settings: Settings
    worker: Worker
    """The definition in its file."""
    streams: dict[str, InputStream]
    """The GDN streams that the worker reads, by name."""
    routes: Sequence[Route]
    """Checked against the definition."""
    place: Callable[[Location], str]
    """Returns the place of a setting: file and line, or variable."""
    unset: Sequence[str] = ()
    """Required settings without a value, for commands that connect to nothing."""


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


class Reloader:
    """Reloads the settings. Main thread only.

    Args:
        running: the configuration that the bridge was started with.
        read_configuration: loads the settings and what they name; raises ConfigError.
        outbox: for its name, which is part of row ids.
        pipeline: whose mapper is replaced.
        inbox: of the pipeline.
        refresh: makes requests use the current credentials.
    """

    def __init__(
        self,
        *,
        running: Configuration,
        read_configuration: Callable[[], Configuration],
        outbox: Outbox,
        pipeline: Pipeline,
        inbox: Inbox,
        refresh: Callable[[], object],
    ) -> None:
        self._running = running
        self._routes = running.routes  # the current ones
        self._log = running.settings.log
        self._read_configuration = read_configuration
        self._outbox = outbox
        self._mapper = pipeline.mapper
        self._inbox = inbox
        self._refresh = refresh
        self.refused: str | None = None
        """Why the last reload was refused; None if it wasn't, or if there was none."""

    def reload(self, *, done: Callable[[], object]) -> bool:
        """Load the settings again and follow what may change while the bridge runs.

        Args:
            done: called in the pipeline thread once the new routes are in use.

        Returns:
            False: the reload is refused, ``refused`` says why, and nothing changes.
        """
        try:
            return self._reload(done)
        except ConfigError as exc:
            return self._refuse(exc.problems)
        except Exception as exc:  # a fault in a reload must not end a working bridge
            return self._refuse([fault(exc)])

    def _reload(self, done: Callable[[], object]) -> bool:
        found = self._read_configuration()
        restart = need_restart(self._running.settings, found.settings)
        # The setting may be the same while the text of its file has changed.
        if found.worker.text != self._running.worker.text and "worker.definition" not in restart:
            restart.append("worker.definition (the file's text)")
        # The definition that the bridge runs with may lack what the one in the file has.
        problems = check(found.routes, self._running.streams)
        if problems:
            where = "(in the definition that the bridge runs with)"
            return self._refuse(
                [
                    *(f"{found.place(problem.location)}: {problem.text} {where}" for problem in problems),
                    f"need a restart: {', '.join(restart)}",
                ]
            )
        refused = [
            f"{found.place(location)}: {text} (the bridge runs with it)"
            for location, text in session_problems(self._running.settings, found.routes)
        ]
        if self._running.settings.mqtt.session_per_stream:
            hint = "with mqtt.session_per_stream a route can be given another stream only with a restart"
            moved = moved_topics(self._routes, found.routes)
            refused += [f"the route {topic} feeds another stream: {hint}" for topic in moved]
        if refused:
            return self._refuse(refused)
        # Before any change: it may fail, and a refused reload changes nothing.
        mapper = self._make_mapper(found.routes)
        if restart:
            log.warning("daemon.restart_needed", settings=restart, hint="these keep their old values until a restart")
        self.refused, self._routes = None, found.routes
        if found.settings.log != self._log:
            self._log = found.settings.log
            configure(level=self._log.level, format=self._log.format, stream=sys.stderr)
        self._refresh()
        # Kept here, because the pipeline may still have the old one when the next reload comes.
        self._mapper = mapper
        streams = tuple(dict.fromkeys(route.stream for route in found.routes))
        self._inbox.change(Change(mapper, streams, found.settings.outbox.shares, done))
        return True

    def _make_mapper(self, routes: Sequence[Route]) -> Mapper:
        return Mapper(
            routes=routes,
            streams=self._running.streams,
            outbox_name=self._outbox.name,
            client=self._running.settings.mqtt.client_id,
            sparkplug=self._mapper.sparkplug,  # what nodes declared at their birth outlasts a change of routes
            sparkplug_bytes=self._running.settings.mqtt.sparkplug_bytes,
        )

    def _refuse(self, problems: Sequence[str]) -> bool:
        self.refused = "; ".join(problems)
        log.error("daemon.reload_refused", problems=problems, hint="the bridge continues unchanged")
        return False
