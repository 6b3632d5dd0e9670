"""Signals that end or reload the command are blocked while it starts, until it has decided what they do.

Importing the command's modules takes up to a second. Imports only the built-in ``_signal``: ``signal`` itself takes a
tenth of the time that is to be covered.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed describes only `signal`

DEFERRED = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


def block() -> None:
    """Let these signals wait. The calling thread's later threads and children inherit this."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, DEFERRED)


def unblock() -> None:
    """Deliver these signals, first those that have waited."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, DEFERRED)
