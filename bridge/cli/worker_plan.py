"""``worker plan``, ``apply`` and ``validate``: what the worker in GDN has become, and making it what the file says."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.cli import exits
from bridge.cli.configuration import far_end
from bridge.errors import GdnRejected, GdnUnavailable
from bridge.gdn.drift import column_changes, losses, text_changes
from bridge.gdn.rest import GdnRest, WorkerState
from bridge.gdn.worker import ensure_worker, runs_elsewhere
from bridge.log import get_logger
from bridge.service.reload import Configuration
from bridge.text import printable
from bridge.timing import Pace

ROUNDS = 6
"""Of applying, where someone else switches the worker off meanwhile: another one that applies does, for seconds."""

PAUSE = 3.0
"""Seconds between them."""

UNREADABLE = 422

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Changes:
    """What ``apply`` would change and why."""

    state: WorkerState | None
    diff: list[str]
    """The definition's, line by line."""
    columns: list[str]
    regions: tuple[str, ...] | None
    """The wanted ones, where the worker runs in others."""
    broken: list[dict[str, str]]
    """Routes whose rows are lost to the worker as it is: topic, stream and why."""

    @property
    def steps(self) -> list[str]:
        """What ``apply`` would do, in order; empty if nothing."""
        if self.state is None:
            return ["create", "activate"]
        if self.diff or self.regions is not None:
            return [*(["deactivate"] if self.state.is_active else []), "replace", "activate"]
        return [] if self.state.is_active else ["activate"]


def find_changes(configuration: Configuration, state: WorkerState | None) -> Changes:
    """What of the worker in GDN isn't as the settings and the file want it."""
    wanted = configuration.settings.worker
    if state is None:
        return Changes(None, [], [], None, [])
    used = list(dict.fromkeys(route.stream for route in configuration.routes))
    lost = losses(state, configuration.streams, used)
    diff = text_changes(state, configuration.worker, ours=str(wanted.definition))
    return Changes(
        state=state,
        diff=diff,
        columns=column_changes(state, configuration.streams) if diff else [],
        regions=tuple(wanted.regions) if runs_elsewhere(state, wanted.regions) else None,
        broken=[
            {"topic": route.topic, "stream": route.stream, "why": lost[route.stream]}
            for route in configuration.routes
            if route.stream in lost
        ],
    )


def show_plan(arguments: argparse.Namespace) -> int:
    """``worker plan``: changes nothing. Exit code 0: nothing to do; 2: there is."""
    configuration, rest = far_end(arguments)
    changes = find_changes(configuration, rest.get_worker(configuration.worker.name))
    print(json.dumps(_as_json(configuration, changes)) if arguments.json else "\n".join(_lines(configuration, changes)))
    return exits.CHANGES if changes.steps else 0


def apply(arguments: argparse.Namespace) -> int:
    """``worker apply``: returns once rows may be sent."""
    configuration, rest = far_end(arguments)
    name, settle = configuration.worker.name, configuration.settings.worker.settle_time
    steps = find_changes(configuration, rest.get_worker(name)).steps
    if steps and make_as_wanted(configuration, rest):
        if not arguments.json:
            print(f"worker {name}: {', '.join(steps)}: done; waiting {settle:g} s until it reads", flush=True)
        time.sleep(settle)
    print(json.dumps({"worker": name, "steps": steps}) if arguments.json else f"worker {name}: as wanted")
    return 0


def make_as_wanted(
    configuration: Configuration, rest: GdnRest, *, pause: Callable[[float], object] = time.sleep
) -> bool:
    """Make the worker what the file says, also while another does the same.

    Returns:
        Whether anything was changed: then the worker has to settle.

    Raises:
        GdnError: as ``ensure_worker`` does.
    """
    begun: list[bool] = []
    left = ROUNDS
    while True:
        left -= 1
        try:
            ensure_worker(
                rest,
                worker=configuration.worker,
                regions=configuration.settings.worker.regions,
                before_activation=lambda: begun.append(True),
                log=log,
                replace=True,
            )
            return bool(begun)
        except GdnUnavailable as exc:
            if exc.pace is not Pace.SWITCHED_OFF or not left:
                raise
        pause(PAUSE)


def validate(arguments: argparse.Namespace) -> int:
    """``worker validate``: whether GDN can parse the definition; nothing is changed there."""
    configuration, rest = far_end(arguments)
    error = None
    try:
        rest.validate(configuration.worker.text)
    except GdnRejected as exc:
        if exc.status != UNREADABLE:
            raise
        error = str(exc)
    if arguments.json:
        print(json.dumps({"worker": configuration.worker.name, "valid": error is None, "error": error}))
    else:
        place = configuration.settings.worker.definition
        print(f"{place}: GDN can read it" if error is None else f"{place}: GDN can't read it: {error}")
    return 0 if error is None else exits.FAILED


def _as_json(configuration: Configuration, changes: Changes) -> dict[str, Any]:
    state = changes.state
    return {
        "worker": configuration.worker.name,
        "exists": state is not None,
        "active": state is not None and state.is_active,
        "definition": "missing" if state is None else "differs" if changes.diff else "same",
        "diff": changes.diff,
        "columns": changes.columns,
        "regions": {
            "found": [] if state is None else list(state.regions),
            "wanted": list(configuration.settings.worker.regions),
            "differ": changes.regions is not None,
        },
        "broken_routes": changes.broken,
        "steps": changes.steps,
    }


def _lines(configuration: Configuration, changes: Changes) -> Sequence[str]:
    name, state = configuration.worker.name, changes.state
    if not changes.steps:
        return [f"worker {name}: nothing to do"]
    lines = [f"worker {name}:"]
    if state is None:
        lines.append("  missing")
    else:
        if changes.diff:
            lines += ["  its definition differs:", *(f"    {printable(line)}" for line in changes.diff)]
        lines += [f"  {change}" for change in changes.columns]
        if changes.regions is not None:
            lines.append(f"  it runs in {printable(', '.join(state.regions))}; wanted: {', '.join(changes.regions)}")
        if not state.is_active:
            lines.append("  it is not active")
        lines += [f"  route {broken['topic']} is broken: {broken['why']}" for broken in changes.broken]
    lines.append(
        f"to do: {', '.join(changes.steps)}; then {configuration.settings.worker.settle_time:g} s until it reads"
    )
    return lines
