"""Reason codes in books, metrics and JSON: why a message is a dead letter, and why a record was dropped."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a message or a row is a dead letter; docs/mapping.md explains each."""

    NO_ROUTE = "no_route"
    BAD_TOPIC = "bad_topic"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    UNDECODABLE = "undecodable"
    UNKNOWN_ALIAS = "unknown_alias"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    TYPE_MISMATCH = "type_mismatch"
    OUT_OF_RANGE = "out_of_range"
    INTERNAL_ERROR = "internal_error"
    """The mapping raised an unexpected error: a bug in the bridge."""
    REFUSED_BY_GDN = "refused_by_gdn"
    """GDN refused the row permanently."""
    OUTDATED_DEFINITION = "outdated_definition"
    """The row was stored for an earlier definition of the worker and doesn't fit the current one."""


class DropReason(StrEnum):
    """Why a record was neither delivered nor kept as a dead letter."""

    OUTBOX_FULL = "outbox_full"
    """The outbox had reached ``outbox.max_bytes``."""
    EXPIRED = "expired"
    """The record was older than ``outbox.max_age``."""
    FILTERED = "filtered"
    """No route takes the element of a message, because their conditions (``when``) aren't true for it."""
    UNCHANGED = "unchanged"
    """A row whose values had not changed: its route has ``every``."""
    OUTBOX_DAMAGED = "outbox_damaged"
    """The record could not be read from a damaged outbox."""
