"""The outbox on a real SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigError, OutboxUnavailable
from bridge.message import DeadLetter, OutboxRecord, Row
from bridge.outbox import Outbox, Refused, _runs

pytestmark = pytest.mark.integration


@pytest.fixture
def open_outbox(tmp_path: Path) -> Iterator[Callable[[], Outbox]]:
    opened: list[Outbox] = []

    def opener() -> Outbox:
        for earlier in opened:
            earlier.close()
        outbox = Outbox(tmp_path / "data" / "outbox.db")
        outbox.open()
        opened.append(outbox)
        return outbox

    yield opener
    for outbox in opened:
        outbox.close()


def letter(reason: str = "not_json") -> DeadLetter:
    return DeadLetter("a/b", b"\xff{", 1, 123, "a/{x}", reason, "the payload is no JSON")


def rows(*numbers: int, stream: str = "s") -> list[Row]:
    return [Row(stream, b"%d" % n) for n in numbers]


def test_what_was_committed_is_there_after_a_restart(open_outbox: Callable[[], Outbox]) -> None:
    records = open_outbox().commit(rows=rows(1, 2, 3), dead_letters=[letter()])

    again = open_outbox()
    assert again.read("s", after=0, limit=10) == records
    assert again.books().received == 4
    assert again.books().dead_lettered == {"not_json": 1}
    assert again.books().balanced


def test_released_records_are_delivered_and_gone(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    ids = [r.id for r in outbox.commit(rows=rows(1, 2, 3, 4))]

    outbox.commit(released=[ids[3], ids[0], ids[1]])

    again = open_outbox()
    assert [r.id for r in again.read("s", after=0, limit=10)] == [ids[2]]
    assert (again.books().delivered, again.books().outbox, again.books().balanced) == (3, 1, True)


def test_releasing_what_is_gone_already_counts_once(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    (record,) = outbox.commit(rows=rows(1))
    outbox.commit(released=[record.id])

    outbox.commit(released=[record.id])

    assert outbox.books().delivered == 1
    assert outbox.books().balanced


def test_ids_are_never_used_again_even_when_everything_was_released(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    ids = [r.id for r in outbox.commit(rows=rows(1, 2))]
    outbox.commit(released=ids)

    (record,) = open_outbox().commit(rows=rows(3))

    assert record.id > max(ids)


def test_a_refused_record_becomes_a_dead_letter_and_the_books_balance(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    (record,) = outbox.commit(rows=rows(1))

    outbox.commit(refused=[Refused(record.id, letter("refused_by_gdn"))])

    assert outbox.read("s", after=0, limit=1) == []
    assert outbox.books().dead_lettered == {"refused_by_gdn": 1}
    assert outbox.books().balanced


def test_streams_are_read_apart_and_in_order(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    outbox.commit(rows=rows(1, stream="a") + rows(2, stream="b") + rows(3, 4, stream="a"))

    assert [r.payload for r in outbox.read("a", after=0, limit=10)] == [b"1", b"3", b"4"]
    assert [r.payload for r in outbox.read("a", after=1, limit=1)] == [b"3"]
    assert sorted(outbox.streams()) == ["a", "b"]


def test_a_failed_commit_stores_nothing_and_counts_nothing(open_outbox: Callable[[], Outbox], tmp_path: Path) -> None:
    outbox = open_outbox()
    outbox.commit(rows=rows(1))
    before = outbox.books()
    blocker = sqlite3.connect(tmp_path / "data" / "outbox.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    outbox._db.execute("PRAGMA busy_timeout = 10")  # type: ignore[union-attr]

    with pytest.raises(OutboxUnavailable):
        outbox.commit(rows=rows(2), dead_letters=[letter()])

    blocker.execute("ROLLBACK")
    blocker.close()
    assert outbox.books() == before
    assert [r.payload for r in outbox.commit(rows=rows(3))] == [b"3"]
    assert outbox.books().balanced


def test_the_file_is_its_owners_alone(open_outbox: Callable[[], Outbox], tmp_path: Path) -> None:
    open_outbox().commit(rows=rows(1))

    assert {f.stat().st_mode & 0o777 for f in (tmp_path / "data").iterdir()} == {0o600}


def test_a_second_bridge_on_the_same_outbox_is_refused_by_name(
    open_outbox: Callable[[], Outbox], tmp_path: Path
) -> None:
    open_outbox()

    with pytest.raises(ConfigError, match=r"BRIDGE_OUTBOX__PATH.*another bridge"):
        Outbox(tmp_path / "data" / "outbox.db").open()


def test_an_outbox_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    outbox = Outbox(path)

    with pytest.raises(ConfigError, match="newer gdn-bridge"):
        outbox.open()
    outbox.close()


def test_an_impossible_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="BRIDGE_OUTBOX__PATH"):
        Outbox(tmp_path / "file" / "outbox.db").open()


@given(st.sets(st.integers(1, 60)))
def test_runs_cover_exactly_the_ids(ids: set[int]) -> None:
    covered = [n for first, last in _runs(list(ids)) for n in range(first, last + 1)]

    assert covered == sorted(ids)


def test_records_keep_their_bytes(open_outbox: Callable[[], Outbox]) -> None:
    payload = bytes(range(256))
    open_outbox().commit(rows=[Row("s", payload)])

    assert open_outbox().read("s", after=0, limit=1) == [OutboxRecord(1, "s", payload)]
