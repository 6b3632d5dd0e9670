"""The verb ``worker``: shows, plans, applies, validates or deletes the stream worker in GDN."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from bridge.cli import exits
from bridge.cli.configuration import configuration_for_gdn
from bridge.errors import GdnRejected, GdnUnavailable
from bridge.gdn.drift import column_changes, losses, text_changes
from bridge.gdn.rest import GdnRest, WorkerState
from bridge.gdn.worker import ensure_worker, is_other, runs_elsewhere
from bridge.log import get_logger
from bridge.service.reload import Configuration
from bridge.text import printable
from bridge.timing import Pace

ATTEMPTS = 6
"""Attempts to apply while another process deactivates the worker: another ``worker apply`` does so for some seconds."""

PAUSE = 3.0
"""Seconds between attempts."""

log = get_logger(__name__)


def worker(arguments: argparse.Namespace) -> int:
    """Run the action that the arguments name."""
    return _ACTIONS[arguments.action](arguments)


# --- status and delete ----------------------------------------------------------------------------------------


def show_status(arguments: argparse.Namespace) -> int:
    """``worker status``: print the worker's state in GDN."""
    configuration, rest = configuration_for_gdn(arguments)
    name = configuration.worker.name
    state = rest.get_worker(name)
    found = {
        "worker": name,
        "exists": state is not None,
        "active": state is not None and state.is_active,
        "regions": [] if state is None else list(state.regions),
        "definition": "missing" if state is None else "differs" if is_other(state, configuration.worker) else "same",
    }
    if arguments.json:
        print(json.dumps(found))
    elif state is None:
        print(f"worker {name}: doesn't exist; the bridge creates it when it runs")
    else:
        active = "active" if state.is_active else "not active"
        same = "is the same as" if found["definition"] == "same" else "differs from"
        file = configuration.settings.worker.definition
        print(f"worker {name}: {active} in {', '.join(state.regions)}; its definition {same} {file}")
    return 0


def delete(arguments: argparse.Namespace) -> int:
    """``worker delete``: streams and collections are kept."""
    configuration, rest = configuration_for_gdn(arguments)
    name = configuration.worker.name
    deleted = rest.delete_worker(name)
    if arguments.json:
        print(json.dumps({"worker": name, "deleted": deleted}))
    else:
        outcome = "deleted; its streams and collections are kept" if deleted else "doesn't exist"
        print(f"worker {name}: {outcome}")
    return 0


# --- plan, apply and validate ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changes:
    """What ``apply`` would change, and why."""

    state: WorkerState | None
    diff: list[str]
    """Lines of the definitions' unified diff."""
    columns: list[str]
    regions: tuple[str, ...] | None
    """The wanted regions, if the worker runs in others."""
    broken: list[dict[str, str]]
    """Routes whose rows the current worker would drop: topic, stream and why."""

    @property
    def steps(self) -> list[str]:
        """What ``apply`` would do, in order; empty if nothing."""
        if self.state is None:
            return ["create", "activate"]
        if self.diff or self.regions is not None:
            return [*(["deactivate"] if self.state.is_active else []), "replace", "activate"]
        return [] if self.state.is_active else ["activate"]


def find_changes(configuration: Configuration, state: WorkerState | None) -> Changes:
    """How the worker in GDN differs from the settings and the file."""
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
    """``worker plan``: print what ``apply`` would do. Exit code 0: nothing; 2: something."""
    configuration, rest = configuration_for_gdn(arguments)
    changes = find_changes(configuration, rest.get_worker(configuration.worker.name))
    print(json.dumps(_as_json(configuration, changes)) if arguments.json else "\n".join(_lines(configuration, changes)))
    return exits.CHANGES if changes.steps else 0


def apply(arguments: argparse.Namespace) -> int:
    """``worker apply``: make the worker match the file; returns once rows can be sent."""
    configuration, rest = configuration_for_gdn(arguments)
    name, settle = configuration.worker.name, configuration.settings.worker.settle_time
    steps = find_changes(configuration, rest.get_worker(name)).steps
    if steps and apply_definition(configuration, rest):
        if not arguments.json:
            print(
                f"worker {name}: {', '.join(steps)}: done; waiting {settle:g} s until it reads its streams", flush=True
            )
        time.sleep(settle)
    print(json.dumps({"worker": name, "steps": steps}) if arguments.json else f"worker {name}: up to date")
    return 0


def apply_definition(
    configuration: Configuration, rest: GdnRest, *, pause: Callable[[float], object] = time.sleep
) -> bool:
    """Make the worker match the file, even if another process does so at the same time.

    Returns:
        Whether anything was changed; then the worker has to settle.

    Raises:
        GdnError: as ``ensure_worker`` does.
    """
    activations: list[bool] = []
    left = ATTEMPTS
    while True:
        left -= 1
        try:
            ensure_worker(
                rest,
                worker=configuration.worker,
                regions=configuration.settings.worker.regions,
                before_activation=lambda: activations.append(True),
                log=log,
                replace=True,
            )
            return bool(activations)
        except GdnUnavailable as exc:
            if exc.pace is not Pace.SWITCHED_OFF or not left:
                raise
        pause(PAUSE)


def validate(arguments: argparse.Namespace) -> int:
    """``worker validate``: check that GDN can read the definition, without changing anything."""
    configuration, rest = configuration_for_gdn(arguments)
    error = None
    try:
        rest.validate(configuration.worker.text)
    except GdnRejected as exc:
        if exc.status != HTTPStatus.UNPROCESSABLE_ENTITY:
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
        return [f"worker {name}: up to date, nothing to do"]
    lines = [f"worker {name}:"]
    if state is None:
        lines.append("  it doesn't exist")
    else:
        if changes.diff:
            lines += ["  its definition differs:", *(f"    {printable(line)}" for line in changes.diff)]
        lines += [f"  {change}" for change in changes.columns]
        if changes.regions is not None:
            lines.append(f"  it runs in {printable(', '.join(state.regions))}; wanted: {', '.join(changes.regions)}")
        if not state.is_active:
            lines.append("  it is not active")
        lines += [f"  route {broken['topic']} is broken: {broken['why']}" for broken in changes.broken]
    settle = configuration.settings.worker.settle_time
    lines.append(f"to do: {', '.join(changes.steps)}; then {settle:g} s until it reads its streams")
    return lines


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "status": show_status,
    "plan": show_plan,
    "apply": apply,
    "validate": validate,
    "delete": delete,
}
