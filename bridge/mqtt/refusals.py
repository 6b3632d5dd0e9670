"""What the broker's reason codes mean: how the link ended, and a sentence that says what to do about it.

Pure. Section numbers are those of MQTT 5; paho maps the return codes of a 3.1.1 CONNACK (3.2.2.3) to these codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from bridge.links.link import LinkEnd

MAX_QUOTED = 200
"""Characters of the broker's explanation that are quoted."""


class Code(IntEnum):
    """Reason codes (2.4) that the bridge handles specially."""

    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    PACKET_IDENTIFIER_IN_USE = 0x91
    QUOTA_EXCEEDED = 0x97
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2


@dataclass(frozen=True, slots=True)
class BrokerReason:
    """A reason code as the broker sent it. As text: its name and the broker's explanation."""

    code: int
    name: str
    """As the specification spells it."""
    explanation: str | None = None
    """The broker's own (3.2.2.3.9, Reason String)."""
    server: str | None = None
    """The server to which the broker redirects its clients (3.2.2.3.16, Server Reference)."""

    @property
    def is_failure(self) -> bool:
        """Whether it is an error (2.4)."""
        return self.code >= 0x80

    def __str__(self) -> str:
        return f"{self.name}, {self.explanation[:MAX_QUOTED]!r}" if self.explanation else self.name


def connect_refused(reason: BrokerReason, *, client_id: str, version: int) -> tuple[str, LinkEnd]:
    """The error of a link whose CONNECT the broker refused, and how the link ends.

    Args:
        reason: of the CONNACK.
        client_id: in the CONNECT.
        version: of the protocol in the CONNECT, 5 or 4 (3.1.1).
    """
    is_credentials = reason.code in {Code.BAD_USER_NAME_OR_PASSWORD, Code.NOT_AUTHORIZED}
    end = LinkEnd.REFUSED_CREDENTIALS if is_credentials else LinkEnd.REFUSED
    match reason.code:
        case Code.UNSUPPORTED_PROTOCOL_VERSION:
            ours, other = ("5", "3.1.1") if version == 5 else ("3.1.1", "5")
            error = f"the broker doesn't support MQTT {ours} ({reason}). Set mqtt.protocol to {other}"
        case Code.BAD_USER_NAME_OR_PASSWORD:
            error = f"the broker refused the credentials: {reason}. Check mqtt.username and mqtt.password"
        case Code.NOT_AUTHORIZED:
            error = (
                f"the broker refused the connection: {reason}. Check mqtt.username, mqtt.password, and the broker's "
                f"access rules for this user and the client id {client_id!r}"
            )
        case Code.CLIENT_IDENTIFIER_NOT_VALID:
            error = f"the broker refused the client id {client_id!r}: {reason}. Set another mqtt.client_id"
        case Code.SERVER_UNAVAILABLE | Code.SERVER_BUSY | Code.QUOTA_EXCEEDED | Code.CONNECTION_RATE_EXCEEDED:
            error = f"the broker accepts no connections now: {reason}"
        case Code.USE_ANOTHER_SERVER | Code.SERVER_MOVED:
            where = f" It names {reason.server!r}." if reason.server else ""
            error = f"the broker redirects its clients to another one: {reason}.{where} Set mqtt.url"
        case _:
            error = f"the broker refused the connection: {reason}"
    return error, end


def disconnected(reason: BrokerReason, *, client_id: str) -> tuple[str, LinkEnd]:
    """The error of a link that the broker ended with a DISCONNECT (3.14), and how the link ends."""
    if reason.code == Code.SESSION_TAKEN_OVER:
        error = (
            f"another client with the client id {client_id!r} took the session over. Each bridge needs an "
            "mqtt.client_id of its own: stop the other client, or give one of them another id"
        )
        return error, LinkEnd.TAKEN_OVER
    return f"the broker closed the session: {reason}", LinkEnd.DISCONNECTED


def subscription_advice(code: int | None) -> str:
    """What to do about a filter that the broker doesn't grant at QoS 1 or more: a sentence without its full stop.

    Args:
        code: of the SUBACK (3.9.3), 0 if it was granted at QoS 0; None if the broker gave none.
    """
    match code:
        case 0:
            return "The broker grants no more than QoS 0: raise its maximum QoS"
        case None:
            return "The broker's SUBACK is incomplete: report this to the broker's vendor"
        case Code.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED:
            return "The broker has no shared subscriptions: enable them there, or remove $share/GROUP/ from the topic"
        case Code.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED:
            return "The broker has no wildcard subscriptions: enable them there, or write topics without + and #"
        case Code.TOPIC_FILTER_INVALID:
            return "The broker doesn't accept this topic filter: change the topic of the route"
        case Code.QUOTA_EXCEEDED:
            return "The broker's limit of subscriptions is reached: raise it there"
        case _:
            return "Check the broker's access rules for this user and client id"
