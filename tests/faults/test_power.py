"""Power losses: the model of the disk, a short run of each case, and daemons with one fault each."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.outbox import Outbox
from tests.faults import power
from tests.faults.power import (
    CASES,
    OLD,
    OLD_IN_FILE,
    Lab,
    Recording,
    check_complete,
    judge,
    make_damaged,
    number_of,
    reading,
    rebuild,
    record,
    report,
)
from tests.faults.power_disk import SECTOR, WRITE, Disk, Event, Incomplete, Survival, digest

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SEED = 1
POINTS = 26
"""For each case: over 200 in all."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    places = f"{os.environ['PATH']}:/usr/sbin"
    missing = [program for program in ("cc", "mosquitto") if not shutil.which(program, path=places)]
    if missing:
        if os.environ.get("CI"):
            pytest.fail(f"not installed, and in CI it must be: {missing}")
        pytest.skip(f"not installed: {missing}")
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.end()


@pytest.fixture(scope="module")
def first_start(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A recording that several tests use."""
    return record("first_start", lab, tmp_path_factory.mktemp("recorded"))


# --- the model of the disk ----------------------------------------------------------------------------------------

ROOT, FILE, OTHER, FOLDER = 1, 2, 3, 4
"""Inodes."""


class Script:
    """A disk and the actions on it."""

    def __init__(self) -> None:
        self.disk = Disk("/r", {"": ROOT}, {})
        self._token = 0

    def do(self, kind: str, number: int = 0, a: int = 0, data: bytes = b"") -> None:
        self.disk.apply(Event(kind, 0, number, a, 0, data))

    def sync(self, number: int) -> None:
        self._token += 1
        self.do("s", number, self._token)
        self.do("S", number, self._token)

    def outcomes(self, names: Survival = "any", data: Survival = "any") -> set[tuple[tuple[str, bytes | None], ...]]:
        """The trees that power losses with many seeds leave."""
        trees = [self.disk.after_crash(names, data, random.Random(seed)) for seed in range(400)]
        return {tuple(sorted(tree.items())) for tree in trees}


@pytest.fixture
def script() -> Script:
    """A disk with one empty file, which is safe."""
    script = Script()
    script.do("O", FILE, data=b"/r/file")
    script.sync(ROOT)
    return script


def test_a_write_is_safe_once_its_sync_is_done(script: Script) -> None:
    script.do("W", FILE, 0, b"a")

    assert script.outcomes() == {(("file", b""),), (("file", b"\0"),), (("file", b"a"),)}

    script.sync(FILE)

    assert script.outcomes() == {(("file", b"a"),)}


def test_a_write_during_a_sync_is_not_safe_after_it(script: Script) -> None:
    script.do("s", FILE, 1)
    script.do("W", FILE, 0, b"a")
    script.do("S", FILE, 1)

    assert (("file", b""),) in script.outcomes()


def test_a_write_may_be_torn_between_sectors_and_not_within_one(script: Script) -> None:
    script.do("T", FILE, 3 * SECTOR)
    script.sync(FILE)
    script.do("W", FILE, 0, b"a" * 3 * SECTOR)

    found = {tree[0][1] for tree in script.outcomes()}

    assert found == {b"".join(x * SECTOR for x in (p, q, r)) for p in _BYTES for q in _BYTES for r in _BYTES}


_BYTES = (b"a", b"\0")


def test_a_sector_never_holds_a_later_write_without_an_earlier_one(script: Script) -> None:
    script.do("T", FILE, SECTOR)
    script.sync(FILE)
    script.do("W", FILE, 0, b"a")
    script.do("W", FILE, 1, b"b")

    found = {tree[0][1][:2] for tree in script.outcomes() if tree[0][1]}

    assert found == {b"\0\0", b"a\0", b"ab"}


def test_data_written_after_a_truncation_is_lost_without_the_truncation(script: Script) -> None:
    script.do("W", FILE, 0, b"a" * 2 * SECTOR)
    script.sync(FILE)
    script.do("T", FILE, 0)
    script.do("W", FILE, SECTOR, b"b" * SECTOR)

    found = {tree[0][1] for tree in script.outcomes()}

    assert found == {b"a" * 2 * SECTOR, b"", bytes(2 * SECTOR), bytes(SECTOR) + b"b" * SECTOR}


def test_a_name_is_safe_once_its_directory_is_synced(script: Script) -> None:
    script.do("O", OTHER, data=b"/r/other")
    script.do("W", OTHER, 0, b"a")
    script.sync(OTHER)

    assert script.outcomes() == {(("file", b""),), (("file", b""), ("other", b"a"))}

    script.sync(ROOT)

    assert script.outcomes() == {(("file", b""), ("other", b"a"))}


def test_the_content_of_a_directory_is_lost_with_its_name(script: Script) -> None:
    script.do("M", FOLDER, data=b"/r/folder")
    script.do("O", OTHER, data=b"/r/folder/other")
    script.sync(OTHER)
    script.sync(FOLDER)

    assert (("file", b""),) in script.outcomes()


def test_renames_are_atomic_and_in_order_only_with_a_journal(script: Script) -> None:
    script.do("O", OTHER, data=b"/r/other")
    script.sync(ROOT)
    script.do("R", data=b"/r/file\0/r/kept")
    script.do("R", data=b"/r/other\0/r/file")

    in_order = {tuple(sorted(name for name, _ in tree)) for tree in script.outcomes("prefix")}
    any_order = {tuple(sorted(name for name, _ in tree)) for tree in script.outcomes("any")}

    assert in_order == {("file", "other"), ("kept", "other")}  # and the new size, once more writes are pending after it
    assert any_order == {("file", "other"), ("kept", "other"), ("file",), ("file", "kept")}


def test_a_call_that_the_model_does_not_support_is_an_error(script: Script) -> None:
    with pytest.raises(Incomplete):
        script.do("X", data=b"a shared mapping")
    with pytest.raises(Incomplete):
        script.do("W", 99, 0, b"a")


# --- the daemon ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_power_loss_loses_nothing_acknowledged(lab: Lab, tmp_path: Path, first_start: Recording, case: str) -> None:
    recording = first_start if case == "first_start" else record(case, lab, tmp_path)

    tally = judge(recording, seed=SEED, points=POINTS)

    print(report([tally]))
    assert not tally.violations, report([tally])
    assert tally.points == POINTS
    assert tally.opened > POINTS / 2
    if recording.was_damaged:
        assert OLD - OLD_IN_FILE < tally.saved < OLD
    else:
        assert tally.names.most_common(1)[0][1] > tally.states / 3


@pytest.mark.parametrize("fault", ["normal", "directory", "sqlite_directory", "early_ack"])
def test_a_daemon_with_a_fault_is_found(lab: Lab, tmp_path: Path, fault: str) -> None:
    recording = record("first_start", lab, tmp_path, fault)

    tally = judge(recording, seed=SEED, points=POINTS, enough=5)

    # The bridge itself detects what a missing sync of the log has torn, if a later transaction survived.
    signs = ("that were PUBACKed are lost", "counts as damaged")
    assert any(sign in violation for violation in tally.violations for sign in signs)


def test_the_same_seed_rebuilds_the_same_states_of_a_recording(first_start: Recording, tmp_path: Path) -> None:
    first_start.save(tmp_path)

    def states(seed: int) -> list[tuple[int, bytes]]:
        loaded = Recording.load(tmp_path)
        return [(state.point, digest(state.tree)) for state, _, _ in rebuild(loaded, seed=seed, points=40)]

    assert states(1) == states(1)
    assert states(1) != states(2)


def test_an_incomplete_recording_is_refused(first_start: Recording) -> None:
    last = max(n for n, event in enumerate(first_start.events) if event.kind == WRITE)
    events = first_start.events[:last] + first_start.events[last + 1 :]

    with pytest.raises(Incomplete, match="leads to other content"):
        check_complete(replace(first_start, events=events), Path(first_start.root))


# --- a rescue that is cut short ------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("renames", range(5))
def test_a_rescue_killed_between_its_renames_keeps_the_write_ahead_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """While another process reads the file, so that the write-ahead log is there."""
    path = tmp_path / "outbox.db"
    make_damaged(path, tmp_path)
    left = renames
    rename = Path.replace

    def replacing(self: Path, target: str | Path) -> Path:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        return rename(self, target)

    with reading(path), capture_logs():
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replacing)
            with contextlib.suppress(Killed):
                outbox = Outbox(path)
                outbox.open()
                outbox.close()
        again = Outbox(path)
        again.open()
        found = Counter(
            number_of(record.payload) for record in again.read(power.STREAM, after=0, limit=OLD, max_bytes=1 << 30)
        )
        again.close()

    assert set(found) >= {n for n in range(OLD_IN_FILE + 1, OLD + 1) if n % power.BAD_SHARE}
    assert again.books().balanced
