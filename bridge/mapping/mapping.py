"""The mapping itself: an MqttMessage in, its rows or one dead letter out. Runs in the pipeline's thread, does no I/O."""

from __future__ import annotations

from collections.abc import Mapping as Map
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from bridge.errors import ConfigError
from bridge.mapping.check import check
from bridge.mapping.payload import MAX_PAYLOAD
from bridge.mapping.reason import Reason, Unmappable, quoted
from bridge.mapping.routes import BoundRoute, CompiledRoute, Route
from bridge.message import DeadLetter, MqttMessage, Row

if TYPE_CHECKING:
    from bridge.streamql.streams import InputStream

MAX_TOPICS = 8_192
"""Topics remembered. At the bound all are forgotten: the working set is back after one message of each."""
MAX_TOPIC_LENGTH = 256
"""Characters. Longer topics are matched anew each time, so that what is remembered stays within a few megabytes."""


class _Refusal(NamedTuple):
    """A topic none of whose messages can be mapped."""

    route: str | None
    reason: Reason
    detail: str


class Mapping:
    """Every message to rows or to a dead letter; ``map`` never raises."""

    def __init__(
        self, *, routes: Sequence[Route], streams: Map[str, InputStream], max_payload: int = MAX_PAYLOAD
    ) -> None:
        """Read the routes.

        Args:
            routes: in order of precedence: the first whose topic matches takes the message.
            streams: the worker's input streams by name.
            max_payload: bytes of the largest payload that is decoded.

        Raises:
            ConfigError: with what ``check`` finds.
        """
        problems = check(routes, streams)
        if problems:
            raise ConfigError(*problems)
        self._routes = tuple(CompiledRoute(r, streams[r.stream]) for r in routes)
        self._max_payload = max_payload
        self._topics: dict[str, BoundRoute | _Refusal] = {}

    @property
    def filters(self) -> tuple[str, ...]:
        """The topic filters to subscribe to, each once, in the order of the routes."""
        return tuple(dict.fromkeys(r.template.filter for r in self._routes))

    def map(self, message: MqttMessage) -> list[Row] | DeadLetter:
        """The rows of the message, at least one, in order; or the dead letter that says why there are none."""
        target = self._topics.get(message.topic)
        if target is None:
            target = self._target(message.topic)
        if type(target) is _Refusal:
            return _dead_letter(message, target.route, target.reason, target.detail)
        assert type(target) is BoundRoute
        try:
            return target.rows(message.payload, self._max_payload)
        except Unmappable as exc:
            return _dead_letter(message, target.topic, exc.reason, exc.detail)

    def _target(self, topic: str) -> BoundRoute | _Refusal:
        """What takes the topic's messages, remembered."""
        target = self._find(topic)
        if len(topic) <= MAX_TOPIC_LENGTH:
            if len(self._topics) >= MAX_TOPICS:
                self._topics.clear()
            self._topics[topic] = target
        return target

    def _find(self, topic: str) -> BoundRoute | _Refusal:
        flaw = _flaw(topic)
        if flaw is not None:
            return _Refusal(None, Reason.BAD_TOPIC, flaw)
        for route in self._routes:
            captures = route.template.match(topic)
            if captures is None:
                continue
            try:
                return route.bind(captures)
            except Unmappable as exc:
                return _Refusal(route.topic, exc.reason, exc.detail)
        return _Refusal(None, Reason.NO_ROUTE, f"no route takes the topic {quoted(topic)}")


def _flaw(topic: str) -> str | None:
    """What makes a topic one that MQTT doesn't allow (MQTT 5, 1.5.4 and 4.7.3) and GDN can't be sent."""
    if not topic:
        return "the topic is empty"
    if "\0" in topic:
        return f"the topic {quoted(topic)} holds the character U+0000"
    try:
        topic.encode()
    except UnicodeEncodeError:
        return f"the topic {quoted(topic)} is not UTF-8"
    return None


def _dead_letter(message: MqttMessage, route: str | None, reason: Reason, detail: str) -> DeadLetter:
    return DeadLetter(
        topic=message.topic.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00"),
        payload=message.payload,
        qos=message.qos,
        received_at=message.received_at,
        route=route,
        reason=reason.value,
        detail=detail,
    )
