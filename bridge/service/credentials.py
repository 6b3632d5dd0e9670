"""The current credentials: secrets may be rotated in their files while the bridge runs.

Read before each attempt to connect, from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.config import Settings
from bridge.errors import ConfigError, fault
from bridge.gdn.login import Account
from bridge.log import get_logger, keep_secret

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the bridge logs in with. An absent setting is None."""

    api_key: str | None = field(repr=False)
    mqtt_username: str | None
    mqtt_password: str | None = field(repr=False)
    account: Account | None = None
    """For GDN, instead of the API key."""

    @classmethod
    def of(cls, settings: Settings) -> Credentials:
        """The credentials in the settings."""
        gdn, key, password = settings.gdn, settings.gdn.api_key, settings.mqtt.password
        account = None
        if gdn.password is not None:
            account = Account(gdn.password.get_secret_value(), gdn.email, gdn.tenant, gdn.username)
        return cls(
            account=account,
            api_key=None if key is None else key.get_secret_value(),
            mqtt_username=settings.mqtt.username,
            mqtt_password=None if password is None else password.get_secret_value(),
        )


class CredentialSource:
    """Reads the credentials again for each use.

    Args:
        settings: those that the bridge was started with.
        reload: loads the settings again from the same sources; raises ConfigError.
    """

    def __init__(self, settings: Settings, reload: Callable[[], Settings]) -> None:
        self._reload = reload
        self._lock = threading.Lock()
        self._last = Credentials.of(settings)  # under _lock
        self._problem: str | None = None  # under _lock

    def now(self) -> Credentials:
        """The current credentials; the last good ones if they can't be read.

        A file that is being replaced may be missing or half written for a moment: each problem is logged once.
        """
        with self._lock:
            try:
                found = Credentials.of(self._reload())
            except Exception as exc:
                # Any error: credentials that can't be read must not end the thread that connects.
                if str(exc) != self._problem:
                    self._problem = str(exc)
                    problems = exc.problems if isinstance(exc, ConfigError) else [fault(exc)]
                    log.warning("credentials.unreadable", problems=problems, hint="the last good credentials are used")
                return self._last
            self._problem = None
            if found != self._last:
                account = None if found.account is None else found.account.password
                # Before they are used: from then on an error may quote them.
                for secret in (found.api_key, found.mqtt_password, account):
                    if secret is not None:
                        keep_secret(secret)
                self._last = found
                log.info("credentials.changed")
            return found
