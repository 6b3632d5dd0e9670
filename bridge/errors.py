"""The errors of the bridge, one class per answer to "what should happen next".

    BridgeError
    ├── ConfigError           exit 78: the person must change a setting or a file
    ├── OutboxUnavailable     hold: nothing is acknowledged until the store takes it again
    ├── MqttUnavailable       dial again
    ├── GdnError
    │   ├── GdnUnavailable    dial or ask again, not before retry_after
    │   ├── GdnAuthError      not ready; ask again, slowly
    │   └── GdnRejected       GDN understood and said no; asking again the same way is useless
    ├── RemoteProtocolError   the peer broke its protocol: reconnect
    └── LocalProtocolError    we broke it: a bug, the daemon ends

What can't be mapped is not an error but a DeadLetter (``message.py``).
"""

from __future__ import annotations


class BridgeError(Exception):
    """Base of everything the bridge raises on purpose."""


class ConfigError(BridgeError):
    """One or more settings or files are wrong. ``problems`` holds one sentence for each, with its place."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class OutboxUnavailable(BridgeError):
    """The store couldn't take or give: disk full, locked, damaged."""


class MqttUnavailable(BridgeError):
    """The broker can't be reached or refused the connection."""


class GdnError(BridgeError):
    """A request to GDN did not succeed."""


class GdnUnavailable(GdnError):
    """GDN can't be reached, is overloaded or answered nonsense. ``retry_after``: seconds it asked for, if it did."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class GdnAuthError(GdnError):
    """GDN refused the credentials or the right (401, 403)."""


class GdnRejected(GdnError):
    """GDN refused the request itself. ``status``: its HTTP status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class RemoteProtocolError(BridgeError):
    """The peer sent what its protocol doesn't allow."""


class LocalProtocolError(BridgeError):
    """The bridge was about to break a protocol. Always a bug."""
