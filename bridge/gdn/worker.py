"""Keeping the stream worker in place: what is wanted, against what GDN has.

A definition that differs is reported and left alone: replacing it under other users of the worker is a
person's decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.errors import GdnRejected, GdnUnavailable

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from bridge.gdn.rest import GdnRest, WorkerState
    from bridge.streamql.syntax import Worker


@dataclass(frozen=True, slots=True)
class Ensured:
    """The worker exists and is active."""

    activated: bool
    """It became active during the call, by us or a twin: what is sent before it has settled is lost to it."""
    created: bool
    """This call created it."""
    differs: bool
    """GDN's definition isn't ours (outer white space aside), and was left as it is."""


def ensure_worker(
    rest: GdnRest,
    *,
    worker: Worker,
    regions: Sequence[str],
    before_activation: Callable[[], object],
    log: FilteringBoundLogger,
) -> Ensured:
    """Create the worker if it is missing, activate it if it isn't active, and see that it is.

    May be called again after any error or crash: each step looks first. Waiting for the worker to settle is the
    caller's, also when a call fails or the process ends after ``before_activation``: it may have been activated.

    Args:
        rest: GDN.
        worker: its definition.
        regions: where it shall run; none: in the region that answers.
        before_activation: called when the worker was found not active, before anything is changed.
        log: the caller's.

    Raises:
        GdnUnavailable, GdnAuthError, GdnRejected: as GDN answered; GdnUnavailable too when the worker won't
            stay active.
    """
    found = rest.get_worker(worker.name)
    if found is None or not found.is_active:
        before_activation()
    state, created = (found, False) if found is not None else _create(rest, worker=worker, regions=regions)
    if created:
        log.info("worker.created", worker=worker.name, regions=state.regions)
    differs = is_other(state, worker)
    if differs:
        log.warning(
            "worker.differs",
            worker=worker.name,
            hint="GDN runs another definition than the worker file holds; it was left as it is",
        )
    if not state.is_active:
        _activate(rest, worker.name)
        log.info("worker.activated", worker=worker.name)
    return Ensured(activated=found is None or not found.is_active, created=created, differs=differs)


def is_other(state: WorkerState, worker: Worker) -> bool:
    """Whether GDN's definition isn't ours; outer white space doesn't count."""
    return state.definition.strip() != worker.text.strip()


def _create(rest: GdnRest, *, worker: Worker, regions: Sequence[str]) -> tuple[WorkerState, bool]:
    """The worker that is there afterwards, and whether it is of our making."""
    try:
        return rest.create_worker(worker.text, regions), True
    except GdnRejected as refused:
        if refused.status != 409:
            raise
    # Another bridge was quicker: look again.
    state = rest.get_worker(worker.name)
    if state is None:
        raise GdnUnavailable(
            f"stream worker {worker.name}: GDN says it exists and doesn't show it. It may belong to another user "
            "(gdn-api.md B): give it another @App:name, or use a key of that user"
        )
    return state, False


def _activate(rest: GdnRest, name: str) -> None:
    try:
        rest.set_active(name, True)
    except GdnUnavailable:
        # The answer may be what was lost, not the request: activating takes GDN seconds.
        state = rest.get_worker(name)
        if state is None or not state.is_active:
            raise
        return
    state = rest.get_worker(name)
    if state is None or not state.is_active:
        raise GdnUnavailable(
            f"stream worker {name}: activated, but GDN shows it as {'missing' if state is None else 'inactive'}. "
            "GDN switches off workers beyond the plan's limits: see how many are published"
        )
