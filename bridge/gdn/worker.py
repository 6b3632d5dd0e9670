"""Keeping the stream worker in place: what is wanted, against what GDN has.

A worker that differs is reported and left alone unless the caller says otherwise: replacing it under its other users
is a person's decision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.errors import GdnRejected, GdnUnavailable
from bridge.timing import Pace

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
    """Its definition or regions in GDN aren't ours, and were left as they are."""
    replaced: bool = False
    """This call replaced definition and regions."""
    state: WorkerState | None = dataclasses.field(default=None, compare=False)
    """The worker as GDN has it now."""


def ensure_worker(
    rest: GdnRest,
    *,
    worker: Worker,
    regions: Sequence[str],
    before_activation: Callable[[], object],
    log: FilteringBoundLogger,
    replace: bool = False,
    examine: Callable[[WorkerState | None], object] = lambda _state: None,
) -> Ensured:
    """Create the worker if it is missing, activate it if it isn't active, and see that it is.

    One that differs is replaced if that is wanted: deactivated, given the definition, activated (gdn-api.md B).

    May be called again after any error or crash: each step looks first. Waiting for the worker to settle is the
    caller's, also when a call fails or the process ends after ``before_activation``: it may have been activated.

    Args:
        rest: GDN.
        worker: its definition.
        regions: where it shall run; none: in the region that answers.
        before_activation: called before anything is changed, if the worker isn't active or is going to be replaced.
        log: the caller's.
        replace: whether to replace one whose definition or regions differ.
        examine: called with what was found, before anything else; what it raises ends the call.

    Raises:
        GdnUnavailable, GdnAuthError, GdnRejected: as GDN answered; GdnUnavailable too when the worker won't
            stay active.
    """
    found = rest.get_worker(worker.name)
    examine(found)
    if found is None or not found.is_active or (replace and differs(found, worker, regions)):
        before_activation()
    state, created = (found, False) if found is not None else _create(rest, worker=worker, regions=regions)
    if created:
        log.info("worker.created", worker=worker.name, regions=state.regions)
    is_different = differs(state, worker, regions)
    replaced = is_different and replace
    if replaced:
        state = _replace(rest, state, worker=worker, regions=regions)
        log.info("worker.replaced", worker=worker.name, regions=state.regions)
    elif is_different:
        log.warning(
            "worker.differs",
            worker=worker.name,
            hint="GDN runs another definition than the worker file holds, or in other regions; it was left as it is",
        )
    if not state.is_active:
        _activate(rest, worker.name)
        log.info("worker.activated", worker=worker.name)
    return Ensured(
        activated=found is None or not found.is_active or replaced,
        created=created,
        differs=is_different and not replaced,
        replaced=replaced,
        state=dataclasses.replace(state, is_active=True),
    )


def differs(state: WorkerState, worker: Worker, regions: Sequence[str]) -> bool:
    """Whether GDN's definition isn't ours, or the worker runs in other regions than wanted."""
    return is_other(state, worker) or runs_elsewhere(state, regions)


def is_other(state: WorkerState, worker: Worker) -> bool:
    """Whether GDN's definition isn't ours; outer white space doesn't count."""
    return state.definition.strip() != worker.text.strip()


def runs_elsewhere(state: WorkerState, regions: Sequence[str]) -> bool:
    """Whether the worker runs in other regions than wanted.

    None wanted means those of GDN's choice, and ``*`` all: GDN gives back names for both (gdn-api.md B).
    """
    return bool(regions) and "*" not in regions and set(regions) != set(state.regions)


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


def _replace(rest: GdnRest, state: WorkerState, *, worker: Worker, regions: Sequence[str]) -> WorkerState:
    if state.is_active:
        rest.set_active(worker.name, False)
    # Where no regions are wanted those that it runs in stay: none would mean the one that answers.
    return rest.update_worker(worker.name, worker.text, regions or state.regions)


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
            "GDN switches off workers beyond the plan's limits: see how many are published",
            pace=Pace.SWITCHED_OFF,
        )
