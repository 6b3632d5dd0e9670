"""Where the broker grants less than the bridge asks for, as sentences with advice: capabilities, not access rules.

Pure. Section numbers are those of MQTT 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SHARED_OVER_3_1_1 = (
    "over MQTT 3.1.1 most brokers take $share/... as an ordinary topic: they grant it, but no message arrives "
    '(docs/brokers.md). Set mqtt.protocol = "5" if the broker supports it; otherwise remove $share/GROUP/'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the broker's CONNACK grants (3.2.2.3). None: as much as was asked for, or not stated."""

    session_expiry: int | None = None
    """Seconds."""
    maximum_qos: int | None = None
    retain_available: bool = True


def of_connection(limits: Limits, *, session_expiry: int) -> list[str]:
    """In what the connection falls short of what was asked for.

    Args:
        limits: the broker's.
        session_expiry: seconds that the bridge asked for.
    """
    notes = []
    granted = limits.session_expiry
    if granted is not None and granted < session_expiry:
        notes.append(
            f"the broker keeps the session {granted} s, not {session_expiry} s as mqtt.session_expiry asks: messages "
            "published during a longer outage are lost. Raise the limit in the broker"
        )
    if limits.maximum_qos == 0:
        notes.append(
            "the broker supports QoS 0 only (Maximum QoS): messages may be lost. Raise its maximum QoS to at least 1"
        )
    if not limits.retain_available:
        notes.append(
            "the broker keeps no retained messages (Retain Available 0): after a subscription, routes get the next "
            "message of each topic, not the last one"
        )
    return notes


def of_filters(filters: Iterable[str], *, is_v5: bool) -> list[str]:
    """Granted subscriptions that may deliver no messages."""
    shared = [filter_ for filter_ in filters if filter_.startswith("$share/")]
    return [f"{', '.join(shared)}: {SHARED_OVER_3_1_1}"] if shared and not is_v5 else []
