"""The outbox on a real SQLite file."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, nullcontext, suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.errors import ConfigError, OutboxDamaged, OutboxUnavailable
from bridge.message import DeadLetter, OutboxRecord, Row, SeenMessages
from bridge.outbox import Bounds, Commit, Outbox, RefusedRecord, dead_letters, directories, rescue, schema
from bridge.outbox.records import OVERHEAD as RECORD_OVERHEAD
from bridge.outbox.records import _runs
from bridge.outbox.reserve import RESERVE_BYTES

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


def dead_letter(reason: str = "not_json") -> DeadLetter:
    return DeadLetter("a/b", b"\xff{", 1, 123, "a/{x}", reason, "the payload is no JSON")


def rows(*numbers: int, stream: str = "s") -> list[Row]:
    return [Row(stream, b"%d" % n) for n in numbers]


def test_committed_rows_and_dead_letters_survive_a_restart(open_outbox: Callable[[], Outbox]) -> None:
    records = open_outbox().commit(Commit(rows=rows(1, 2, 3), dead_letters=[dead_letter()]))

    again = open_outbox()
    assert again.read("s", after=0, limit=10, max_bytes=1000) == records
    assert again.books().received == 4
    assert again.books().dead_lettered == {"not_json": 1}
    assert again.books().balanced


def test_released_records_count_as_delivered_and_are_deleted(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    ids = [r.id for r in outbox.commit(Commit(rows=rows(1, 2, 3, 4)))]

    outbox.commit(Commit(released=[ids[3], ids[0], ids[1]]))

    again = open_outbox()
    assert [r.id for r in again.read("s", after=0, limit=10, max_bytes=1000)] == [ids[2]]
    assert (again.books().delivered, again.books().outbox, again.books().balanced) == (3, 1, True)


def test_releasing_a_record_twice_counts_once(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    (record,) = outbox.commit(Commit(rows=rows(1)))
    outbox.commit(Commit(released=[record.id]))

    outbox.commit(Commit(released=[record.id]))

    assert outbox.books().delivered == 1
    assert outbox.books().balanced


def test_ids_are_never_used_twice_even_after_everything_was_released(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    ids = [r.id for r in outbox.commit(Commit(rows=rows(1, 2)))]
    outbox.commit(Commit(released=ids))

    (record,) = open_outbox().commit(Commit(rows=rows(3)))

    assert record.id > max(ids)


def test_a_refused_record_becomes_a_dead_letter_and_the_books_balance(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    (record,) = outbox.commit(Commit(rows=rows(1)))

    outbox.commit(Commit(refused=[RefusedRecord(record.id, dead_letter("refused_by_gdn"))]))

    assert outbox.read("s", after=0, limit=1, max_bytes=1000) == []
    assert outbox.books().dead_lettered == {"refused_by_gdn": 1}
    assert outbox.books().balanced


def test_each_stream_is_read_separately_and_in_order(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    outbox.commit(Commit(rows=rows(1, stream="a") + rows(2, stream="b") + rows(3, 4, stream="a")))

    assert [r.payload for r in outbox.read("a", after=0, limit=10, max_bytes=1000)] == [b"1", b"3", b"4"]
    assert [r.payload for r in outbox.read("a", after=1, limit=1, max_bytes=1000)] == [b"3"]
    assert sorted(outbox.streams()) == ["a", "b"]


def test_a_failed_commit_stores_nothing_and_counts_nothing(open_outbox: Callable[[], Outbox], tmp_path: Path) -> None:
    outbox = open_outbox()
    outbox.commit(Commit(rows=rows(1)))
    before = outbox.books()
    blocker = sqlite3.connect(tmp_path / "data" / "outbox.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    outbox._db.execute("PRAGMA busy_timeout = 10")  # type: ignore[union-attr]

    with pytest.raises(OutboxUnavailable):
        outbox.commit(Commit(rows=rows(2), dead_letters=[dead_letter()]))

    blocker.execute("ROLLBACK")
    blocker.close()
    assert outbox.books() == before
    assert [r.payload for r in outbox.commit(Commit(rows=rows(3)))] == [b"3"]
    assert outbox.books().balanced


def test_only_the_owner_can_read_the_files(open_outbox: Callable[[], Outbox], tmp_path: Path) -> None:
    open_outbox().commit(Commit(rows=rows(1)))

    assert {f.stat().st_mode & 0o777 for f in (tmp_path / "data").iterdir()} == {0o600}


def test_a_second_bridge_on_the_same_outbox_gets_an_error_that_names_the_setting(
    open_outbox: Callable[[], Outbox], tmp_path: Path
) -> None:
    open_outbox()

    with pytest.raises(ConfigError, match=r"outbox\.path: .*another bridge"):
        Outbox(tmp_path / "data" / "outbox.db").open()


def test_an_outbox_of_a_newer_version_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    outbox = Outbox(path)

    with pytest.raises(ConfigError, match="newer gdn-bridge"):
        outbox.open()
    outbox.close()


def test_an_unusable_path_gives_an_error_that_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"outbox\.path: .* can't be opened"):
        Outbox(tmp_path / "file" / "outbox.db").open()


@given(st.sets(st.integers(1, 60)))
def test_runs_cover_exactly_the_given_ids(ids: set[int]) -> None:
    covered = [n for first, last in _runs(list(ids)) for n in range(first, last + 1)]

    assert covered == sorted(ids)


def test_records_keep_their_bytes(open_outbox: Callable[[], Outbox]) -> None:
    payload = bytes(range(256))
    open_outbox().commit(Commit(rows=[Row("s", payload)]))

    assert open_outbox().read("s", after=0, limit=1, max_bytes=1000) == [OutboxRecord(1, "s", payload)]


def test_extras_are_stored_and_count_in_the_size(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    plain, extended = outbox.commit(Commit(rows=[Row("s", b"{}"), Row("s", b"{}", b',"key":"\xc3\xa4"')]))
    assert extended.extras == b',"key":"\xc3\xa4"'
    outbox.number("s", [(1, extended.id)])
    bytes_before = outbox.bytes

    again = open_outbox()
    assert again.bytes == bytes_before == 2 * (2 + 1 + RECORD_OVERHEAD) + len(extended.extras)
    assert again.read("s", after=0, limit=9, max_bytes=99) == [plain]
    assert again.numbered("s") == ([(extended, 1)], 1)
    again.forget_numbers()
    assert again.read("s", after=0, limit=9, max_bytes=99) == [plain, extended]
    assert again.read("s", after=0, limit=9, max_bytes=1) == [plain]
    assert again.read("s", after=1, limit=9, max_bytes=1) == [extended]
    again.commit(Commit(released=[extended.id]))
    assert again.bytes == 2 + 1 + RECORD_OVERHEAD


def test_extras_count_in_the_byte_limit_of_a_read(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    outbox.commit(Commit(rows=[Row("s", b"{}", b"x" * 100)] * 5))

    assert len(outbox.read("s", after=0, limit=9, max_bytes=250)) == 3


def test_filtered_messages_are_counted(open_outbox: Callable[[], Outbox]) -> None:
    open_outbox().commit(Commit(rows=rows(1), filtered=3))

    books = open_outbox().books()
    assert (books.received, books.dropped, books.balanced) == (4, {"filtered": 3}, True)


# --- bounds --------------------------------------------------------------------------------------------


class Clock:
    """A clock that the test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bounded(tmp_path: Path) -> Iterator[Callable[..., Outbox]]:
    made: list[Outbox] = []

    def make(*, clock: Callable[[], float] = Clock(), **bounds: float) -> Outbox:  # noqa: B008 - shared on purpose, it doesn't move
        made.append(Outbox(tmp_path / "outbox.db", Bounds(**bounds), clock=clock, wall_clock=lambda: 5000.0))  # type: ignore[arg-type]
        made[-1].open()
        return made[-1]

    yield make
    for outbox in made:
        outbox.close()


def big(count: int, size: int = 1000, stream: str = "s") -> list[Row]:
    return [Row(stream, b"%04d" % n + b"x" * (size - 4)) for n in range(count)]


def test_an_outbox_at_its_bound_of_bytes_is_full_until_a_tenth_is_free(bounded: Callable[..., Outbox]) -> None:
    outbox = bounded(max_bytes=10_000)
    ids = [r.id for r in outbox.commit(Commit(rows=big(9)))]
    assert outbox.why_full(age=0) is None

    ids += [r.id for r in outbox.commit(Commit(rows=big(1)))]
    assert "outbox.max_bytes is 10000" in (outbox.why_full(age=0) or "")
    outbox.commit(Commit(released=ids[:1]))
    assert outbox.why_full(age=0) is None
    assert not outbox.has_room_again(age=0)
    outbox.commit(Commit(released=ids[1:2]))
    assert outbox.has_room_again(age=0)


def test_counted_bytes_are_at_least_the_bytes_on_disk(bounded: Callable[..., Outbox], tmp_path: Path) -> None:
    outbox = bounded(max_bytes=1 << 30)
    for _ in range(20):
        outbox.commit(Commit(rows=big(1000, size=60, stream="tutorialAppInputStream")))
    outbox.close()

    assert (tmp_path / "outbox.db").stat().st_size <= outbox.bytes


def test_counted_bytes_are_the_same_after_a_restart(bounded: Callable[..., Outbox]) -> None:
    outbox = bounded()
    ids = [r.id for r in outbox.commit(Commit(rows=big(7, stream="ä")))]
    outbox.commit(Commit(released=ids[2:4], refused=[RefusedRecord(ids[5], dead_letter("refused_by_gdn"))]))
    before = outbox.bytes
    outbox.close()

    assert bounded().bytes == before > 0


def test_the_oldest_records_are_dropped_but_none_that_was_sent(bounded: Callable[..., Outbox]) -> None:
    outbox = bounded(max_bytes=10_000)
    ids = [r.id for r in outbox.commit(Commit(rows=big(12)))]

    (dropped,) = outbox.drop(under_way={"s": ids[1]}).values()

    left = [r.id for r in outbox.read("s", after=0, limit=100, max_bytes=1 << 20)]
    assert left == ids[:2] + ids[2 + dropped :]
    assert dropped == 4
    assert outbox.books().dropped == {"outbox_full": 4}
    assert outbox.books().balanced
    assert outbox.has_room_again(age=0)


def test_dropping_frees_just_enough_from_the_oldest_on(bounded: Callable[..., Outbox]) -> None:
    size = len(b"1") + len("s") + RECORD_OVERHEAD
    outbox = bounded(max_bytes=10 * size)
    outbox.commit(Commit(rows=rows(*range(9))))
    assert outbox.drop(under_way={}) == {}, "below the bound nothing is dropped"

    outbox.commit(Commit(rows=rows(9)))
    assert outbox.bytes == 10 * size
    assert outbox.drop(under_way={}) == {"s": 1}, "a tenth is free again"
    assert outbox.bytes == 9 * size
    outbox.commit(Commit(rows=rows(1, 2, 3)))
    assert outbox.drop(under_way={}) == {"s": 3}

    left = outbox.read("s", after=0, limit=100, max_bytes=1 << 20)
    assert [record.id for record in left] == list(range(5, 14))


def test_dropping_frees_one_more_record_if_a_byte_is_lacking(bounded: Callable[..., Outbox]) -> None:
    size = len(b"1") + len("s") + RECORD_OVERHEAD
    outbox = bounded(max_bytes=10 * size - 1)  # nine tenths: one byte less than nine records
    outbox.commit(Commit(rows=rows(*range(10))))

    assert outbox.drop(under_way={}) == {"s": 2}


def test_only_expired_records_are_dropped_below_the_bound_of_bytes(bounded: Callable[..., Outbox]) -> None:
    clock = Clock()
    outbox = bounded(max_bytes=1000, max_age=60, clock=clock)
    outbox.commit(Commit(rows=rows(1, 2)))
    clock.now += 60
    outbox.commit(Commit(rows=rows(3)))

    assert outbox.drop(under_way={}) == {}, "exactly as old as they may be"
    clock.now += 1
    assert outbox.drop(under_way={}) == {"s": 2}
    assert outbox.books().dropped == {"expired": 2}


def test_purging_frees_just_enough_dead_letters_from_the_oldest_on(bounded: Callable[..., Outbox]) -> None:
    (size,) = {len(d.detail) + len(d.topic) + len(d.payload) + dead_letters.OVERHEAD for d in [dead_letter()]}
    outbox = bounded(dead_letter_bytes=10 * size)
    outbox.commit(Commit(dead_letters=[dead_letter()] * 10))
    assert outbox.dead_letter_count == 10

    outbox.commit(Commit(dead_letters=[dead_letter()]))
    assert (outbox.dead_letter_count, outbox.counter("dead_letters_purged")) == (9, 2)
    outbox.commit(Commit(dead_letters=[dead_letter()]))
    assert outbox.dead_letter_count == 10, "purged dead letters no longer count"


def test_dead_letters_that_were_too_old_leave_their_bytes_to_new_ones(bounded: Callable[..., Outbox]) -> None:
    clock = Clock()
    (size,) = {len(d.detail) + len(d.topic) + len(d.payload) + dead_letters.OVERHEAD for d in [dead_letter()]}
    outbox = bounded(dead_letter_bytes=10 * size, dead_letter_age=60, clock=clock)
    outbox.commit(Commit(dead_letters=[dead_letter()] * 10))
    clock.now += 61
    assert outbox.purge_old() == 10

    outbox.commit(Commit(dead_letters=[dead_letter()] * 10))
    assert outbox.dead_letter_count == 10
    outbox.commit(Commit(dead_letters=[dead_letter()]))
    assert outbox.dead_letter_count == 9


def test_what_was_stored_before_the_clock_was_set_does_not_expire_after_a_restart(tmp_path: Path) -> None:
    bounds = Bounds(max_age=60, dead_letter_age=60)
    for seconds, row in ((5000.0, big(2)), (1_800_000_000.0, big(1))):
        outbox = Outbox(tmp_path / "outbox.db", bounds, clock=Clock(), wall_clock=partial(float, seconds))
        outbox.open()
        outbox.commit(Commit(rows=row, dead_letters=[dead_letter()]))
        try:
            assert outbox.oldest_age() == 0
            assert outbox.drop(under_way={}) == {}
            assert outbox.purge_old() == 0
        finally:
            outbox.close()


def test_records_that_are_too_old_are_dropped_as_expired(bounded: Callable[..., Outbox]) -> None:
    clock = Clock()
    outbox = bounded(max_age=60, clock=clock)
    outbox.commit(Commit(rows=big(3)))
    clock.now += 50
    outbox.commit(Commit(rows=big(2)))
    clock.now += 20

    assert outbox.oldest_age() == 70
    assert "outbox.max_age is 60" in (outbox.why_full(age=70) or "")
    assert outbox.drop(under_way={}) == {"s": 3}
    assert outbox.books().dropped == {"expired": 3}
    assert outbox.oldest_age() == 20


def test_rejected_rows_are_counted(bounded: Callable[..., Outbox]) -> None:
    outbox = bounded()

    first = outbox.commit(Commit(rows=rows(0)))
    assert outbox.commit(Commit(rows=rows(*range(5)), rejects=frozenset({"s"}))) == []
    (after,) = outbox.commit(Commit(rows=rows(6)))

    assert after.id == first[0].id + 6, "ids that mapped rows may carry are given out once"
    assert (outbox.books().received, outbox.books().dropped) == (7, {"outbox_full": 5})
    assert outbox.books().balanced


def test_the_oldest_dead_letters_are_purged_to_make_room_for_new_ones(
    bounded: Callable[..., Outbox], tmp_path: Path
) -> None:
    outbox = bounded(dead_letter_bytes=10_000)
    for n in range(30):
        outbox.commit(Commit(dead_letters=[DeadLetter("t", b"%03d" % n + b"x" * 900, 1, n, None, "not_json", "")]))
        assert outbox.dead_letter_count <= 10

    with sqlite3.connect(tmp_path / "outbox.db") as db:
        kept = [n for (n,) in db.execute("SELECT received_at FROM dead_letters ORDER BY id")]
    db.close()
    assert kept == list(range(30 - outbox.dead_letter_count, 30))
    assert outbox.counter("dead_letters_purged") == 30 - outbox.dead_letter_count
    assert outbox.books().dead_lettered == {"not_json": 30}


def test_a_read_is_limited_in_bytes(bounded: Callable[..., Outbox]) -> None:
    outbox = bounded()
    outbox.commit(Commit(rows=big(10)))

    assert len(outbox.read("s", after=0, limit=100, max_bytes=2500)) == 3
    assert len(outbox.read("s", after=0, limit=100, max_bytes=1)) == 1


def test_an_outbox_restored_from_a_copy_gets_a_new_name(tmp_path: Path) -> None:
    path, copy = tmp_path / "outbox.db", tmp_path / "copy.db"
    outbox = Outbox(path)
    outbox.open()
    name = outbox.name
    outbox.close()
    copy.write_bytes(path.read_bytes())
    outbox.open()
    assert outbox.name == name
    outbox.close()

    path.write_bytes(copy.read_bytes())  # in place: the same inode
    outbox.open()

    assert outbox.name != name
    outbox.close()


def test_an_outbox_moved_with_all_its_files_gets_a_new_name(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    outbox = Outbox(old / "outbox.db")
    outbox.open()
    name = outbox.name
    outbox.close()
    shutil.copytree(old, new)

    moved = Outbox(new / "outbox.db")
    moved.open()

    assert moved.name != name
    moved.close()


def test_saved_values_and_counters_survive_a_restart(bounded: Callable[..., Outbox]) -> None:
    outbox = bounded()
    outbox.save_values(a="1", b="ü")
    outbox.count("sessions_lost")
    outbox.count("sessions_lost")
    name = outbox.name
    outbox.close()

    again = bounded()
    assert (again.saved_value("a"), again.saved_value("b"), again.saved_value("c")) == ("1", "ü", None)
    assert again.counter("sessions_lost") == 2
    assert again.name == name


# --- a disk that is full, a file that is damaged -----------------------------------------------------------


def test_an_outbox_of_the_first_format_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    db = sqlite3.connect(path)
    db.executescript(f"BEGIN; {schema.CHANGES[0]} PRAGMA user_version = 1; COMMIT;")
    db.execute("INSERT INTO records VALUES (7, 's', x'7b7d')")
    db.execute("INSERT INTO books VALUES ('received', 1)")
    db.commit()
    db.close()
    outbox = Outbox(path)
    outbox.open()

    assert outbox.read("s", after=0, limit=9, max_bytes=99) == [OutboxRecord(7, "s", b"{}")]
    assert outbox.books().balanced
    assert outbox.oldest_age() < 3600
    outbox.close()


def test_messages_seen_by_an_earlier_format_are_those_of_the_session_it_had(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    db = sqlite3.connect(path)
    for number, change in enumerate(schema.CHANGES[:6], start=1):
        db.executescript(f"BEGIN; {change} PRAGMA user_version = {number}; COMMIT;")
    db.execute("INSERT INTO memory VALUES ('mqtt_session', ?)", (json.dumps(["c at broker:1883", ["f"], 1]),))
    db.execute("INSERT INTO handed_over VALUES (7, ?)", (b"a" * 10,))
    db.execute("INSERT INTO qos_2 VALUES (5, ?)", (b"b" * 8,))
    db.commit()
    db.close()
    outbox = Outbox(path)
    outbox.open()

    assert outbox.seen_messages("c at broker:1883") == [(7, b"a" * 10)]
    assert outbox.qos_2_messages("c at broker:1883") == [(5, b"b" * 8)]
    assert outbox.seen_messages("c at other:1883") == outbox.qos_2_messages("c at other:1883") == []
    outbox.forget_session("c at other:1883")
    assert outbox.seen_messages("c at broker:1883")
    outbox.forget_session("c at broker:1883")
    assert outbox.seen_messages("c at broker:1883") == outbox.qos_2_messages("c at broker:1883") == []
    outbox.close()


def filled(path: Path, records: int = 3000) -> Outbox:
    outbox = Outbox(path)
    outbox.open()
    outbox.commit(Commit(rows=big(records, size=200), dead_letters=[dead_letter() for _ in range(20)]))
    outbox.commit(Commit(released=[1, 2, 3]))
    return outbox


def crash(outbox: Outbox) -> None:
    """Leave the file as a SIGKILL does: not closed cleanly."""
    outbox._disconnect_and_unlock()


def damage(path: Path, page: int, count: int = 1, size: int = 4096) -> None:
    with path.open("r+b") as file:
        file.seek(page * size)
        file.write(b"\xa5" * size * count)


def test_an_outbox_with_damaged_pages_is_rescued_automatically(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = filled(path)
    name = outbox.name
    crash(outbox)
    damage(path, page=40, count=3)

    again = Outbox(path)
    again.open()

    books = again.books()
    saved = again.read("s", after=0, limit=9999, max_bytes=1 << 30)
    assert 0 < len(saved) < 2997
    assert {r.payload for r in saved} <= {r.payload for r in big(3000, size=200)}
    assert books.outbox == len(saved)
    assert books.balanced
    assert books.dropped == {"outbox_damaged": 2997 - len(saved)}
    assert again.name != name, "a new name gives a new producer name: old sequence numbers can't do harm"
    assert again.next_id == 3001
    kept = sorted(p.name.rpartition("-")[2] for p in tmp_path.iterdir() if ".damaged-" in p.name)
    assert kept[-2:] == ["shm", "wal"], "the log of the damaged file belongs to it"
    again.commit(Commit(rows=rows(1)))
    again.close()


def test_a_rescue_keeps_the_markers_of_the_forms_that_rows_have(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = filled(path)
    outbox.save_values(**{"row_format:1:s": "{}", "sequence:s": "7"})
    crash(outbox)
    damage(path, page=40, count=3)

    again = Outbox(path)
    again.open()

    assert again.saved_values("row_format:") == {"row_format:1:s": "{}"}
    assert again.saved_value("sequence:s") is None
    again.close()


def test_a_truncated_outbox_is_rescued_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    """SQLite reads nothing of a file that is shorter than its header says."""
    path = tmp_path / "outbox.db"
    filled(path).close()
    os.truncate(path, path.stat().st_size // 2)

    again = Outbox(path)
    again.open()

    books = again.books()
    assert 1000 < books.outbox < 2000
    assert books.dropped == {"outbox_damaged": 2997 - books.outbox}
    assert books.balanced
    again.close()


def test_books_balance_after_damage_to_a_name_in_them(tmp_path: Path) -> None:
    """Found by the test that damages at random: an unknown name must not count as a fate of records."""
    path = tmp_path / "outbox.db"
    outbox = filled(path)
    outbox._db.execute("UPDATE books SET name = 'dead_lette^ed:x' WHERE name LIKE 'dead_lettered:%'")  # type: ignore[union-attr]
    crash(outbox)
    damage(path, page=40, count=3)

    again = Outbox(path)
    again.open()

    assert any(".damaged-" in p.name for p in tmp_path.iterdir())
    assert again.books().balanced
    again.close()


@pytest.mark.parametrize("content", [b"this is no database" * 1000, b"SQLite format 3\0" + b"\xff" * 100])
def test_an_outbox_of_which_nothing_can_be_read_is_kept_beside_a_new_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outbox.db"
    filled(path, records=10).close()
    path.write_bytes(content)
    outbox = Outbox(path)
    outbox.open()
    outbox.commit(Commit(rows=rows(1)))

    assert outbox.books().received == outbox.books().accounted == 1
    outbox.close()
    assert [p.read_bytes() for p in tmp_path.iterdir() if ".damaged-" in p.name] == [content]


def test_damage_that_keeps_the_check_itself_from_running_is_damage_and_a_lock_is_not(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"this is no database" * 1000)
    with closing(sqlite3.connect(path)) as db:
        assert rescue.is_damaged(db)

    path = tmp_path / "sound.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as owner, closing(sqlite3.connect(path, timeout=0)) as db:
        owner.execute("CREATE TABLE t (id)")
        assert not rescue.is_damaged(db)
        owner.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            rescue.is_damaged(db)


KNOWN = {"received": 9, "delivered": 5}


@pytest.mark.parametrize(
    ("books", "saved", "are_current", "lost", "corrected"),
    [
        (KNOWN, (4, 0), True, (0, 0), {}),
        (KNOWN, (3, 0), True, (1, 0), {"dropped:outbox_damaged": 1}),
        (KNOWN, (5, 0), True, (0, 0), {"received": 10}),
        ({"delivered": 5}, (2, 0), True, (0, 0), {"received": 7}),
        ({**KNOWN, "dead_lettered:x": 2}, (2, 1), True, (0, 1), {schema.DEAD_LETTERS_LOST: 1}),
        (KNOWN, (3, 0), False, (None, None), {"received": 8, schema.UNKNOWN_LOSSES: 1}),
        ({}, (3, 2), False, (None, None), {"received": 5, "dead_lettered:unknown": 2, schema.UNKNOWN_LOSSES: 1}),
    ],
)
def test_the_books_of_a_rescue_balance_with_what_it_saved(
    books: dict[str, int],
    saved: tuple[int, int],
    are_current: bool,
    lost: tuple[int | None, int | None],
    corrected: dict[str, int],
) -> None:
    found = dict(books)

    assert rescue._balance(found, records=saved[0], dead_letters=saved[1], are_current=are_current) == lost

    assert found == {**books, **corrected}


@pytest.mark.parametrize(("code", "is_raised"), [(errno.EIO, True), (errno.ENOSPC, True), (errno.EINVAL, False)])
def test_a_directory_that_cannot_be_synced_is_an_error_unless_the_file_system_cannot_sync_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_raised: bool
) -> None:
    def fails(_handle: int) -> None:
        raise OSError(code, "no sync")

    monkeypatch.setattr(os, "fsync", fails)

    with pytest.raises(OSError, match="no sync") if is_raised else nullcontext():
        directories.sync(tmp_path)
    assert tmp_path.exists()


class Unreadable:
    """A table with these ids, of which any query fails whose range contains a damaged one."""

    def __init__(self, highest: int, *, damaged: Collection[int] = ()) -> None:
        self._db = sqlite3.connect(":memory:")
        self._db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        self._db.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(1, highest + 1)])
        self._damaged = damaged
        self.queries = 0

    def execute(self, query: str, parameters: tuple[int, ...] = ()) -> sqlite3.Cursor:
        self.queries += 1
        if parameters and any(parameters[0] <= n <= parameters[1] for n in self._damaged):
            raise sqlite3.DatabaseError("malformed")
        return self._db.execute(query, parameters)

    def rescued(self) -> list[list[int]]:
        """The ids that a rescue reads, by page."""
        pages = rescue._readable(self, table="t", columns="id")  # type: ignore[arg-type]
        return [[n for (n,) in page] for page in pages]  # type: ignore[misc]


@pytest.mark.parametrize("highest", [0, 1, 9, 10, 11, 35])
def test_a_rescue_reads_each_row_once_and_so_many_at_a_time(highest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "COPY_ROWS", 10)

    pages = Unreadable(highest).rescued()

    assert [n for page in pages for n in page] == list(range(1, highest + 1))
    assert all(len(page) <= 10 for page in pages)


@pytest.mark.parametrize("damaged", [{1}, {17}, {35}, {1, 2, 18, 35}, set(range(1, 36))])
def test_a_rescue_reads_each_row_that_can_be_read_once(damaged: set[int]) -> None:
    pages = Unreadable(35, damaged=damaged).rescued()

    assert sorted(n for page in pages for n in page) == sorted(set(range(1, 36)) - damaged)


def test_the_highest_id_of_a_table_that_names_none_is_unknown() -> None:
    assert rescue._highest_id(Unreadable(7), "t") == 7  # type: ignore[arg-type]
    assert rescue._highest_id(Unreadable(0), "t") == rescue.UNKNOWN_HIGHEST  # type: ignore[arg-type]


def test_a_rescue_of_a_table_that_is_damaged_everywhere_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "MAX_QUERIES", 7)
    table = Unreadable(1000, damaged=range(1, 1001))

    assert table.rescued() == []
    assert table.queries == 7 + 1, "one finds the highest id"


@given(st.integers(0, 2**32), st.integers(1, 30), st.booleans())
@example(4657, 3, False)  # a table definition with a token that SQLite finds too big, not corrupt
@pytest.mark.long
@settings(max_examples=25, deadline=None)
def test_after_any_damage_the_bridge_starts_and_the_books_balance(seed: int, places: int, torn: bool) -> None:
    import random

    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "outbox.db"
        crash(filled(path, records=400))
        for victim in (path, Path(f"{path}-wal")):
            if not victim.exists() or not victim.stat().st_size:
                continue
            size = victim.stat().st_size
            if torn:
                os.truncate(victim, rng.randrange(size))
                continue
            with victim.open("r+b") as file:
                for _ in range(places):
                    file.seek(rng.randrange(size))
                    file.write(rng.randbytes(rng.choice((1, 100, 4096))))
        outbox = Outbox(path)
        outbox.open()
        try:
            outbox.read("s", after=0, limit=9999, max_bytes=1 << 30)
            outbox.commit(Commit(rows=rows(1, 2)))

            assert outbox.books().received == outbox.books().accounted
        except OutboxDamaged:
            # Found only here: the daemon would end, and its next start finds the damage too.
            outbox.close()
            outbox.open()
            outbox.commit(Commit(rows=rows(1, 2)))

            assert outbox.books().received == outbox.books().accounted
        finally:
            outbox.close()


def test_damage_that_sqlite_does_not_see_is_rescued_when_the_outbox_is_opened_again(tmp_path: Path) -> None:
    """Such as text that isn't UTF-8."""
    outbox = filled(tmp_path / "outbox.db", records=10)
    assert outbox._db is not None
    outbox._db.execute("INSERT INTO memory VALUES ('birth:x', CAST(x'ff' AS TEXT))")
    with pytest.raises(OutboxDamaged):
        outbox.saved_values("birth:")
    outbox.close()

    outbox.open()

    assert outbox.saved_values("birth:") == {}
    assert outbox.books().outbox == 7
    assert outbox.books().balanced
    outbox.close()


def test_a_rescue_that_crashed_starts_over_or_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    crash(filled(path))
    damage(path, page=20)
    half_made = tmp_path / "outbox.db.rescue"
    half_made.write_bytes(b"half")
    outbox = Outbox(path)
    outbox.open()
    saved = outbox.books()
    outbox.close()
    assert not half_made.exists()

    path.rename(half_made)  # the crash came between the two renames
    outbox.open()

    assert outbox.books() == saved
    outbox.close()


def test_a_torn_write_at_the_end_loses_no_earlier_commit(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = Outbox(path)
    outbox.open()
    outbox.commit(Commit(rows=big(50)))
    wal = Path(f"{path}-wal")
    size = wal.stat().st_size
    outbox.commit(Commit(rows=big(50)))
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (path, wal):
        (copy / file.name).write_bytes(file.read_bytes())
    os.truncate(copy / wal.name, size + 5000)
    outbox.close()

    torn = Outbox(copy / path.name)
    torn.open()

    assert len(torn.read("s", after=0, limit=999, max_bytes=1 << 30)) == 50
    assert not [p for p in copy.iterdir() if ".damaged-" in p.name]
    torn.close()


def fill(outbox: Outbox) -> list[OutboxRecord]:
    """Store until the disk is full."""
    stored: list[OutboxRecord] = []
    with suppress(OutboxUnavailable):
        while True:
            stored += outbox.commit(Commit(rows=big(50)))
    return stored


def test_on_a_full_disk_nothing_is_stored_nothing_is_lost_and_it_recovers(small_disk: Path) -> None:
    outbox = Outbox(small_disk / "outbox.db")
    outbox.open()
    stored = fill(outbox)
    assert outbox.books().outbox == len(stored) > 5000
    assert outbox.books().balanced
    with pytest.raises(OutboxUnavailable, match="disk is full"):
        outbox.commit(Commit(rows=big(50)))

    # Deliveries continue although the disk has no room for a deletion: the reserve gives it.
    for at in range(0, len(stored), 500):
        outbox.commit(Commit(released=[r.id for r in stored[at : at + 500]]))
    assert outbox.books().outbox == 0
    assert outbox.books().balanced

    for _ in range(10):
        with suppress(OutboxUnavailable):
            outbox.probe()
    assert (small_disk / "outbox.db.reserve").stat().st_size == RESERVE_BYTES
    again = outbox.commit(Commit(rows=big(100)))
    assert [r.id for r in outbox.read("s", after=0, limit=999, max_bytes=1 << 30)] == [r.id for r in again]
    outbox.close()


@pytest.mark.parametrize("error", [errno.EROFS, errno.EINVAL])
def test_a_file_system_that_cant_sync_a_directory_does_not_stop_the_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Such as a parent on a read-only file system."""
    fsync = os.fsync

    def failing(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(error, os.strerror(error))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    outbox = Outbox(tmp_path / "new" / "outbox.db")
    outbox.open()

    assert len(outbox.commit(Commit(rows=rows(1)))) == 1
    outbox.close()


@pytest.mark.parametrize("small_disk", [2 << 10, 9 << 10, 24 << 10], indirect=True)
@pytest.mark.parametrize(("count", "size"), [(50, 300), (100, 1000), (5, 20_000)])
def test_a_disk_of_any_size_that_the_outbox_has_filled_has_room_again_once_the_records_are_released(
    small_disk: Path, count: int, size: int
) -> None:
    outbox = Outbox(small_disk / "outbox.db")
    outbox.open()
    stored: list[OutboxRecord] = []
    with suppress(OutboxUnavailable):
        while True:
            stored += outbox.commit(Commit(rows=big(count, size)))
    assert stored

    for at in range(0, len(stored), 500):
        outbox.commit(Commit(released=[r.id for r in stored[at : at + 500]]))
    outbox.probe()
    outbox.commit(Commit(rows=big(count, size)))

    assert outbox.books().outbox == count
    outbox.close()


def test_a_reserve_that_other_files_left_no_room_for_is_missed_and_made_once_there_is_room(small_disk: Path) -> None:
    other = small_disk / "of_somebody_else"
    outbox = Outbox(small_disk / "outbox.db")
    outbox.open()
    assert outbox.why_degraded() is None
    outbox.close()
    (small_disk / "outbox.db.reserve").unlink()
    with other.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, (24 << 20) - (300 << 10))

    outbox.open()
    assert "there is no reserve" in str(outbox.why_degraded())

    os.truncate(other, 20 << 20)
    outbox.enlarge_reserve()
    assert "the reserve has 2097152 of 8388608 bytes" in str(outbox.why_degraded())
    other.unlink()
    outbox.enlarge_reserve()
    assert outbox.why_degraded() is None
    outbox.close()


def test_a_disk_that_other_files_have_filled_takes_records_again_once_there_is_some_room(small_disk: Path) -> None:
    """Not only once there is room for the whole reserve, which may never come."""
    other = small_disk / "of_somebody_else"
    outbox = Outbox(small_disk / "outbox.db")
    outbox.open()
    (small_disk / "outbox.db.reserve").unlink()  # as if it had been used, and the other program had taken its room
    with other.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(OutboxUnavailable, match="disk is full"):
        outbox.probe()

    os.truncate(other, other.stat().st_size - (2 << 20))
    outbox.probe()

    outbox.commit(Commit(rows=big(50)))
    assert "the reserve has 1048576 of" in str(outbox.why_degraded())
    outbox.close()


def test_a_bridge_that_starts_on_a_full_disk_still_delivers(small_disk: Path) -> None:
    outbox = Outbox(small_disk / "outbox.db")
    outbox.open()
    outbox.commit(Commit(rows=big(2000)))
    crash(outbox)
    with (small_disk / "of_somebody_else").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))

    outbox.open()
    records = outbox.read("s", after=0, limit=9999, max_bytes=1 << 30)
    outbox.commit(Commit(released=[r.id for r in records]))

    assert len(records) == 2000
    assert outbox.books().outbox == 0
    outbox.close()


def test_seen_messages_are_stored_with_the_commit_and_forgotten_in_a_copy(
    open_outbox: Callable[[], Outbox], tmp_path: Path
) -> None:
    outbox = open_outbox()
    outbox.commit(Commit(rows=rows(1), seen=SeenMessages(1, b"a" * 20, 1)))
    outbox.commit(Commit(rows=rows(1), seen=SeenMessages(2, b"b" * 10, 1)))
    outbox = open_outbox()
    assert outbox.seen_messages() == [(1, b"a" * 20), (2, b"b" * 10)]

    outbox.commit(Commit(rows=rows(1), seen=SeenMessages(3, b"c" * 10, 2)))
    assert [batch for batch, _ in outbox.seen_messages()] == [2, 3]

    outbox.close()
    shutil.copy(tmp_path / "data" / "outbox.db", tmp_path / "copy.db")
    copy = Outbox(tmp_path / "copy.db")
    copy.open()
    assert copy.seen_messages() == [], "the broker's session continued with the original"
    copy.close()

    outbox = open_outbox()
    outbox.commit(Commit(seen=SeenMessages(4, b"", 4)))
    assert open_outbox().seen_messages() == []
