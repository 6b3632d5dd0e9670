from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import GdnAuthError, GdnError, GdnUnavailable
from bridge.gdn.login import (
    ASSUMED,
    FRESH,
    LONGEST,
    SHORTEST,
    WAIT_AFTER_FAILURE,
    Account,
    TokenCache,
    lifetime_of,
)
from bridge.gdn.rest import GdnRest

BASE = "https://api-x.example"
USER = f"{BASE}/_api/user"
LOGIN = f"{BASE}/_open/auth"
ME = Account("s3cr3t pass", email="me@x.example")
NOW = 1_700_000_000.0
GOOD = {"error": False, "code": 200, "result": [{"tenant": "acme"}]}


def jwt(name: str = "", **claims: object) -> str:
    def coded(value: object) -> str:
        return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{coded({'alg': 'HS256'})}.{coded({'name': name, **claims})}.signature"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Far:
    """The far end of a login. A token lasts an hour."""

    def __init__(self) -> None:
        self.logins: list[Account] = []
        self.failure: GdnError | None = None

    def log_in(self, account: Account) -> str:
        self.logins.append(account)
        if self.failure is not None:
            raise self.failure
        return jwt(f"token {len(self.logins)}", exp=NOW + 3600)


def tokens(far: Far, clock: Clock) -> TokenCache:
    made = TokenCache(far.log_in, clock=clock, wall_clock=lambda: NOW)
    made.use(ME)
    return made


# --- tokens -----------------------------------------------------------------------------------------------


def test_a_token_is_used_for_three_quarters_of_its_lifetime() -> None:
    far, clock = Far(), Clock()
    made = tokens(far, clock)
    first = made.token()
    clock.now += 0.75 * 3600 - 1
    assert made.token() == first
    clock.now += 1
    second = made.token()

    assert second != first
    assert len(far.logins) == 2


def test_a_token_that_cannot_be_renewed_is_used_to_its_end_and_then_the_reason_is_raised() -> None:
    far, clock = Far(), Clock()
    made = tokens(far, clock)
    first = made.token()
    far.failure = GdnUnavailable("GDN is away")
    clock.now += 0.75 * 3600
    assert made.token() == first
    clock.now += 0.25 * 3600

    with pytest.raises(GdnUnavailable, match="away"):
        made.token()


def test_a_failed_login_is_not_repeated_at_once() -> None:
    far, clock = Far(), Clock()
    made = tokens(far, clock)
    far.failure = GdnAuthError("Wrong credentials")
    for _ in range(5):
        with pytest.raises(GdnAuthError, match="Wrong"):
            made.token()
    assert len(far.logins) == 1
    clock.now += WAIT_AFTER_FAILURE
    far.failure = None

    assert made.token()
    assert len(far.logins) == 2


def test_gdns_retry_after_is_respected() -> None:
    far, clock = Far(), Clock()
    made = tokens(far, clock)
    far.failure = GdnUnavailable("429", retry_after=100.0)
    for later in (0.0, 99.0):
        clock.now = 1000.0 + later
        with pytest.raises(GdnUnavailable):
            made.token()

    assert len(far.logins) == 1


def test_a_new_password_is_tried_at_once_but_the_same_one_is_not() -> None:
    far, clock = Far(), Clock()
    made = tokens(far, clock)
    far.failure = GdnAuthError("Wrong credentials")
    with pytest.raises(GdnAuthError):
        made.token()
    made.use(ME)
    with pytest.raises(GdnAuthError):
        made.token()
    assert len(far.logins) == 1
    far.failure = None
    other = Account("other", email="me@x.example")
    made.use(other)

    assert made.token()
    assert far.logins == [ME, other]


def test_a_refused_token_is_replaced_unless_it_is_fresh() -> None:
    far, clock = Far(), Clock()
    made = tokens(far, clock)
    first = made.token()
    assert not made.refuse(first)
    clock.now += FRESH
    assert made.refuse(first)
    second = made.token()
    assert second != first
    assert made.refuse(first)  # by a thread that still used it

    assert made.token() == second


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "ü", "x" * 20_000])
def test_a_token_that_does_not_fit_in_a_header_is_refused(token: str) -> None:
    made = TokenCache(lambda _account: token, clock=Clock())
    made.use(ME)

    with pytest.raises(GdnAuthError, match="no usable token"):
        made.token()


@pytest.mark.parametrize(
    ("token", "seconds"),
    [
        (jwt(exp=NOW + 5000), 5000.0),
        (jwt(exp=NOW - 5000), SHORTEST),
        (jwt(exp=NOW + 1e12), LONGEST),
        (jwt(exp="soon"), ASSUMED),
        (jwt(exp=True), ASSUMED),
        (jwt(), ASSUMED),
        ("opaque", ASSUMED),
        ("a.b.c", ASSUMED),
    ],
)
def test_the_lifetime_of_a_token_is_read_from_it_within_limits(token: str, seconds: float) -> None:
    assert lifetime_of(token, now=NOW) == seconds


@given(st.text() | st.binary().map(lambda claims: f"a.{urlsafe_b64encode(claims).decode()}.c"))
def test_any_token_has_a_lifetime(token: str) -> None:
    assert SHORTEST <= lifetime_of(token, now=NOW) <= LONGEST


def test_an_account_logs_in_by_email_or_by_tenant_and_name_and_its_repr_has_no_password() -> None:
    by_name = Account("p", tenant="acme", username="bridge")

    assert ME.body == {"password": "s3cr3t pass", "email": "me@x.example"}
    assert Account("p", email="e", tenant="acme").body == {"password": "p", "email": "e"}
    assert by_name.body == {"password": "p", "tenant": "acme", "username": "bridge"}
    assert "s3cr3t" not in repr(ME)


# --- over REST --------------------------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept() -> list[str]:
    return []


@pytest.fixture
def rest(clock: Clock, kept: list[str]) -> Iterator[GdnRest]:
    rest = GdnRest(
        base_url=BASE, fabric="_system", api_key="", register_secret=kept.append, clock=clock, wall_clock=lambda: NOW
    )
    rest.use_account(ME)
    yield rest
    rest.close()


def test_requests_carry_the_token_and_log_in_once(web: responses.RequestsMock, rest: GdnRest, kept: list[str]) -> None:
    token = jwt(exp=NOW + 3600)
    web.post(LOGIN, json={"jwt": token, "tenant": "acme", "username": "root"})
    web.get(USER, json=GOOD)

    assert [rest.tenant(), rest.tenant()] == ["acme", "acme"]
    assert [call.request.headers.get("Authorization") for call in web.calls] == [None, *[f"bearer {token}"] * 2]
    assert json.loads(web.calls[0].request.body or b"") == ME.body
    assert kept == [token]


def test_a_token_that_gdn_revoked_is_replaced_within_the_request(
    web: responses.RequestsMock, rest: GdnRest, clock: Clock
) -> None:
    for name in ("first", "second"):
        web.post(LOGIN, json={"jwt": jwt(name, exp=NOW + 3600)})
    web.get(USER, json=GOOD)
    rest.tenant()
    clock.now += 600
    web.replace(responses.GET, USER, status=401, json={"error": True, "code": 401, "errorNum": 11})
    web.add(responses.GET, USER, json=GOOD)

    assert rest.tenant() == "acme"
    assert len([call for call in web.calls if call.request.url == LOGIN]) == 2


def test_the_error_of_a_refused_password_names_the_setting_but_not_the_password(
    web: responses.RequestsMock, rest: GdnRest
) -> None:
    wrong = {"error": True, "code": 401, "errorNum": 401, "errorMessage": f"Wrong credentials {ME.password}"}
    web.post(LOGIN, status=401, json=wrong)

    with pytest.raises(GdnAuthError) as raised:
        rest.tenant()
    assert "Wrong credentials" in str(raised.value)
    assert "gdn.password" in str(raised.value)
    assert ME.password not in str(raised.value)


def test_a_token_that_the_far_end_repeats_is_redacted(web: responses.RequestsMock, rest: GdnRest) -> None:
    token = jwt(exp=NOW + 3600)
    web.post(LOGIN, json={"jwt": token})
    web.get(USER, status=400, json={"errorMessage": f"your token {token}"})

    with pytest.raises(GdnError) as raised:
        rest.tenant()
    assert token not in str(raised.value)


@pytest.mark.parametrize("answer", [{}, {"jwt": 5}, {"jwt": ""}, [1]])
def test_a_login_answer_without_a_token_is_unavailable(
    web: responses.RequestsMock, rest: GdnRest, answer: object
) -> None:
    web.post(LOGIN, json=answer)

    with pytest.raises(GdnUnavailable, match="no jwt"):
        rest.tenant()


def test_an_api_key_replaces_a_login(web: responses.RequestsMock, rest: GdnRest) -> None:
    rest.use_key("acme.key.new")
    web.get(USER, json=GOOD)

    rest.tenant()

    assert web.calls[0].request.headers["Authorization"] == "apikey acme.key.new"


@pytest.mark.parametrize(
    ("ask", "path", "right"),
    [
        (lambda rest: rest.get_worker("w"), "/_fabric/_system/_api/streamapps/w", "administer the fabric _system"),
        (lambda rest: rest.query("RETURN 1"), "/_fabric/_system/_api/cursor", "collections in the query"),
        (lambda rest: rest.otp(), "/apid/otp", "access to this fabric (_system) and its streams"),
    ],
)
def test_the_error_names_the_missing_right(web: responses.RequestsMock, ask: object, path: str, right: str) -> None:
    rest = GdnRest(base_url=BASE, fabric="_system", api_key="acme.key.x")
    for method in (responses.GET, responses.POST):
        web.add(method, BASE + path, status=403, json={"error": True, "code": 403, "errorMessage": "forbidden"})
    web.assert_all_requests_are_fired = False

    with pytest.raises(GdnAuthError) as raised:
        ask(rest)  # type: ignore[operator]
    assert "grant the API key" in str(raised.value)
    assert right in str(raised.value)
    rest.close()
