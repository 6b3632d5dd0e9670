"""The oracle must find planted errors; then a short seeded fault run with a kill at every named point."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.faults import messages
from tests.faults.messages import DEVICES, Message, MessageId, compose, row_of
from tests.faults.oracle import MEMORY_LIMIT, Arrival, DeadLetter, Evidence, Journal, Sample, judge
from tests.faults.publisher import Published
from tests.faults.run import Run, report
from tests.faults.schedule import FAULTS, POINTS, Fault, Schedule

pytestmark = [pytest.mark.faults, pytest.mark.e2e]

SEED = 12
COUNT = 60
"""Messages of each device: enough for every kind of poison."""

TELLING = (
    "producer.lost",
    "producer.error8",
    "producer.unknown_context",
    "mqtt.cut",
    "gdn.cut_after.to_server",
    "broker.kill_saved",
    "producer.late.long",
    "far_end.down",
    "producer.close.1011",
    "producer.no_context",
    "broker.kill_session_lost",
    "producer.error7",
)
"""The first faults of the short run: those that a bridge with a bug is most likely to handle wrongly."""

SECRET = "acme.key.s3+cr/et="


def all_messages() -> list[tuple[MessageId, Message]]:
    ids = [MessageId(device, n) for n in range(1, COUNT + 1) for device in range(len(DEVICES))]
    return [(message_id, compose(SEED, message_id)) for message_id in ids]


def a_good_run() -> Evidence:
    """A run without faults or errors: one connection, everything receipted."""
    journal = Journal(opened={1: 0.0}, ended={1: (900.0, "the daemon ended")})
    dead_letters = []
    for _, message in all_messages():
        for row in message.rows:
            number = len(journal.arrivals) + 1
            journal.arrivals.append(Arrival(number, float(number), 1, str(number), row, "ok"))
            journal.receipted[number] = float(number)
        if message.reason is not None:
            dead_letters.append(DeadLetter(message.topic, 1, message.payload, message.reason))
    once = {message_id: 1 for message_id, _ in all_messages()}
    evidence = Evidence(
        seed=SEED,
        published={message_id: Published(1, 10.0) for message_id in once},
        handed=dict(once),
        acked=dict(once),
        journal=journal,
        dead_letters=dead_letters,
        outbox_left=0,
        samples=[],
        final_books={},
        deaths=[(900.0, 900.0)],
        peaks=[50_000_000],
        texts=[("the log", ["a line", "another"])],
        secrets={"the API key": SECRET},
    )
    balance(evidence)
    return evidence


def balance(evidence: Evidence) -> None:
    """Books that agree with the rest of the evidence."""
    arrivals, receipted = evidence.journal.arrivals, evidence.journal.receipted
    delivered = len({a.context for a in arrivals if a.number in receipted})
    dead, left = len(evidence.dead_letters), evidence.outbox_left
    evidence.final_books = {
        "received": delivered + dead + left,
        "delivered": delivered,
        "outbox": left,
        "dead_lettered": dead,
        "dropped": 0,
        "balanced": True,
    }
    evidence.samples = [Sample(800.0, {**evidence.final_books})]


@pytest.fixture
def evidence() -> Evidence:
    return a_good_run()


def problems(evidence: Evidence) -> str:
    return "\n".join(judge(evidence).problems)


def arrival_of(evidence: Evidence, message_id: MessageId) -> int:
    """The place of a message's only row among the arrivals."""
    places = [
        at for at, a in enumerate(evidence.journal.arrivals) if (found := row_of(a.payload)) and found[0] == message_id
    ]
    return places[0]


def a_single() -> MessageId:
    """A message that becomes one row."""
    return next(message_id for message_id, message in all_messages() if len(message.rows) == 1 and message_id.n > 5)


def a_poison() -> tuple[MessageId, Message]:
    return next((message_id, message) for message_id, message in all_messages() if message.reason == "type_mismatch")


# --- the oracle ------------------------------------------------------------------------------------------


def test_a_correct_run_has_no_problems(evidence: Evidence) -> None:
    verdict = judge(evidence)

    assert verdict.holds, verdict.problems
    assert verdict.figures["PUBACKed"] == COUNT * len(DEVICES)
    assert set(verdict.figures["dead letters"]) >= {
        "not_json",
        "missing_field",
        "type_mismatch",
        "out_of_range",
    }


def test_a_row_that_never_arrived_is_a_loss(evidence: Evidence) -> None:
    del evidence.journal.arrivals[arrival_of(evidence, a_single())]
    balance(evidence)

    assert "LOST" in problems(evidence)
    assert str(a_single()) in problems(evidence)


def test_one_row_of_an_array_that_never_arrived_is_a_loss(evidence: Evidence) -> None:
    message_id = next(message_id for message_id, message in all_messages() if len(message.rows) > 1)
    del evidence.journal.arrivals[arrival_of(evidence, message_id)]
    balance(evidence)

    assert "LOST" in problems(evidence)


def test_a_row_stored_without_a_receipt_is_a_loss(evidence: Evidence) -> None:
    """The bridge released it without a receipt; only by chance does the far end have it."""
    at = arrival_of(evidence, a_single())
    evidence.journal.receipted.pop(evidence.journal.arrivals[at].number)

    assert "LOST" in problems(evidence)


def test_a_message_that_the_broker_lost_is_excused_only_if_the_bridge_never_acknowledged_it(evidence: Evidence) -> None:
    message_id = a_single()
    del evidence.journal.arrivals[arrival_of(evidence, message_id)]
    evidence.uncertain = [(9.0, 11.0)]

    assert "LOST" in problems(evidence)

    evidence.acked = {i: n for i, n in evidence.acked.items() if i != message_id}
    balance(evidence)
    verdict = judge(evidence)

    assert verdict.holds, verdict.problems
    assert verdict.figures["excused: the broker lost them"] == 1

    evidence.uncertain = [(9.0, 9.5)]

    assert "never PUBACKed by the bridge" in problems(evidence)


def test_a_missing_dead_letter_is_a_loss(evidence: Evidence) -> None:
    _, message = a_poison()
    evidence.dead_letters = [letter for letter in evidence.dead_letters if letter.payload != message.payload]
    balance(evidence)

    assert "LOST" in problems(evidence)


def test_a_dead_letter_with_another_reason_is_wrong(evidence: Evidence) -> None:
    evidence.dead_letters = [
        letter._replace(reason="not_json") if letter.reason == "type_mismatch" else letter
        for letter in evidence.dead_letters
    ]

    assert "wrong dead letters" in problems(evidence)


def test_a_good_message_among_the_dead_letters_is_wrong(evidence: Evidence) -> None:
    message = compose(SEED, a_single())
    evidence.dead_letters.append(DeadLetter(message.topic, 1, message.payload, "internal_error"))
    balance(evidence)

    assert "no poison that was published" in problems(evidence)


def test_a_dead_letter_for_a_refused_row_needs_a_refusal_by_the_far_end(evidence: Evidence) -> None:
    at = arrival_of(evidence, a_single())
    arrival = evidence.journal.arrivals[at]
    evidence.journal.receipted.pop(arrival.number)
    evidence.dead_letters.append(DeadLetter("", 1, arrival.payload, "refused_by_gdn"))
    balance(evidence)

    assert "the far end refused no such row" in problems(evidence)

    evidence.journal.arrivals[at] = arrival._replace(fate="7")

    assert judge(evidence).holds


@pytest.mark.parametrize("change", [(b'"value":', b'"value": '), (b'"part":0', b'"part":1'), (b"}", b',"x":1}')])
def test_a_changed_payload_is_found(evidence: Evidence, change: tuple[bytes, bytes]) -> None:
    at = arrival_of(evidence, a_single())
    arrival = evidence.journal.arrivals[at]
    evidence.journal.arrivals[at] = arrival._replace(payload=arrival.payload.replace(*change))

    assert "wrong payloads" in problems(evidence)


def test_a_row_that_nobody_published_is_found(evidence: Evidence) -> None:
    at = arrival_of(evidence, a_single())
    evidence.journal.arrivals[at] = evidence.journal.arrivals[at]._replace(payload=b'{"device":"d0","n":9999,"part":0}')

    assert "no message makes this row" in problems(evidence)


def swapped(evidence: Evidence) -> None:
    """Swap two rows of one device; the contexts stay in order."""
    arrivals = evidence.journal.arrivals
    mine = [at for at, a in enumerate(arrivals) if (found := row_of(a.payload)) and found[0].device == 0]
    first, second = arrivals[mine[4]], arrivals[mine[5]]
    arrivals[mine[4]] = first._replace(payload=second.payload)
    arrivals[mine[5]] = second._replace(payload=first.payload)


def test_rows_in_another_order_than_published_are_found(evidence: Evidence) -> None:
    swapped(evidence)

    assert "another order" in problems(evidence)


def test_contexts_out_of_order_on_a_connection_are_found(evidence: Evidence) -> None:
    arrivals = evidence.journal.arrivals
    arrivals[7], arrivals[8] = arrivals[8], arrivals[7]

    assert "out of order on their connection" in problems(evidence)


def test_a_row_answered_with_an_error_may_arrive_later(evidence: Evidence) -> None:
    arrivals = evidence.journal.arrivals
    refused = arrivals[7]
    arrivals[7] = refused._replace(fate="8")
    evidence.journal.receipted.pop(refused.number)
    again = refused._replace(number=5000)
    arrivals.insert(12, again)
    evidence.journal.receipted[again.number] = again.at

    assert judge(evidence).holds, problems(evidence)


def resent(evidence: Evidence, *, connection: int, context: str | None = None) -> None:
    """The last row arrives once more."""
    last = evidence.journal.arrivals[-1]
    evidence.journal.arrivals.append(
        last._replace(number=5000, connection=connection, context=context or last.context, at=last.at + 1)
    )
    evidence.journal.receipted[5000] = last.at + 1


def test_a_record_may_arrive_again_over_another_connection_only(evidence: Evidence) -> None:
    unlike = copy.deepcopy(evidence)
    resent(evidence, connection=2)
    resent(unlike, connection=1)

    assert judge(evidence).holds
    assert judge(evidence).figures["duplicates"] == {"sent again after a lost link": 1}
    assert "sent again on the same connection" in problems(unlike)


def test_a_second_record_needs_a_message_that_was_delivered_twice(evidence: Evidence) -> None:
    resent(evidence, connection=1, context="7000")
    balance(evidence)

    assert "more records than the message was handed over" in problems(evidence)

    found = row_of(evidence.journal.arrivals[-1].payload)
    assert found is not None
    evidence.handed = {**evidence.handed, found[0]: 2}

    assert judge(evidence).holds, problems(evidence)


def test_a_context_that_is_used_for_two_rows_is_found(evidence: Evidence) -> None:
    arrivals = evidence.journal.arrivals
    arrivals.append(arrivals[0]._replace(number=5000, connection=2, context=arrivals[1].context))

    assert "a context that carried two payloads" in problems(evidence)


def test_books_that_dont_balance_are_found(evidence: Evidence) -> None:
    evidence.samples[0].books["received"] += 1

    assert "don't balance" in problems(evidence)


def test_books_that_shrink_are_found(evidence: Evidence) -> None:
    books = evidence.final_books
    evidence.samples = [
        Sample(1.0, {**books, "received": books["received"] + 1, "delivered": books["delivered"] + 1}),
    ]

    assert "is less than before" in problems(evidence)


def test_a_record_counted_as_delivered_before_its_receipt_is_found(evidence: Evidence) -> None:
    evidence.samples[0] = evidence.samples[0]._replace(at=len(evidence.journal.arrivals) - 0.5)

    assert "released before they were receipted" in problems(evidence)


@pytest.mark.parametrize("name", ["received", "delivered", "dead_lettered", "outbox"])
def test_books_that_balance_but_contradict_what_was_observed_are_found(evidence: Evidence, name: str) -> None:
    books = evidence.final_books
    other = "delivered" if name in ("received", "dead_lettered") else "dead_lettered"
    books[name] += 500
    books["received" if name != "received" else other] += 500
    evidence.samples = []

    assert "the books at the end" in problems(evidence)


def test_records_that_are_left_in_the_outbox_are_found(evidence: Evidence) -> None:
    evidence.outbox_left = 1
    balance(evidence)

    assert "left in the outbox" in problems(evidence)


def test_too_much_memory_is_found(evidence: Evidence) -> None:
    evidence.peaks.append(MEMORY_LIMIT + 1)

    assert "memory" in problems(evidence)


@pytest.mark.parametrize(
    "leak",
    [
        SECRET,
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(b"apikey " + SECRET.encode() + b" and more").decode(),
        base64.urlsafe_b64encode(b"x" + SECRET.encode()).decode(),
        json.dumps({"key": SECRET}),
        SECRET.encode().hex(),
    ],
)
def test_a_secret_is_found_in_any_coding(evidence: Evidence, leak: str) -> None:
    evidence.texts = [("the log", ["nothing here", f"and here: {leak}, it stands"])]

    assert "SECRET: the API key" in problems(evidence)


def test_errors_on_the_brokers_link_are_reported(evidence: Evidence) -> None:
    evidence.wire_problems = ["a PUBACK too many"]

    assert "a PUBACK too many" in problems(evidence)


def test_a_connection_that_ends_without_a_cause_is_found(evidence: Evidence) -> None:
    evidence.journal.ended[1] = (500.0, "the client closed")

    assert "although nothing was broken" in problems(evidence)

    evidence.disturbed = [(490.0, 499.0)]

    assert judge(evidence).holds


# --- messages and schedule -------------------------------------------------------------------------------


def test_no_two_messages_are_alike() -> None:
    payloads = [(message.topic, message.payload) for _, message in all_messages()]

    assert len(payloads) == len(set(payloads))


def test_every_kind_of_poison_is_published() -> None:
    reasons = {compose(SEED, MessageId(0, n)).reason for n in range(1, 8000)}

    assert reasons == {
        None,
        "empty",
        "missing_field",
        "not_an_object",
        "not_json",
        "out_of_range",
        "too_large",
        "type_mismatch",
    }
    assert messages.LARGE > 512 * 1024


def test_a_schedule_deals_every_class_and_the_same_for_the_same_seed() -> None:
    def names(seed: int) -> Iterable[str]:
        schedule = Schedule(seed)
        return [fault.name for _ in range(700) for fault in schedule.mixed().faults]

    assert set(names(1)) == {fault.name for fault in FAULTS}
    assert names(1) == names(1)
    assert names(1) != names(2)


# --- each fault alone ------------------------------------------------------------------------------------


def group_of(fault: Fault) -> str:
    return fault.name.partition(".")[0] if fault.group == "rest" else fault.group.replace(" ", "_")


@pytest.mark.parametrize("group", sorted({group_of(fault) for fault in FAULTS}))
@pytest.mark.timeout(900)
def test_each_fault_alone_loses_nothing_and_the_daemon_recovers(tmp_path: Path, group: str) -> None:
    faults = [fault for fault in FAULTS if group_of(fault) == group]
    run = Run(seed=SEED, seconds=0, kills=0, directory=tmp_path, each=faults)

    verdict = run.execute()

    print(report(verdict, seed=SEED))
    assert verdict.holds, "\n".join(verdict.problems)
    assert all(verdict.figures["faults"][fault.name] for fault in faults)


# --- the run ---------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_a_short_run_of_all_faults_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A short run; ``python -m tests.faults.run`` is the long one."""
    run = Run(seed=SEED, seconds=40, kills=14, directory=tmp_path, first=TELLING)

    verdict = run.execute()

    print(report(verdict, seed=SEED))
    assert verdict.holds, "\n".join(verdict.problems)
    assert verdict.figures["kills"] >= 14
    assert set(POINTS) <= set(verdict.figures["ends by how"])
    assert verdict.figures["PUBACKed"] > 2000
    assert sum(verdict.figures["dead letters"].values()) > 50
