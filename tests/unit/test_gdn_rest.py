from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import responses

from bridge.errors import GdnAuthError, GdnError, GdnRejected, GdnUnavailable
from bridge.gdn.rest import GdnRest

BASE = "https://api-x.example"
KEY = "acme.key.s3cr3t"
WORKER = {"name": "w", "definition": "text", "regions": ["fra"], "isActive": False}
WORKERS = f"{BASE}/_fabric/_system/_api/streamapps"
CURSOR = f"{BASE}/_fabric/_system/_api/cursor"


@pytest.fixture
def web() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def rest() -> Iterator[GdnRest]:
    rest = GdnRest(base_url=BASE, fabric="_system", api_key=KEY, wall_clock=lambda: 1_700_000_000.0)
    yield rest
    rest.close()


def envelope(**changes: Any) -> dict[str, Any]:
    return {"error": False, "code": 200, "streamApps": [{**WORKER, **changes}]}


def test_the_key_is_in_the_header_with_its_scheme(web: responses.RequestsMock, rest: GdnRest) -> None:
    web.get(f"{WORKERS}/w", json=envelope(isActive=True))

    state = rest.get_worker("w")

    assert state is not None
    assert (state.name, state.is_active, state.regions) == ("w", True, ("fra",))
    assert web.calls[0].request.headers["Authorization"] == f"apikey {KEY}"


def test_a_missing_worker_is_none(web: responses.RequestsMock, rest: GdnRest) -> None:
    web.get(f"{WORKERS}/w", status=404, json={"error": True, "code": 404, "errorNum": 404, "errorMessage": "no"})

    assert rest.get_worker("w") is None


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, '{"error":true,"code":401,"errorNum":11,"errorMessage":"forbidden"}', GdnAuthError),
        (403, "{}", GdnAuthError),
        (429, "slow down", GdnUnavailable),
        (500, "<html>oops</html>", GdnUnavailable),
        (502, "", GdnUnavailable),
        (503, "{}", GdnUnavailable),
        (301, "", GdnUnavailable),
        (200, "<html>a portal</html>", GdnUnavailable),
        (200, "", GdnUnavailable),
        (200, "[1, 2]", GdnUnavailable),
        (200, '{"otp": 5}', GdnUnavailable),
        (409, '{"error":true,"code":409,"errorMessage":"exists"}', GdnRejected),
        (422, '{"error":true,"code":422,"errorMessage":"Line: 1"}', GdnRejected),
    ],
)
def test_each_answer_raises_its_error_and_no_message_has_the_key(
    web: responses.RequestsMock, rest: GdnRest, status: int, body: str, expected: type[GdnError]
) -> None:
    web.post(f"{BASE}/apid/otp", status=status, body=body)

    with pytest.raises(expected) as caught:
        rest.otp()

    assert type(caught.value) is expected
    assert KEY not in str(caught.value)
    assert "/apid/otp" in str(caught.value)


def test_a_key_that_is_too_short_to_be_recognised_within_words_does_not_garble_messages(
    web: responses.RequestsMock,
) -> None:
    web.post(f"{BASE}/apid/otp", status=500, body="{}")
    rest = GdnRest(base_url=BASE, fabric="_system", api_key="otp", wall_clock=lambda: 1_700_000_000.0)

    with pytest.raises(GdnUnavailable, match="/apid/otp"):
        rest.otp()
    rest.close()


@pytest.mark.parametrize(
    ("header", "expected"),
    [("7", 7.0), ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0), ("soon", None), ("-3", None), ("", None)],
)
def test_retry_after_is_read_in_both_forms(
    web: responses.RequestsMock, rest: GdnRest, header: str, expected: float | None
) -> None:
    web.post(f"{BASE}/apid/otp", status=429, headers={"Retry-After": header})

    with pytest.raises(GdnUnavailable) as caught:
        rest.otp()

    assert caught.value.retry_after == expected


@pytest.mark.parametrize("failure", [requests.ConnectionError("refused"), requests.Timeout("slow")])
def test_no_answer_is_unavailable(web: responses.RequestsMock, rest: GdnRest, failure: Exception) -> None:
    web.post(f"{BASE}/apid/otp", body=failure)

    with pytest.raises(GdnUnavailable):
        rest.otp()


def test_control_characters_in_an_answer_are_escaped(web: responses.RequestsMock, rest: GdnRest) -> None:
    web.post(f"{BASE}/apid/otp", status=400, json={"errorMessage": "a\x1b[31m\nb" + "x" * 5000})

    with pytest.raises(GdnRejected) as caught:
        rest.otp()

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_the_region_to_dial_comes_from_the_datacenter(web: responses.RequestsMock, rest: GdnRest) -> None:
    web.get(f"{BASE}/datacenter/local", json={"name": "fra", "tags": {"api": "api-fra.example", "url": "fra.example"}})

    assert rest.local_datacenter().api_host == "api-fra.example"


def test_a_query_reads_all_batches(web: responses.RequestsMock, rest: GdnRest) -> None:
    web.post(CURSOR, status=201, json={"result": [1], "hasMore": True, "id": "9"})
    web.put(f"{CURSOR}/9", json={"result": [2, 3], "hasMore": False})

    assert rest.query("FOR d IN c RETURN d") == [1, 2, 3]


def test_a_cursor_that_is_not_read_to_its_end_is_deleted(web: responses.RequestsMock, rest: GdnRest) -> None:
    web.post(CURSOR, status=201, json={"result": [1, 2], "hasMore": True, "id": "9"})
    web.delete(f"{CURSOR}/9", status=202, json={"id": "9", "error": False, "code": 202})

    assert rest.query("FOR d IN c RETURN d", max_rows=2) == [1, 2]
