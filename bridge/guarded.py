"""Mapping with a net: a bug of ours must cost its message, not the rest (P5)."""

from __future__ import annotations

from typing import Protocol

from bridge.log import get_logger
from bridge.message import DeadLetter, MqttMessage, Row

log = get_logger(__name__)


class Maps(Protocol):
    """What a ``Mapping`` does."""

    @property
    def version(self) -> str:
        """Of routes and columns."""

    def map(self, message: MqttMessage, next_id: int = 0) -> list[Row] | DeadLetter:
        """The message's rows, or the dead letter it becomes."""


def map_guarded(mapping: Maps, message: MqttMessage, next_id: int) -> list[Row] | DeadLetter:
    """As ``mapping.map``; a dead letter ``internal_error``, logged with its traceback, where that fails."""
    try:
        return mapping.map(message, next_id)
    except Exception as exc:
        log.exception("mapping.failed", topic=message.topic)
        return DeadLetter.of(message, route=None, reason="internal_error", detail=repr(exc), mapping=mapping.version)
