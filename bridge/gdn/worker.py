"""Makes the stream worker exist and run in GDN, and compares it with the definition.

A worker that differs is reported and left unchanged unless the caller says otherwise: others may use it, so replacing
it is an operator's decision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
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
    """It became active during the call, by this bridge or another: it doesn't read rows sent before it has settled."""
    created: bool
    """This call created it."""
    differs: bool
    """Its definition or regions in GDN aren't ours and were not changed."""
    replaced: bool = False
    """This call replaced definition and regions."""
    state: WorkerState | None = dataclasses.field(default=None, compare=False)
    """The worker in GDN now."""


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
    """Create the worker if it doesn't exist, activate it if it isn't active, and check that it is.

    With ``replace`` a worker that differs is deactivated, given the definition and activated again (gdn-api.md B).

    May be called again after any error or crash: each step checks first. The caller waits for the worker to settle,
    also if a call fails or the process ends after ``before_activation``: the worker may have been activated.

    Args:
        rest: GDN.
        worker: the definition.
        regions: where the worker should run; empty: in the region that answers.
        before_activation: called before any change if the worker isn't active or will be replaced.
        log: the caller's.
        replace: whether to replace a worker whose definition or regions differ.
        examine: called first, with the worker found; an exception from it ends the call.

    Raises:
        GdnUnavailable, GdnAuthError, GdnRejected: as GDN answered; GdnUnavailable also if the worker doesn't stay
            active.
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
            hint="GDN runs another definition than the worker file, or in other regions; it was not changed",
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
    """Whether GDN's definition isn't ours, or the worker runs in other regions than configured."""
    return is_other(state, worker) or runs_elsewhere(state, regions)


def is_other(state: WorkerState, worker: Worker) -> bool:
    """Whether GDN's definition isn't ours, ignoring white space at both ends."""
    return state.definition.strip() != worker.text.strip()


def runs_elsewhere(state: WorkerState, regions: Sequence[str]) -> bool:
    """Whether the worker runs in other regions than configured.

    No regions means GDN's choice, ``*`` means all: GDN returns names for both (gdn-api.md B).
    """
    return bool(regions) and "*" not in regions and set(regions) != set(state.regions)


def _create(rest: GdnRest, *, worker: Worker, regions: Sequence[str]) -> tuple[WorkerState, bool]:
    """The worker, and whether this call created it."""
    try:
        return rest.create_worker(worker.text, regions), True
    except GdnRejected as refused:
        if refused.status != HTTPStatus.CONFLICT:
            raise _naming_the_definition(refused) from refused
    # Another bridge has just created it.
    state = rest.get_worker(worker.name)
    if state is None:
        raise GdnUnavailable(
            f"stream worker {worker.name}: GDN says that it exists, but doesn't show it. It may belong to another user "
            "(gdn-api.md B): give it another @App:name, or use a key of that user"
        )
    return state, False


def _replace(rest: GdnRest, state: WorkerState, *, worker: Worker, regions: Sequence[str]) -> WorkerState:
    # GDN doesn't document what PUT does to an active worker (gdn-api.md B).
    if state.is_active:
        rest.set_active(worker.name, False)
    # Without configured regions it keeps its own: an empty list would mean the region that answers.
    try:
        return rest.update_worker(worker.name, worker.text, regions or state.regions)
    except GdnRejected as refused:
        raise _naming_the_definition(refused) from refused


def _naming_the_definition(refused: GdnRejected) -> GdnRejected:
    """The error, with what to do if GDN can't parse the definition."""
    if refused.status != HTTPStatus.UNPROCESSABLE_ENTITY:
        return refused
    advice = "Correct the file of worker.definition; `gdn-bridge check --online` has GDN parse it again"
    return GdnRejected(f"{refused}. {advice}", status=refused.status, error_number=refused.error_number)


def _activate(rest: GdnRest, name: str) -> None:
    try:
        rest.set_active(name, True)
    except GdnUnavailable:
        # Perhaps only the answer was lost: activating takes GDN seconds.
        state = rest.get_worker(name)
        if state is None or not state.is_active:
            raise
        return
    state = rest.get_worker(name)
    if state is None or not state.is_active:
        raise GdnUnavailable(
            f"stream worker {name}: activated, but GDN shows it as {'missing' if state is None else 'inactive'}. "
            "GDN deactivates workers above the plan's limit: check how many are active",
            pace=Pace.SWITCHED_OFF,
        )
