from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridge.errors import GdnRejected, GdnUnavailable
from bridge.gdn.rest import WorkerState
from bridge.gdn.worker import Ensured, ensure_worker
from bridge.streamql import parse

WORKER = parse(Path("config/worker.sql").read_text())


class Far:
    """GDN with one worker. ``fail`` names a call that fails next, before or after it took effect."""

    def __init__(self, definition: str | None = None, *, active: bool = False) -> None:
        self.definition = definition
        self.active = active
        self.calls: list[str] = []
        self.fail: dict[str, str] = {}
        self.refuses: int | None = None  # every definition, with this status
        self.twin = False
        self.twin_activates = False
        self.stays_inactive = False

    def _call(self, name: str) -> str | None:
        self.calls.append(name)
        failure = self.fail.pop(name, None)
        if failure == "before":
            raise GdnUnavailable(f"{name} failed")
        return failure

    def get_worker(self, name: str) -> WorkerState | None:
        self._call("get")
        return None if self.definition is None else WorkerState(name, self.definition, ("here",), self.active)

    def create_worker(self, definition: str, regions: Sequence[str] = ()) -> WorkerState:
        failure = self._call("create")
        self._judge()
        if self.twin:
            self.definition = definition
            self.active = self.twin_activates
            raise GdnRejected("409", status=409)
        self.definition = definition
        if failure == "after":
            raise GdnUnavailable("the answer was lost")
        return WorkerState(WORKER.name, definition, ("here",), False)

    def update_worker(self, name: str, definition: str, regions: Sequence[str]) -> WorkerState:
        self._call("update")
        self._judge()
        self.definition = definition
        return WorkerState(name, definition, tuple(regions), self.active)

    def _judge(self) -> None:
        if self.refuses is not None:
            raise GdnRejected("GDN refused the request: Line 3", status=self.refuses, error_number=7)

    def set_active(self, name: str, active: bool) -> None:
        failure = self._call("activate")
        self.active = active and not self.stays_inactive
        if failure == "after":
            raise GdnUnavailable("the answer was lost")


def ensure(far: Far, *, replace: bool = False) -> Ensured:
    log: Any = structlog.get_logger()
    rest: Any = far
    with structlog.testing.capture_logs():
        return ensure_worker(
            rest,
            worker=WORKER,
            regions=[],
            before_activation=lambda: far.calls.append("before"),
            log=log,
            replace=replace,
        )


def test_a_missing_worker_is_created_activated_and_confirmed() -> None:
    far = Far()

    assert ensure(far) == Ensured(activated=True, created=True, differs=False)
    assert far.calls == ["get", "before", "create", "activate", "get"]


def test_an_active_worker_is_not_changed() -> None:
    far = Far(WORKER.text, active=True)

    assert ensure(far) == Ensured(activated=False, created=False, differs=False)
    assert far.calls == ["get"]


def test_an_inactive_worker_is_activated() -> None:
    assert ensure(Far(WORKER.text)) == Ensured(activated=True, created=False, differs=False)


def test_a_worker_that_differs_is_reported_and_not_overwritten() -> None:
    far = Far("something else", active=True)

    assert ensure(far).differs
    assert far.definition == "something else"


def test_another_bridge_that_creates_the_worker_first_is_no_error() -> None:
    far = Far()
    far.twin = True

    assert ensure(far) == Ensured(activated=True, created=False, differs=False)


def test_a_worker_that_another_bridge_activates_first_still_counts_as_activated() -> None:
    far = Far()
    far.twin = far.twin_activates = True

    assert ensure(far).activated
    assert far.calls == ["get", "before", "create", "get"]


@pytest.mark.parametrize("step", ["get", "create", "activate"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_failure_at_any_step_is_fixed_by_calling_again(step: str, moment: str) -> None:
    far = Far()
    far.fail[step] = moment
    try:
        ensure(far)
    except GdnUnavailable:
        ensure(far)

    assert (far.definition, far.active) == (WORKER.text, True)


def test_a_worker_that_does_not_stay_active_is_an_error() -> None:
    far = Far(WORKER.text)
    far.stays_inactive = True

    with pytest.raises(GdnUnavailable, match="inactive"):
        ensure(far)


@pytest.mark.parametrize("far", [Far(), Far("something else")], ids=["create", "replace"])
def test_a_definition_that_gdn_cannot_parse_is_refused_with_the_setting_that_names_its_file(far: Far) -> None:
    far.refuses = 422
    with pytest.raises(GdnRejected, match=r"Line 3\. Correct the file of worker\.definition") as refused:
        ensure(far, replace=True)
    assert (refused.value.status, refused.value.error_number) == (422, 7)

    far.refuses = 400
    with pytest.raises(GdnRejected) as other:
        ensure(far, replace=True)
    assert "worker.definition" not in str(other.value)
