"""The errors of the bridge, one class for each way to react.

    BridgeError
    ├── ConfigError           exit 78: a setting or a file must be changed
    │   └── SettingError      the same; the caller adds where the setting's value comes from
    │       └── OutboxInUse   a command asks the running bridge instead
    ├── OutboxUnavailable     hold: nothing is acknowledged until the outbox can be written
    ├── OutboxDamaged         opening it again rescues it: the daemon does so at its start, later it exits first
    ├── MqttUnavailable       dial again
    ├── GdnError
    │   ├── GdnUnavailable    dial or request again, not before retry_after
    │   ├── GdnAuthError      not ready; request again, slowly: the key may be fixed
    │   └── GdnRejected       GDN refused the request; request again, slowly: only a person can fix it
    ├── RemoteProtocolError   the peer broke its protocol: reconnect
    └── LocalProtocolError    the bridge would break it: a bug, the daemon exits

Each error's ``pace`` sets the back-off before the next attempt (table in ``timing.py``).

A message that can't be mapped isn't an error but a ``DeadLetter`` (``message.py``).
"""

from __future__ import annotations

from bridge.timing import Pace


class BridgeError(Exception):
    """Base class of all errors that the bridge raises on purpose."""

    pace = Pace.UNREACHABLE
    """The back-off before the next attempt, where the reaction is to try again."""
    retry_after: float | None = None
    """Minimum seconds to wait, as the far end asked."""


class ConfigError(BridgeError):
    """One or more settings or files are wrong. ``problems`` has one sentence for each, which says where it is."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SettingError(ConfigError):
    """The value of a setting can't be used. The code that loaded the settings knows where the value comes from.

    Args:
        setting: its dotted name.
        problem: one sentence.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem


class OutboxInUse(SettingError):
    """Another process has opened the outbox."""


class OutboxUnavailable(BridgeError):
    """The outbox can't be written or read at present: the disk is full, the file is locked or unreadable."""


class OutboxDamaged(BridgeError):
    """The outbox file is corrupt, or another file has replaced it."""


class MqttUnavailable(BridgeError):
    """The broker can't be reached or refused the connection."""


class GdnError(BridgeError):
    """A request to GDN failed.

    Args:
        message: for people.
        status: HTTP status of the answer; None: there was no answer, or the error isn't about its status.
        error_number: GDN's own (``gdn/answers.py``, ``ErrorNumber``); None: the answer has none.
    """

    def __init__(self, message: str, *, status: int | None = None, error_number: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error_number = error_number


class GdnUnavailable(GdnError):
    """GDN can't be reached, is overloaded or sent an invalid answer."""

    def __init__(
        self,
        message: str,
        *,
        pace: Pace = Pace.UNREACHABLE,
        retry_after: float | None = None,
        status: int | None = None,
        error_number: int | None = None,
    ) -> None:
        super().__init__(message, status=status, error_number=error_number)
        self.pace = pace
        self.retry_after = retry_after


class GdnAuthError(GdnError):
    """GDN refused the credentials, or they lack a right (401, 403)."""

    pace = Pace.CREDENTIALS


class GdnRejected(GdnError):
    """GDN refused the request itself."""

    pace = Pace.REFUSED

    def __init__(self, message: str, *, status: int, error_number: int | None = None) -> None:
        super().__init__(message, status=status, error_number=error_number)


class RemoteProtocolError(BridgeError):
    """The peer violated its protocol."""


class LocalProtocolError(BridgeError):
    """The bridge was about to violate a protocol. Always a bug."""


def fault(exc: Exception) -> str:
    """An unexpected exception as a sentence: its type and place, without its text, which may repeat a secret."""
    at = exc.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = "" if at is None else f" ({at.tb_frame.f_code.co_filename}:{at.tb_lineno})"
    return f"a fault of gdn-bridge, please report it: {type(exc).__name__}{where}"
