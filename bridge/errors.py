"""The errors of the bridge, one class per answer to "what should happen next".

    BridgeError
    ├── ConfigError           exit 78: the person must change a setting or a file
    │   └── OutboxInUse       for a bridge; a command asks the one that runs
    ├── OutboxUnavailable     hold: nothing is acknowledged until the store takes it again
    ├── OutboxDamaged         the daemon ends; the next start rescues what reads
    ├── MqttUnavailable       dial again
    ├── GdnError
    │   ├── GdnUnavailable    dial or ask again, not before retry_after
    │   ├── GdnAuthError      not ready; ask again, slowly: the key may be mended meanwhile
    │   └── GdnRejected       GDN understood and said no; ask again as slowly: only a person can change the answer
    ├── RemoteProtocolError   the peer broke its protocol: reconnect
    └── LocalProtocolError    we broke it: a bug, the daemon ends

How soon "again" is stands in each error's ``pace`` (``timing.py`` has the table).

What can't be mapped is not an error but a DeadLetter (``message.py``).
"""

from __future__ import annotations

from bridge.timing import Pace


class BridgeError(Exception):
    """Base of everything the bridge raises on purpose."""

    pace = Pace.UNREACHABLE
    """How soon what failed may be tried again, where that is the answer to the error."""
    retry_after: float | None = None
    """Seconds that the far end asked to wait at least."""


class ConfigError(BridgeError):
    """One or more settings or files are wrong. ``problems`` holds one sentence for each, with its place."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class OutboxInUse(ConfigError):
    """Another process has the store."""


class OutboxUnavailable(BridgeError):
    """The store couldn't take or give now: disk full, locked, unreadable."""


class OutboxDamaged(BridgeError):
    """The store's file is no database any more, or another file stands in its place."""


class MqttUnavailable(BridgeError):
    """The broker can't be reached or refused the connection."""


class GdnError(BridgeError):
    """A request to GDN did not succeed."""


class GdnUnavailable(GdnError):
    """GDN can't be reached, is overloaded or answered nonsense."""

    def __init__(self, message: str, *, pace: Pace = Pace.UNREACHABLE, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.pace = pace
        self.retry_after = retry_after


class GdnAuthError(GdnError):
    """GDN refused the credentials or the right (401, 403)."""

    pace = Pace.CREDENTIALS


class GdnRejected(GdnError):
    """GDN refused the request itself. ``status``: its HTTP status."""

    pace = Pace.REFUSED

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class RemoteProtocolError(BridgeError):
    """The peer sent what its protocol doesn't allow."""


class LocalProtocolError(BridgeError):
    """The bridge was about to break a protocol. Always a bug."""
