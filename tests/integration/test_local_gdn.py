"""The local GDN as seen by other clients: requests and websocket-client."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket

from tests.conftest import API_KEY, TENANT, LocalGdn, wait_for

pytestmark = pytest.mark.integration

DEFINITION = """@App:name('t')
@App:qlVersion("2")
CREATE FUNCTION twice[javascript] return double { return data[0] * 2; };
CREATE FUNCTION stuck[javascript] return int { while (true) {} };
CREATE STREAM input (n int, who string);
CREATE STREAM middle (n int, who string);
CREATE STREAM slow (n int);
CREATE TABLE big (doubled double, half int, label string);
CREATE TABLE never (n int);
INSERT INTO middle SELECT n, who FROM input[n > 10 and not (who == 'nobody')];
INSERT INTO big SELECT twice(n) AS doubled, n / 2 AS half, str:concat(who, '-', n) AS label FROM middle;
INSERT INTO never SELECT stuck(n) AS n FROM slow;
"""
APPS = "/_fabric/_system/_api/streamapps"
CURSOR = "/_fabric/_system/_api/cursor"


class Client:
    def __init__(self, gdn: LocalGdn) -> None:
        self.gdn = gdn
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"apikey {API_KEY}"

    def __call__(self, method: str, path: str, body: object = None, **options: Any) -> requests.Response:
        return self.session.request(method, self.gdn.url + path, json=body, timeout=10, **options)

    def producer(self, topic: str, *, tenant: str = TENANT, otp: str | None = None) -> websocket.WebSocket:
        url = f"{self.gdn.url.replace('http', 'ws', 1)}/_ws/ws/v2/producer/persistent/{tenant}/c8local._system/{topic}"
        header = [f"Authorization: apikey {API_KEY}"] if otp is None else []
        return websocket.create_connection(url + (f"?otp={otp}" if otp else ""), header=header, timeout=5)

    def activate(self) -> None:
        assert self("POST", APPS, {"definition": DEFINITION, "regions": []}).status_code == 201
        assert self("PATCH", f"{APPS}/t/active?active=true").json()["streamApps"][0]["isActive"] is True
        time.sleep(0.5)  # the worker attaches its inputs a moment later

    def stats(self) -> Any:
        return self("GET", "/_local/stats").json()


@pytest.fixture
def client(gdn: LocalGdn) -> Iterator[Client]:
    client = Client(gdn)
    yield client
    client.session.close()


def send(socket: websocket.WebSocket, event: object, **frame: str) -> dict[str, Any]:
    payload = base64.b64encode(json.dumps(event).encode()).decode()
    socket.send(json.dumps({"payload": payload, **frame}))
    answer = json.loads(socket.recv())
    assert isinstance(answer, dict)
    return answer


def test_a_worker_is_created_inactive_listed_activated_and_deleted(client: Client) -> None:
    created = client("POST", APPS, {"definition": DEFINITION, "regions": []})
    assert created.status_code == 201
    (app,) = created.json()["streamApps"]
    assert app == {"name": "t", "definition": DEFINITION, "regions": ["local"], "isActive": False}
    assert client("POST", APPS, {"definition": DEFINITION, "regions": []}).status_code == 409
    assert client("GET", f"{APPS}/t").json()["streamApps"] == [app]
    assert client("GET", f"{APPS}/other").status_code == 404
    deleted = client("DELETE", f"{APPS}/t")
    assert (deleted.status_code, "deleted successfully" in deleted.json()["message"]) == (200, True)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("CREAT STREAM s (a int);", "Line: 3. Position: 1"),
        ("CREATE WINDOW w (a int) SLIDING_TIME(1 min);", "the local GDN can't execute"),
        (
            "CREATE STREAM s (a int); CREATE TABLE q (a int); INSERT INTO q SELECT a FROM s WINDOW SLIDING_TIME(1 m);",
            "local GDN",
        ),
        ("CREATE STREAM s (a int); INSERT INTO q SELECT a FROM s;", "no table or stream q"),
        ("CREATE STREAM s (a int); CREATE TABLE q (a int); INSERT INTO q SELECT b AS a FROM s;", "no attribute b"),
        ("CREATE STREAM s (a int); CREATE TABLE q (a int); INSERT INTO q SELECT f(a) AS a FROM s;", "the function f"),
        ("CREATE STREAM s (a int); CREATE TABLE q (a int); INSERT INTO q SELECT a FROM s GROUP BY a;", "GROUP BY"),
        ("CREATE FUNCTION f[javascript] return int { return (; };", "function f"),
    ],
)
def test_what_cant_be_executed_is_refused_with_its_place(client: Client, statement: str, says: str) -> None:
    definition = f"@App:name('t')\n@App:qlVersion(\"2\")\n{statement}"
    answer = client("POST", f"{APPS}/validate", {"definition": definition})

    assert (answer.status_code, answer.json()["errorNum"]) == (422, 422)
    assert says in answer.json()["errorMessage"]
    assert "Line: 3." in answer.json()["errorMessage"]


def test_a_definition_without_version_is_parsed_by_the_old_grammar(client: Client) -> None:
    answer = client("POST", APPS, {"definition": "@App:name('t') CREATE STREAM s (a int);", "regions": []})

    assert answer.status_code == 422
    assert "DEFINE" in answer.json()["errorMessage"]


def test_a_definition_without_a_name_is_refused_and_creates_no_worker(client: Client) -> None:
    answer = client("POST", APPS, {"definition": '@App:qlVersion("2")\nCREATE STREAM s (a int);', "regions": []})

    assert (answer.status_code, answer.json()["errorNum"]) == (422, 422)
    assert "expected @App:name" in answer.json()["errorMessage"]
    assert client("GET", APPS).json()["streamApps"] == []


def test_wrong_keys_and_fabrics_are_refused_in_the_recorded_form(client: Client) -> None:
    wrong = {"Authorization": "apikey nonsense"}

    assert client("GET", APPS, headers=wrong).json() == {
        "error": True,
        "code": 401,
        "errorNum": 11,
        "errorMessage": "forbidden",
    }
    apid = client("POST", "/apid/otp", headers=wrong)
    assert apid.status_code == 401
    assert apid.json() == {"code": 401, "error": True, "message": "Unauthorized", "serverId": "local"}
    assert client("GET", "/_fabric/other/_api/streamapps").json()["errorNum"] == 404
    assert client("POST", "/_fabric/other/_api/cursor", {"query": "RETURN 1"}).json()["errorNum"] == 1228


def test_a_user_logs_in_with_a_password_until_the_token_expires(tmp_path: Path) -> None:
    gdn = LocalGdn(tmp_path, options=["--password", "correct horse", "--token-seconds", "1.5"])
    client = Client(gdn)
    try:
        wrong = client("POST", "/_open/auth", {"email": "root@acme.example", "password": "x"})
        assert (wrong.status_code, wrong.json()["errorMessage"]) == (401, "Wrong credentials")
        for user in ({"email": "root@acme.example"}, {"tenant": TENANT, "username": "root"}):
            answer = client("POST", "/_open/auth", {**user, "password": "correct horse"}, headers={"Authorization": ""})
            assert (answer.json()["tenant"], answer.json()["username"]) == (TENANT, "root")
        token = {"Authorization": f"bearer {answer.json()['jwt']}"}
        assert client("GET", APPS, headers=token).status_code == 200
        assert client("GET", APPS, headers={"Authorization": token["Authorization"][:-2]}).status_code == 401
        wait_for(lambda: client("GET", APPS, headers=token).status_code == 401, seconds=5, what="the token's end")
    finally:
        client.session.close()
        gdn.end()


def test_a_one_time_password_works_once(client: Client) -> None:
    client.activate()
    otp = client("POST", "/apid/otp").json()["otp"]
    client.producer("c8locals.input", otp=otp).close()

    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        client.producer("c8locals.input", otp=otp)
    assert refused.value.status_code == 401


@pytest.mark.parametrize(
    ("topic", "tenant", "status"), [("c8locals.nothing", TENANT, 404), ("c8locals.input", "stranger", 403)]
)
def test_unknown_topics_and_tenants_are_refused(client: Client, topic: str, tenant: str, status: int) -> None:
    client.activate()

    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        client.producer(topic, tenant=tenant)
    assert refused.value.status_code == status


def test_events_go_through_filter_stream_function_and_arithmetic_into_the_table(client: Client) -> None:
    client.activate()
    socket = client.producer("c8locals.input")
    for event in ({"n": 10, "who": "a"}, {"n": 11, "who": "nobody"}, {"n": 13, "who": "b"}, {"n": -3, "who": "c"}):
        assert send(socket, event, context="7")["context"] == "7"
    socket.close()

    rows = wait_for(
        lambda: client.gdn.query("FOR d IN big RETURN {d: d.doubled, h: d.half, l: d.label}"), what="the row"
    )
    assert rows == [{"d": 26, "h": 6, "l": "b-13"}]


def test_the_worker_doesnt_get_what_is_published_before_it_is_active(client: Client) -> None:
    assert client("POST", "/_fabric/_system/_api/streams/input?global=false").status_code == 202
    early = client.producer("c8locals.input")
    assert send(early, {"n": 20, "who": "early"})["result"] == "ok"
    client.activate()
    assert send(early, {"n": 21, "who": "late"})["result"] == "ok"
    early.close()

    rows = wait_for(lambda: client.gdn.query("FOR d IN big RETURN d.label"), what="the row")
    assert rows == ["late-21"]


def test_bad_frames_get_error_answers_and_the_socket_stays_open(client: Client) -> None:
    client.activate()
    socket = client.producer("c8locals.input")
    socket.send("{")
    assert json.loads(socket.recv())["result"] == "send-error:3"
    socket.send(json.dumps({"payload": "???", "context": "9"}))
    assert json.loads(socket.recv()) == {
        "result": "send-error:7",
        "errorMsg": "Invalid Base64 message-payload",
        "context": "9",
    }
    assert send(socket, {"n": 1, "who": "x"})["result"] == "ok"
    socket.close()


def test_an_event_without_an_attribute_is_dropped_and_one_that_takes_too_long_fails_alone(client: Client) -> None:
    client.activate()
    socket, slow = client.producer("c8locals.input"), client.producer("c8locals.slow")
    send(socket, {"n": 50})
    send(slow, {"n": 1})
    send(socket, {"n": 50, "who": "after"})
    socket.close()
    slow.close()

    wait_for(lambda: client.stats()["executed"] == 1, what="the good event")
    stats = client.stats()
    assert (stats["dropped"], stats["errors"]) == (1, 1)
    assert "stuck" in stats["last_error"]


def test_results_come_in_batches(client: Client) -> None:
    query = {
        "query": "FOR n IN [1, 2, 3, 4, 5] FILTER n > @least SORT n DESC LIMIT 4 RETURN n",
        "bindVars": {"least": 1},
    }
    first = client("POST", CURSOR, {**query, "batchSize": 3})
    assert (first.status_code, first.json()["result"], first.json()["hasMore"]) == (201, [5, 4, 3], True)
    again = client("PUT", f"{CURSOR}/{first.json()['id']}")
    assert (again.status_code, again.json()["result"], again.json()["hasMore"]) == (200, [2], False)
    over = client("PUT", f"{CURSOR}/{first.json()['id']}")
    assert (over.status_code, over.json()["errorNum"]) == (404, 1600)


def test_a_query_filters_sorts_and_limits_a_collection_by_its_bind_variables(client: Client) -> None:
    client.activate()
    socket = client.producer("c8locals.input")
    for n in (14, 11, 13, 12):
        send(socket, {"n": n, "who": "d"})
    socket.close()
    wait_for(lambda: client.gdn.count("big") == 4, what="the rows")

    answer = client(
        "POST",
        CURSOR,
        {
            "query": "FOR d IN big FILTER d.doubled >= @least SORT d.doubled DESC LIMIT @most RETURN d.label",
            "bindVars": {"least": 24, "most": 2},
        },
    )
    assert answer.json()["result"] == ["d-14", "d-13"]


def test_a_query_removes_its_documents_and_no_others(client: Client) -> None:
    client.activate()
    socket = client.producer("c8locals.input")
    for n in (11, 12, 13):
        send(socket, {"n": n, "who": "d"})
    socket.close()
    wait_for(lambda: client.gdn.count("big") == 3, what="the rows")

    removed = client(
        "POST", CURSOR, {"query": "FOR d IN big FILTER d.label == 'd-12' REMOVE d IN big RETURN OLD.label"}
    )
    assert (removed.status_code, removed.json()["result"]) == (201, ["d-12"])
    missing = client("POST", CURSOR, {"query": "REMOVE 'there is none' IN big"})
    assert (missing.status_code, missing.json()["errorNum"]) == (404, 1202)
    assert labels(client) == ["d-11", "d-13"]


@pytest.mark.parametrize(
    ("query", "status", "number"),
    [
        ("FOR d IN nothing RETURN d", 404, 1203),
        ("RETURN LENGTH(nothing)", 404, 1203),
        ("FOR d IN", 400, 1501),
        ("RETURN 1 +", 400, 1501),
        ("REMOVE 'x' IN nothing", 404, 1203),
        ("INSERT {} INTO big", 400, 1501),
        ("", 400, 1502),
        ("RETURN @missing", 400, 1551),
        ("RETURN " + "(" * 5000, 400, 1501),
    ],
)
def test_unsupported_queries_are_refused(client: Client, query: str, status: int, number: int) -> None:
    answer = client("POST", CURSOR, {"query": query})

    assert (answer.status_code, answer.json()["errorNum"]) == (status, number)


def test_values_compare_by_kind_first(client: Client) -> None:
    query = 'FOR v IN [[1], "b", null, 2, {"a": 1}, true, "a", 10] SORT v RETURN v'

    assert client.gdn.query(query) == [None, True, 2, 10, "a", "b", [1], {"a": 1}]


# --- faults -----------------------------------------------------------------------------------------------


def labels(client: Client) -> list[str]:
    return [str(label) for label in client.gdn.query("FOR d IN big SORT d.half RETURN d.label")]


def test_an_unknown_fault_or_a_wrong_value_changes_nothing(client: Client) -> None:
    for wrong in (
        {"nonsense": True},
        {"slow": -1},
        {"slow": 0.1, "rest-errors": 200},
        {"no-right": "all"},
        {"deleted": 2},
    ):
        assert client("POST", "/_local/faults", wrong).status_code == 400

    assert client("GET", "/_local/faults").json() == {}


def test_setting_faults_requires_the_key(client: Client) -> None:
    answer = client("POST", "/_local/faults", {"deleted": True}, headers={"Authorization": "apikey nonsense"})

    assert answer.status_code == 401


def test_faults_can_be_set_at_the_start(tmp_path: Path) -> None:
    gdn = LocalGdn(tmp_path, options=["--fault", "slow=0.25", "--fault", "acks-but-drops"])
    try:
        begun = time.monotonic()
        gdn.call("GET", "/_api/user")

        assert time.monotonic() - begun > 0.25
        assert gdn.call("GET", "/_local/faults") == {"slow": 0.25, "acks-but-drops": True}
    finally:
        gdn.end()


def test_rows_can_be_dropped_after_their_receipts(client: Client) -> None:
    client.activate()
    client.gdn.set_faults(acks_but_drops=True)
    socket = client.producer("c8locals.input")
    assert send(socket, {"n": 11, "who": "lost"})["result"] == "ok"
    wait_for(lambda: client.stats()["lost"] == 1, what="the loss")
    client.gdn.set_faults(acks_but_drops=False)
    send(socket, {"n": 12, "who": "kept"})
    socket.close()

    wait_for(lambda: labels(client) == ["kept-12"], what="the row after it")


def test_every_nth_row_can_be_lost_after_its_receipt(client: Client) -> None:
    client.activate()
    client.gdn.set_faults(unpublish_every=3)
    socket = client.producer("c8locals.input")
    assert {send(socket, {"n": n, "who": "d"})["result"] for n in range(20, 28)} == {"ok"}
    socket.close()

    wait_for(lambda: labels(client) == ["d-20", "d-21", "d-23", "d-24", "d-26", "d-27"], what="two thirds")


def test_a_stopped_worker_stays_stopped_until_it_is_activated_again(client: Client) -> None:
    client.activate()

    def active() -> bool:
        return bool(client("GET", f"{APPS}/t").json()["streamApps"][0]["isActive"])

    client.gdn.set_faults(worker_stopped=True)
    assert not active()
    assert client("PATCH", f"{APPS}/t/active?active=true").status_code == 200
    assert not active()
    client.gdn.set_faults(worker_stopped=False)
    assert not active()
    client("PATCH", f"{APPS}/t/active?active=true")
    assert active()


def test_workers_and_new_ones_are_deleted(client: Client) -> None:
    client.activate()
    client.gdn.set_faults(deleted=True)
    assert client("GET", f"{APPS}/t").status_code == 404
    assert client("POST", APPS, {"definition": DEFINITION, "regions": []}).status_code == 201
    assert client("GET", APPS).json()["streamApps"] == []


def test_a_changed_schema_is_stored_and_drops_rows_that_lack_the_new_column(client: Client) -> None:
    client.activate()
    client.gdn.set_faults(schema_changed=True)
    client.gdn.set_faults(schema_changed=False)
    (app,) = client("GET", f"{APPS}/t").json()["streamApps"]
    assert "CREATE STREAM input (addedElsewhere string, n int, who string);" in app["definition"]
    assert "CREATE TABLE big (doubled double," in app["definition"]
    assert app["isActive"]
    socket = client.producer("c8locals.input")
    send(socket, {"n": 20, "who": "old"})
    send(socket, {"n": 21, "who": "new", "addedElsewhere": ""})
    socket.close()

    wait_for(lambda: labels(client) == ["new-21"], what="the row that has the column")


def test_all_of_rest_can_fail_while_sockets_and_faults_still_answer(client: Client) -> None:
    client.activate()
    client.gdn.set_faults(rest_errors=503)

    assert client("GET", APPS).status_code == 503
    assert client("POST", CURSOR, {"query": "RETURN 1"}).json()["errorNum"] == 503
    client.producer("c8locals.input").close()
    client.gdn.set_faults(rest_errors=0)
    assert client("GET", APPS).status_code == 200


@pytest.mark.parametrize("right", ["workers", "queries", "streams"])
def test_a_right_can_be_missing(client: Client, right: str) -> None:
    client.activate()
    client.gdn.set_faults(no_right=right)
    asked = {
        "workers": client("GET", APPS),
        "queries": client("POST", CURSOR, {"query": "RETURN 1"}),
        "streams": client("GET", "/_ws/ws/v2/producer/persistent/acme/c8local._system/c8locals.input"),
    }

    assert {name for name, answer in asked.items() if answer.status_code == 403} == {right}
    if right != "streams":
        assert asked[right].json() == {"error": True, "code": 403, "errorNum": 403, "errorMessage": "forbidden"}


def test_requests_of_a_plan_are_counted_but_not_those_for_the_counts(client: Client) -> None:
    client("GET", APPS)
    client("GET", APPS, headers={"Authorization": "apikey nonsense"})
    client.activate()  # two more
    client.producer("c8locals.input").close()

    for _ in range(2):
        assert (client.stats()["requests"], client.stats()["unauthorized"]) == (5, 1)


# --- regions ----------------------------------------------------------------------------------------------


@pytest.fixture
def two_regions(tmp_path: Path) -> Iterator[Client]:
    gdn = LocalGdn(tmp_path, options=["--host", "0.0.0.0"])
    client = Client(gdn)
    yield client
    client.session.close()
    gdn.end()


def names(client: Client) -> tuple[str, str]:
    """The region that answers, from the body and from the header."""
    answer = client("GET", "/datacenter/local")
    return answer.json()["name"], answer.headers["x-gdn-region"]


def test_the_second_region_exists_where_it_can_be_reached(client: Client, two_regions: Client) -> None:
    assert [region["name"] for region in two_regions("GET", "/datacenter/all").json()] == ["local", "elsewhere"]
    assert two_regions("GET", "/datacenter/elsewhere").json()["tags"]["api"] == f"127.0.0.2:{two_regions.gdn.port}"
    unknown = client("GET", "/datacenter/elsewhere")
    assert (unknown.status_code, unknown.json()["errorNum"]) == (404, 102024)


def test_another_region_can_answer_and_then_links_are_cut(two_regions: Client) -> None:
    two_regions.activate()
    socket = two_regions.producer("c8locals.input")
    assert names(two_regions) == ("local", "local")

    two_regions.gdn.set_faults(region_changed=True)

    assert names(two_regions) == ("elsewhere", "elsewhere")
    assert socket.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
    assert socket.sock is not None
    socket.sock.close()  # WebSocket.close leaves it open once a close frame has been answered
    two_regions.gdn.set_faults(region_changed=False)
    assert names(two_regions) == ("local", "local")


@pytest.mark.parametrize(
    ("asked", "regions"),
    [
        ([], ["local"]),
        (["elsewhere"], ["elsewhere"]),
        (["*"], ["local", "elsewhere"]),
        (["of another GDN"], ["local"]),
    ],
)
def test_a_worker_runs_in_the_requested_region_and_reads_only_its_local_streams(
    two_regions: Client, asked: list[str], regions: list[str]
) -> None:
    created = two_regions("POST", APPS, {"definition": DEFINITION, "regions": asked}).json()["streamApps"][0]
    assert created["regions"] == regions
    two_regions("PATCH", f"{APPS}/t/active?active=true")
    time.sleep(0.5)  # it attaches a moment later
    url = two_regions.gdn.url
    for host, n in (("127.0.0.1", 11), ("127.0.0.2", 12)):
        two_regions.gdn.url = url.replace("127.0.0.1", host)
        socket = two_regions.producer("c8locals.input")
        send(socket, {"n": n, "who": "d"})
        socket.close()
    two_regions.gdn.url = url

    wanted = [label for label, region in (("d-11", "local"), ("d-12", "elsewhere")) if region in regions]
    wait_for(lambda: labels(two_regions) == wanted, what=f"{wanted}")
    assert two_regions.stats()["received_in"] == {"local": 1, "elsewhere": 1}
