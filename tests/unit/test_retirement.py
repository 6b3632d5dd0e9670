"""When a session that is no longer used is unsubscribed and left."""

from __future__ import annotations

from bridge.path.retirement import PATIENCE, QUIET, Retirement, Step


def retirement(*, is_replaced: list[bool] | None = None) -> Retirement:
    replaced = [True] if is_replaced is None else is_replaced
    made = Retirement(is_replaced=lambda: replaced[0])
    made.linked()
    return made


def step(made: Retirement, now: float, *, messages: int = 0, is_unsubscribed: bool = False) -> Step:
    return made.next(now, messages=messages, is_unsubscribed=is_unsubscribed)


def test_a_quiet_session_is_unsubscribed_and_left_once_the_broker_has_confirmed_it() -> None:
    made = retirement()
    assert step(made, 0) == "wait"
    assert step(made, QUIET) == "unsubscribe"

    assert step(made, 3 * QUIET) == "wait", "not confirmed"
    assert step(made, 4 * QUIET, is_unsubscribed=True) == "leave"


def test_those_that_replace_a_session_may_subscribe_once_it_is_quiet_and_then_it_is_unsubscribed() -> None:
    replaced = [False]
    made = retirement(is_replaced=replaced)
    assert step(made, 0) == "wait"
    assert not made.may_be_replaced
    assert step(made, QUIET) == "wait"
    assert made.may_be_replaced

    replaced[0] = True
    assert step(made, QUIET + 1, messages=1) == "unsubscribe", "though a message has come meanwhile"


def test_messages_delay_both_steps_the_first_one_for_a_limited_time() -> None:
    made = retirement()
    for second in range(int(PATIENCE)):
        assert step(made, second, messages=second) == "wait"
    assert step(made, PATIENCE, messages=int(PATIENCE)) == "unsubscribe"

    last = int(3 * PATIENCE)
    for second in range(int(PATIENCE) + 1, last + 1):
        assert step(made, second, messages=second, is_unsubscribed=True) == "wait"
    assert step(made, last + QUIET, messages=last, is_unsubscribed=True) == "leave"


def test_on_a_new_link_everything_begins_again() -> None:
    made = retirement()
    step(made, 0)
    assert step(made, QUIET) == "unsubscribe"

    made.linked()
    assert step(made, 2 * QUIET, is_unsubscribed=True) == "wait"
    assert step(made, 3 * QUIET, is_unsubscribed=True) == "unsubscribe"


def test_a_session_whose_messages_nobody_wants_is_unsubscribed_at_once() -> None:
    made = Retirement(patience=0)

    assert step(made, 0) == "unsubscribe"
