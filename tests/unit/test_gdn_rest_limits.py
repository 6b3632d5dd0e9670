"""GdnRest at its limits: secrets, sizes, foreign answers, endless cursors, threads."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import responses

from bridge.errors import GdnAuthError, GdnError, GdnRejected, GdnUnavailable
from bridge.gdn.answers import RETRY_AFTER_CAP, ErrorNumber
from bridge.gdn.budget import Budget
from bridge.gdn.client import ANSWER_LIMIT
from bridge.gdn.rest import MAX_EMPTY_BATCHES, GdnRest
from bridge.timing import Pace

BASE = "https://api-x.example"
KEY = "acme.key.s3cr3t"
OTP = f"{BASE}/apid/otp"
WORKERS = f"{BASE}/_fabric/_system/_api/streamapps"
CURSOR = f"{BASE}/_fabric/_system/_api/cursor"


def make(**changes: Any) -> GdnRest:
    return GdnRest(**({"base_url": BASE, "fabric": "_system", "api_key": KEY} | changes))


@pytest.fixture
def web() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_a_key_that_the_far_end_repeats_is_redacted(web: responses.RequestsMock, status: int) -> None:
    web.post(OTP, status=status, json={"errorMessage": f"bad key {KEY}"}, headers={"x-gdn-requestid": KEY})

    with pytest.raises(Exception, match="bad key") as caught:
        make().otp()

    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("key", ["a.b.s3cr3t\n", "a.b.s3cr3té", ""])
def test_a_key_that_does_not_fit_in_a_header_is_an_auth_error_without_the_key(key: str) -> None:
    with pytest.raises(GdnAuthError) as caught:
        make(api_key=key).otp()

    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


def test_the_key_is_not_in_the_repr() -> None:
    assert "s3cr3t" not in repr(make())


def test_a_malformed_one_time_password_is_not_repeated(web: responses.RequestsMock) -> None:
    web.post(OTP, json={"otp": ["s3cr3t"]})

    with pytest.raises(GdnUnavailable) as caught:
        make().otp()

    assert "s3cr3t" not in str(caught.value)


def test_a_refusal_names_the_request_the_error_and_the_request_id(web: responses.RequestsMock) -> None:
    web.get(
        f"{WORKERS}/w",
        status=400,
        json={"errorNum": 10, "errorMessage": "bad parameter"},
        headers={"x-gdn-requestid": "r-1"},
    )

    with pytest.raises(GdnRejected) as caught:
        make().get_worker("w")

    assert str(caught.value) == "GET /_fabric/_system/_api/streamapps/w: 400, errorNum 10, bad parameter (request r-1)"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (1228, "database not found"),
        (404, "database not found"),
        (404, "Response: 404, Error: 1228 - database not found"),
        (404, "Response: 404, Error: 1228 - in other words"),
    ],
    ids=["plain", "repeated status", "wrapped", "wrapped, other words"],
)
def test_a_missing_fabric_is_not_a_missing_worker(web: responses.RequestsMock, number: int, message: str) -> None:
    web.get(f"{WORKERS}/w", status=404, json={"errorNum": number, "errorMessage": message})

    with pytest.raises(GdnRejected) as caught:
        make().get_worker("w")

    assert (caught.value.status, caught.value.error_number) == (404, ErrorNumber.FABRIC_NOT_FOUND)


@pytest.mark.parametrize(
    ("status", "error", "number", "expected"),
    [
        (400, GdnRejected, 10, 10),
        (401, GdnAuthError, 11, 11),
        (403, GdnAuthError, 1230, 1230),
        (404, GdnRejected, 1203, 1203),
        (429, GdnUnavailable, None, None),
        (503, GdnUnavailable, "1", None),
    ],
)
def test_an_error_carries_the_status_and_gdns_error_number(
    web: responses.RequestsMock, status: int, error: type[GdnError], number: object, expected: int | None
) -> None:
    web.post(OTP, status=status, json={"errorNum": number, "errorMessage": "Error: 1"})

    with pytest.raises(error) as caught:
        make().otp()

    assert (caught.value.status, caught.value.error_number) == (status, expected)


def test_a_gateways_own_404_is_not_a_missing_worker(web: responses.RequestsMock) -> None:
    web.get(f"{WORKERS}/w", status=404, body="<html>no route</html>", content_type="text/html")

    with pytest.raises(GdnUnavailable, match="text/html"):
        make().get_worker("w")


def test_a_404_with_no_body_is_a_missing_worker(web: responses.RequestsMock) -> None:
    web.get(f"{WORKERS}/w", status=404)
    web.delete(f"{WORKERS}/w", status=404)
    rest = make()

    assert rest.get_worker("w") is None
    assert rest.delete_worker("w") is False


@pytest.mark.parametrize("body", [{}, {"streamApps": 3}, {"streamApps": [{"name": "w"}]}, {"streamApps": ["w"]}])
def test_a_malformed_worker_is_unavailable(web: responses.RequestsMock, body: dict[str, Any]) -> None:
    web.get(f"{WORKERS}/w", json=body)

    with pytest.raises(GdnUnavailable):
        make().get_worker("w")


def test_a_redirect_is_not_followed_and_its_host_is_named(web: responses.RequestsMock) -> None:
    web.post(OTP, status=302, headers={"Location": "https://login.example/?token=s3cr3t"})

    with pytest.raises(GdnUnavailable, match=r"login\.example") as caught:
        make().otp()

    assert "s3cr3t" not in str(caught.value)
    assert len(web.calls) == 1


def test_an_answer_that_is_too_long_is_not_read_to_its_end(web: responses.RequestsMock) -> None:
    web.post(OTP, body=b" " * (ANSWER_LIMIT + 1))

    with pytest.raises(GdnUnavailable, match=str(ANSWER_LIMIT)):
        make().otp()


def test_a_cursor_may_be_longer_than_other_answers(web: responses.RequestsMock) -> None:
    row = "x" * (2 * ANSWER_LIMIT)
    web.post(CURSOR, status=201, json={"result": [row], "hasMore": False})

    assert make().query("RETURN 1") == [row]


def test_a_body_that_is_too_slow_is_given_up(web: responses.RequestsMock) -> None:
    web.post(OTP, json={"otp": "x"})
    ticks = iter(range(0, 1000, 100))

    with pytest.raises(GdnUnavailable, match="body"):
        make(clock=lambda: float(next(ticks))).otp()


@pytest.mark.parametrize("body", [b'{"otp": "\xff"}', b"[" * 50_000, b"\x00"])
def test_anything_but_json_is_unavailable(web: responses.RequestsMock, body: bytes) -> None:
    web.post(OTP, body=body)

    with pytest.raises(GdnUnavailable):
        make().otp()


def test_retry_after_is_capped(web: responses.RequestsMock) -> None:
    web.post(OTP, status=503, headers={"Retry-After": "86400"})

    with pytest.raises(GdnUnavailable) as caught:
        make().otp()

    assert caught.value.retry_after == RETRY_AFTER_CAP


def test_too_many_empty_batches_end_the_query_and_the_cursor_is_deleted(web: responses.RequestsMock) -> None:
    web.post(CURSOR, status=201, json={"result": [], "hasMore": True, "id": "9"})
    web.put(f"{CURSOR}/9", json={"result": [], "hasMore": True, "id": "9"})
    web.delete(f"{CURSOR}/9", status=202, json={})

    with pytest.raises(GdnUnavailable, match="empty batches"):
        make().query("FOR d IN c RETURN d")

    assert sum(call.request.method == "PUT" for call in web.calls) == MAX_EMPTY_BATCHES


@pytest.mark.parametrize("cursor", [None, "", "..", 5])
def test_has_more_without_a_usable_cursor_id_is_unavailable(web: responses.RequestsMock, cursor: object) -> None:
    web.post(CURSOR, status=201, json={"result": [1], "hasMore": True, "id": cursor})

    with pytest.raises(GdnUnavailable, match="cursor id"):
        make().query("FOR d IN c RETURN d")


def test_rows_are_returned_even_if_deleting_the_cursor_fails(web: responses.RequestsMock) -> None:
    web.post(CURSOR, status=201, json={"result": [1, 2, 3], "hasMore": True, "id": "9"})
    web.delete(f"{CURSOR}/9", status=404, json={"errorNum": 1600, "errorMessage": "cursor not found"})

    assert make().query("FOR d IN c RETURN d", max_rows=2) == [1, 2]


def test_activating_and_deleting_get_at_least_thirty_seconds(web: responses.RequestsMock) -> None:
    web.patch(f"{WORKERS}/w/active", json={"streamApps": []})
    web.delete(f"{WORKERS}/w", json={})
    rest = make(timeout=5)

    rest.set_active("w", True)
    rest.delete_worker("w")

    assert [call.request.req_kwargs["timeout"] for call in web.calls] == [30.0, 30.0]  # type: ignore[attr-defined]
    assert web.calls[0].request.params == {"active": "true"}  # type: ignore[attr-defined]


def test_the_environment_does_not_choose_proxies_or_certificates(
    web: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/elsewhere.pem")
    monkeypatch.setenv("HTTPS_PROXY", "http://elsewhere.example:3128")
    web.post(OTP, json={"otp": "x"})

    make(ca_file="/ours.pem").otp()

    sent: Any = web.calls[0].request
    assert sent.req_kwargs["verify"] == "/ours.pem"
    assert not sent.req_kwargs["proxies"]


def test_a_missing_ca_file_is_unavailable_and_named() -> None:
    with pytest.raises(GdnUnavailable, match=r"/nowhere/ca\.pem"):
        make(base_url="https://127.0.0.1:1", ca_file="/nowhere/ca.pem").otp()


def test_each_thread_has_a_session_and_close_closes_them_all(web: responses.RequestsMock) -> None:
    web.post(OTP, json={"otp": "x"})
    closed: list[object] = []

    class Session(requests.Session):
        def close(self) -> None:
            closed.append(self)
            super().close()

    made: list[requests.Session] = []

    def factory() -> requests.Session:
        made.append(Session())
        return made[-1]

    rest = make(session_factory=factory)
    rest.otp()
    rest.otp()
    other = threading.Thread(target=rest.otp)
    other.start()
    other.join()
    rest.close()

    assert len(made) == 2
    assert set(closed) == set(made)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Pace.REFUSED),
        (401, Pace.CREDENTIALS),
        (403, Pace.CREDENTIALS),
        (422, Pace.REFUSED),
        (429, Pace.LIMITED),
        (500, Pace.UNREACHABLE),
        (503, Pace.UNREACHABLE),
    ],
)
def test_each_refusal_has_its_pace(web: responses.RequestsMock, status: int, expected: Pace) -> None:
    web.post(OTP, status=status)

    with pytest.raises(GdnError) as caught:
        make().otp()

    assert caught.value.pace is expected


# --- a new key -----------------------------------------------------------------------------------------


def test_every_thread_uses_a_new_key_from_its_next_request_on(web: responses.RequestsMock) -> None:
    web.post(OTP, json={"otp": "x"})
    rest = make()
    go, asked = threading.Event(), threading.Event()

    def ask_twice() -> None:
        rest.otp()
        asked.set()
        assert go.wait(10)
        rest.otp()

    other = threading.Thread(target=ask_twice)
    other.start()
    assert asked.wait(10)
    rest.use_key("acme.key.n3w")
    rest.otp()
    go.set()
    other.join()

    sent = [call.request.headers["Authorization"] for call in web.calls]
    assert sent == [f"apikey {KEY}", "apikey acme.key.n3w", "apikey acme.key.n3w"]


def test_neither_the_new_key_nor_the_old_is_repeated(web: responses.RequestsMock) -> None:
    web.post(OTP, status=401, json={"errorMessage": f"not {KEY}, nor {KEY}.longer"})
    rest = make()
    rest.use_key(f"{KEY}.longer")

    with pytest.raises(GdnAuthError, match="not \\[API key\\], nor \\[API key\\];") as caught:
        rest.otp()

    assert "s3cr3t" not in str(caught.value)


# --- the budget ----------------------------------------------------------------------------------------


def test_each_request_counts_in_the_budget(web: responses.RequestsMock) -> None:
    web.post(CURSOR, status=201, json={"result": [1], "hasMore": True, "id": "9"})
    web.put(f"{CURSOR}/9", json={"result": [2], "hasMore": True, "id": "9"})
    web.delete(f"{CURSOR}/9", status=202, json={})
    rest = make(budget=Budget(per_minute=10, per_day=100))

    rest.query("FOR d IN c RETURN d", max_rows=2)

    assert rest.budget.used == {"minute": 3, "day": 3}


def test_nothing_is_sent_once_the_budget_is_used_up(web: responses.RequestsMock) -> None:
    rest = make(budget=Budget(per_minute=1, per_day=0, clock=lambda: 0.0))
    rest.budget.take()

    with pytest.raises(GdnUnavailable, match=r"gdn\.requests_per_minute") as caught:
        rest.otp()

    assert (caught.value.retry_after, caught.value.pace) == (61.0, Pace.LIMITED)
    assert len(web.calls) == 0


def test_checks_get_half_of_the_budget(web: responses.RequestsMock) -> None:
    web.get(f"{WORKERS}/w", status=404)
    web.post(CURSOR, status=201, json={"result": [1], "hasMore": False})
    web.post(OTP, json={"otp": "x"})
    rest = make(budget=Budget(per_minute=4, per_day=0))
    rest.get_worker("w", check=True)
    rest.query("RETURN 1", check=True)

    with pytest.raises(GdnUnavailable, match="half"):
        rest.get_worker("w", check=True)
    with pytest.raises(GdnUnavailable, match="half"):
        rest.query("RETURN 1", check=True)
    assert rest.otp() == "x"


def test_a_port_without_tls_is_named_in_the_error(web: responses.RequestsMock) -> None:
    failure = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    failure.reason = "WRONG_VERSION_NUMBER"
    web.post(OTP, body=requests.exceptions.SSLError(failure))

    with pytest.raises(GdnUnavailable, match="wrong version number; this port doesn't seem to speak TLS"):
        make().otp()


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (requests.ConnectTimeout("slow"), 0),
        (requests.ConnectionError(ConnectionRefusedError(111, "refused")), 0),
        (requests.ConnectionError(socket.gaierror(-2, "no such name")), 0),
        (requests.ConnectionError(OSError(errno.ENETUNREACH, "no way")), 0),
        (requests.exceptions.SSLError("certificate"), 0),
        (requests.ReadTimeout("slow"), 1),
        (requests.ConnectionError(ConnectionResetError(104, "reset")), 1),
    ],
)
def test_a_request_that_did_not_reach_gdn_does_not_count(
    web: responses.RequestsMock, failure: Exception, expected: int
) -> None:
    web.post(OTP, body=failure)
    rest = make(budget=Budget(per_minute=10, per_day=100))

    with pytest.raises(GdnUnavailable):
        rest.otp()

    assert rest.budget.used == {"minute": expected, "day": expected}
