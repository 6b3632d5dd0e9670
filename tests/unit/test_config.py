"""Settings from their sources: precedence, what is refused, and the messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import FieldTable, RouteSettings, Settings, load, places
from bridge.config.health import HealthCheck
from bridge.config.routes import ExampleTable
from bridge.config.tree import annotation_at, is_group
from bridge.errors import ConfigError

ROUTE = {"topic": "devices/{deviceID}", "stream": "readings"}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The smallest valid configuration."""
    definition = tmp_path / "worker.sql"
    definition.write_text("@App:name('w')")
    return {
        "BRIDGE_MQTT__URL": "mqtt://broker",
        "BRIDGE_GDN__URL": "https://gdn.example",
        "BRIDGE_GDN__API_KEY": "tenant.key.secret",
        "BRIDGE_GDN__TENANT": "tenant",
        "BRIDGE_WORKER__DEFINITION": str(definition),
        "BRIDGE_ROUTES": json.dumps([ROUTE]),
    }


def read(environ: dict[str, str], config_file: Path | None = None, **more: str) -> Settings:
    return load(config_file=config_file, environ=environ | more, secret_directories=())


def problems(environ: dict[str, str], config_file: Path | None = None, **more: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(environ, config_file, **more)
    return caught.value.problems


def toml(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "bridge.toml"
    file.write_text(text)
    return file


def test_the_least_configuration_has_safe_defaults(environ: dict[str, str]) -> None:
    settings = read(environ)

    assert settings.mqtt.brokers == [(False, "broker", 1883, None)]
    assert settings.gdn.api_key is not None
    assert settings.gdn.api_key.get_secret_value() == "tenant.key.secret"
    assert (settings.status.host, settings.status.port) == ("127.0.0.1", 8080)
    assert settings.mqtt.session_expiry == 604800
    assert settings.delivery.window == 500
    assert settings.outbox.path == Path("outbox.db")
    assert settings.routes[0].fields == {}


def test_only_the_values_passed_in_are_read(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_MQTT__URL", "mqtt://elsewhere")
    monkeypatch.setenv("mqtt", '{"url": "mqtt://elsewhere"}')

    assert read(environ).mqtt.brokers[0].host == "broker"


def test_settings_cannot_be_changed(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        read(environ).mqtt.keepalive = 7  # type: ignore[misc]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker:1884", (False, "broker", 1884, None)),
        ("mqtts://broker", (True, "broker", 8883, None)),
        ("MQTT://broker/", (False, "broker", 1883, None)),
        ("mqtts://[::1]:18883", (True, "::1", 18883, None)),
        ("ws://broker", (False, "broker", 80, "/mqtt")),
        ("wss://broker/", (True, "broker", 443, "/")),
        ("WSS://[::1]:8084/a/b", (True, "::1", 8084, "/a/b")),
    ],
)
def test_the_broker_url_is_split_into_tls_host_port_and_path(
    environ: dict[str, str], url: str, expected: tuple[bool, str, int, str | None]
) -> None:
    mqtt = read(environ, BRIDGE_MQTT__URL=url).mqtt

    assert mqtt.brokers == [expected]
    assert mqtt.tls is expected[0]


@pytest.mark.parametrize(
    "url",
    [
        "broker",
        "http://broker",
        "mqtt://",
        "mqtt://broker:port",
        "mqtt://broker:0",
        "mqtt://broker:70000",
        "mqtt://broker/topic",
        "mqtt://broker?x=1",
        "mqtt://[::1",
        "mqtt://bro ker",
        "ws://",
        "ws://broker:0/mqtt",
        "ws://broker/mqtt?x=1",
        "ws://broker/mqtt#x",
        "ws://broker/mq tt",
        "ws://broker/mqtt\u00e9",
        "wss://user@broker/mqtt",
        "mqtt://\u2100broker",
    ],
)
def test_a_wrong_broker_url_is_refused_by_its_variable(environ: dict[str, str], url: str) -> None:
    (problem,) = problems(environ, BRIDGE_MQTT__URL=url)

    assert problem.startswith("BRIDGE_MQTT__URL: ")


BROKERS = [(False, "a", 1883, None), (False, "b", 1884, None)]


@pytest.mark.parametrize(
    "text", ["mqtt://a,mqtt://b:1884", "mqtt://a , mqtt://b:1884", '["mqtt://a", "mqtt://b:1884"]']
)
def test_several_brokers_are_a_list_in_the_file_and_commas_or_json_in_a_variable(
    environ: dict[str, str], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text('[mqtt]\nurl = ["mqtt://a", "mqtt://b:1884"]\n')
    without = {name: value for name, value in environ.items() if name != "BRIDGE_MQTT__URL"}

    assert read(environ, BRIDGE_MQTT__URL=text).mqtt.brokers == BROKERS
    assert load(config_file=file, environ=without).mqtt.brokers == BROKERS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mqtt://a,mqtts://b", "mixes URLs with TLS (mqtts://, wss://) and without"),
        ("ws://a,wss://b", "mixes URLs with TLS"),
        ("wss://a/mqtt,wss://a/other", "names a broker twice"),
        ("mqtt://a,mqtt://a:1883", "names a broker twice"),
        ("mqtt://a,", "must start with mqtt:// or mqtts://"),
        ("mqtt://a,mqtt://user:hunter2@b", "mqtt.username and mqtt.password"),
        ('["mqtt://a"', "is JSON"),
        ("[1]", "a broker's URL or a list of them"),
        ("[]", "at least one broker"),
        (",".join(f"mqtt://b{n}" for n in range(17)), "at most 16"),
    ],
)
def test_brokers_that_cannot_be_used_together_are_refused(environ: dict[str, str], text: str, said: str) -> None:
    (problem,) = problems(environ, BRIDGE_MQTT__URL=text)

    assert problem.startswith("BRIDGE_MQTT__URL: ")
    assert said in problem
    assert "hunter2" not in problem


def test_user_and_password_in_the_broker_url_are_refused_and_their_settings_named(environ: dict[str, str]) -> None:
    (problem,) = problems(environ, BRIDGE_MQTT__URL="mqtt://user:hunter2@broker")

    assert "mqtt.username and mqtt.password" in problem
    assert "hunter2" not in problem


def test_every_problem_is_reported_at_once(environ: dict[str, str]) -> None:
    found = problems(
        environ,
        BRIDGE_MQTT__KEEPALIVE="soon",
        BRIDGE_DELIVERY__WINDOW="1001",
        BRIDGE_GDN__AUTHENTICATION="magic",
        BRIDGE_GDN__TENANT="a/b",
        BRIDGE_STATUS__LISTEN="8080",
        BRIDGE_STOP_TIMEOUT="nan",
        BRIDGE_LOGLEVEL="debug",
        BRIDGE_CANARY__ENABLED="maybe",
        BRIDGE_OUTBOX__MAX_BYTES="1GB",
    )

    assert found == (
        "BRIDGE_LOGLEVEL: there is no such setting; did you mean BRIDGE_LOG__LEVEL?",
        "BRIDGE_MQTT__KEEPALIVE: must be a whole number from 5 to 65535",
        "BRIDGE_GDN__TENANT: must be the name alone, without slash or space",
        "BRIDGE_GDN__AUTHENTICATION: must be otp or header",
        "BRIDGE_OUTBOX__MAX_BYTES: must be a whole number from 1048576 to 1099511627776",
        "BRIDGE_DELIVERY__WINDOW: must be a whole number from 1 to 1000",
        "BRIDGE_CANARY__ENABLED: must be true or false",
        "BRIDGE_STATUS__LISTEN: must be host:port, with a port from 0 to 65535, such as 127.0.0.1:8080, [::1]:8080 or "
        "0.0.0.0:8080",
        "BRIDGE_STOP_TIMEOUT: must be a number from 1 to 600",
    )


def test_nothing_set_names_every_required_setting() -> None:
    names = [problem.partition(":")[0] for problem in problems({})]

    assert names == [
        "BRIDGE_MQTT__URL",
        "BRIDGE_GDN__URL",
        "BRIDGE_GDN__API_KEY",
        "BRIDGE_WORKER__DEFINITION",
        "BRIDGE_ROUTES",
    ]


def test_a_missing_setting_without_a_file_mentions_the_config_option() -> None:
    assert all("--config" in problem for problem in problems({}) if "API_KEY" not in problem)


LOGIN = {"BRIDGE_GDN__EMAIL": "a@b.example", "BRIDGE_GDN__PASSWORD": "pass word"}


@pytest.mark.parametrize(
    "changes",
    [
        LOGIN,
        {"BRIDGE_GDN__USERNAME": "bridge", "BRIDGE_GDN__TENANT": "tenant", "BRIDGE_GDN__PASSWORD": "p"},
    ],
)
def test_a_password_replaces_the_api_key(environ: dict[str, str], changes: dict[str, str]) -> None:
    del environ["BRIDGE_GDN__API_KEY"]
    del environ["BRIDGE_GDN__TENANT"]

    gdn = load(config_file=None, environ={**environ, **changes}).gdn

    assert gdn.password is not None
    assert gdn.password.get_secret_value() == changes["BRIDGE_GDN__PASSWORD"]
    assert gdn.api_key is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (LOGIN, "BRIDGE_GDN__API_KEY: is set together with gdn.password"),
        ({"BRIDGE_GDN__EMAIL": "a@b.example"}, "BRIDGE_GDN__PASSWORD: is required and not set"),
        ({"BRIDGE_GDN__PASSWORD": "p"}, "BRIDGE_GDN__PASSWORD: requires either gdn.email, or gdn.username"),
        ({**LOGIN, "BRIDGE_GDN__USERNAME": "b"}, "BRIDGE_GDN__PASSWORD: requires either gdn.email, or gdn.username"),
        ({**LOGIN, "BRIDGE_GDN__KIND": "pulsar"}, "BRIDGE_GDN__PASSWORD: works only with a GDN"),
    ],
)
def test_credentials_that_contradict_each_other_are_refused(
    environ: dict[str, str], changes: dict[str, str], said: str
) -> None:
    assert said in "\n".join(problems({**environ, **changes}))


@pytest.mark.parametrize(
    "changes", [{"BRIDGE_GDN__KIND": "pulsar"}, {"BRIDGE_GDN__USERNAME": "b", "BRIDGE_GDN__PASSWORD": "p"}]
)
def test_the_tenant_is_required_where_gdn_cant_be_asked_for_it(
    environ: dict[str, str], changes: dict[str, str]
) -> None:
    for name in ("BRIDGE_GDN__API_KEY", "BRIDGE_GDN__TENANT"):
        del environ[name]

    assert [problem.partition(":")[0] for problem in problems({**environ, **changes})] == ["BRIDGE_GDN__TENANT"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BRIDGE_MQTT__PROT", "did you mean BRIDGE_MQTT__PROTOCOL?"),
        ("BRIDGE_MQTT_URL", "did you mean BRIDGE_MQTT__URL?"),
        ("BRIDGE_API_KEY", "did you mean BRIDGE_GDN__API_KEY?"),
        ("BRIDGE_GDN__APIKEY_FILE", "did you mean BRIDGE_GDN__API_KEY_FILE?"),
        ("BRIDGE_ROUTES__3__TOPIK", "did you mean BRIDGE_ROUTES__3__TOPIC?"),
        ("bridge_mqtt__url", "did you mean BRIDGE_MQTT__URL?"),
        ("BRIDGE_MQTT__URL__HOST", "docs/settings.md lists all settings"),
        ("BRIDGE_ROUTES__X__TOPIC", ""),
        ("BRIDGE_ROUTES__01__TOPIC", ""),
        ("BRIDGE_", ""),
        ("BRIDGE_MQTT__", ""),
    ],
)
def test_an_unknown_variable_is_refused_with_a_suggestion(environ: dict[str, str], name: str, meant: str) -> None:
    (problem,) = problems(environ | {name: "1"})

    assert problem.startswith(f"{name}: there is no such setting; ")
    assert meant in problem


def test_an_empty_variable_counts_as_not_set(environ: dict[str, str]) -> None:
    assert read(environ, BRIDGE_MQTT__USERNAME="").mqtt.username is None


def test_the_environment_overrides_the_file(environ: dict[str, str], tmp_path: Path) -> None:
    file = toml(tmp_path, '[mqtt]\nurl = "mqtt://other"\nkeepalive = 60\n')

    settings = read(environ, file)

    assert (settings.mqtt.brokers[0].host, settings.mqtt.keepalive) == ("broker", 60)


def test_overrides_override_the_environment(environ: dict[str, str]) -> None:
    settings = load(
        config_file=None,
        environ=environ | {"BRIDGE_LOG__LEVEL": "error"},
        overrides={"log.level": "debug"},
        secret_directories=(),
    )

    assert settings.log.level == "debug"


def test_an_unknown_override_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"log\.levle, on the command line: .* did you mean log\.level\?"):
        load(config_file=None, environ=environ, overrides={"log.levle": "debug"}, secret_directories=())


# --- routes and other lists ------------------------------------------------------------------------------


def test_routes_may_be_json_or_numbered_variables(environ: dict[str, str]) -> None:
    as_json = read(environ, BRIDGE_ROUTES=json.dumps([ROUTE | {"fields": {"unitName": "=C"}}])).routes
    del environ["BRIDGE_ROUTES"]
    numbered = read(
        environ,
        BRIDGE_ROUTES__0__TOPIC=ROUTE["topic"],
        BRIDGE_ROUTES__0__STREAM=ROUTE["stream"],
        BRIDGE_ROUTES__0__FIELDS__unitName="=C",
    ).routes

    assert numbered == as_json


@pytest.mark.parametrize(
    ("variables", "overrides"),
    [
        ({"BRIDGE_OUTBOX__SHARES": '{"alarms": 0.5, "rawData": 0.25}'}, {}),
        ({"BRIDGE_OUTBOX__SHARES__alarms": "0.5", "BRIDGE_OUTBOX__SHARES__rawData": "0.25"}, {}),
        ({"BRIDGE_OUTBOX__SHARES__alarms": "0.5"}, {"outbox.shares.rawData": "0.25"}),
    ],
)
def test_shares_are_json_or_a_variable_for_each_stream_which_keeps_its_case(
    environ: dict[str, str], variables: dict[str, str], overrides: dict[str, str]
) -> None:
    loaded = load(config_file=None, environ=environ | variables, overrides=overrides, secret_directories=())

    assert loaded.outbox.shares == {"alarms": 0.5, "rawData": 0.25}
    assert loaded.outbox.bounds.shares == {"alarms": 0.5, "rawData": 0.25}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ('{"a": 0}', "BRIDGE_OUTBOX__SHARES: must contain fractions of outbox.max_bytes, above 0 and at most 1"),
        ('{"a": 1.5}', "BRIDGE_OUTBOX__SHARES: must contain fractions of outbox.max_bytes, above 0 and at most 1"),
        ('{"a": 0.7, "b": 0.4}', "BRIDGE_OUTBOX__SHARES: has a sum above 1"),
        ('{"a": "half"}', "BRIDGE_OUTBOX__SHARES, a: must be a number"),
        ("[0.5]", "BRIDGE_OUTBOX__SHARES: must be a table of numbers"),
    ],
)
def test_shares_that_cannot_be_divided_are_refused(environ: dict[str, str], value: str, says: str) -> None:
    (problem,) = problems(environ | {"BRIDGE_OUTBOX__SHARES": value})

    assert problem.startswith(says)


def test_shares_may_divide_everything(environ: dict[str, str]) -> None:
    shares = {"a": 0.7, "b": 0.2, "c": 0.1}  # as floats their sum is below 1, in another order above it
    loaded = load(
        config_file=None, environ=environ | {"BRIDGE_OUTBOX__SHARES": json.dumps(shares)}, secret_directories=()
    )

    assert loaded.outbox.shares == shares


def test_a_single_setting_overrides_its_group_in_json(environ: dict[str, str]) -> None:
    settings = read(
        environ,
        BRIDGE_ROUTES__0__STREAM="other",
        BRIDGE_LOG='{"level": "error", "format": "json"}',
        BRIDGE_LOG__LEVEL="INFO",
    )

    assert (settings.routes[0].stream, settings.routes[0].topic) == ("other", ROUTE["topic"])
    assert (settings.log.level, settings.log.format) == ("info", "json")


def test_a_list_in_the_environment_replaces_that_of_the_file(environ: dict[str, str], tmp_path: Path) -> None:
    file = toml(tmp_path, '[worker]\nregions = ["a", "b"]\n')

    assert read(environ, file).worker.regions == ["a", "b"]
    assert read(environ, file, BRIDGE_WORKER__REGIONS='["c"]').worker.regions == ["c"]
    assert read(environ, file, BRIDGE_WORKER__REGIONS="[]").worker.regions == []
    assert read(environ, file, BRIDGE_WORKER__REGIONS__0="d").worker.regions == ["d"]


def test_a_gap_between_numbered_routes_is_named(environ: dict[str, str]) -> None:
    del environ["BRIDGE_ROUTES"]

    found = problems(environ, BRIDGE_ROUTES__1__TOPIC="a", BRIDGE_ROUTES__1__STREAM="b")

    assert [problem.partition(":")[0] for problem in found] == ["BRIDGE_ROUTES__0__TOPIC", "BRIDGE_ROUTES__0__STREAM"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[{]", "BRIDGE_ROUTES: must be a list, written as JSON: "),
        ('{"topic": "a"}', "BRIDGE_ROUTES: must be a list of routes"),
        ("[]", "BRIDGE_ROUTES: must contain at least one route"),
        ("[5]", "BRIDGE_ROUTES, [0]: must be a table"),
        ('[{"topic": "a"}]', "BRIDGE_ROUTES, [0]: stream is required and not set"),
        ('[{"topic": "", "stream": "s"}]', "BRIDGE_ROUTES, [0].topic: must not be empty"),
        (
            '[{"topic": "a", "stream": "s", "fields": {"x": [1]}}]',
            "BRIDGE_ROUTES, [0].fields.x: must be a string, a number, true or false",
        ),
        (
            '[{"topic": "a", "stream": "s", "feilds": {}}]',
            "BRIDGE_ROUTES, [0].feilds: there is no such setting; did you mean routes[0].fields?",
        ),
        (
            '[{"topic": "a", "stream": "s", "fields": {"x": {"source": "a", "zoen": "UTC"}}}]',
            "BRIDGE_ROUTES, [0].fields.x.zoen: there is no such setting; did you mean routes[0].fields.x.zone?",
        ),
        (
            '[{"topic": "a", "stream": "s", "fields": {"x": {"source": "a", "default": {"source": "b", "bitt": 1}}}}]',
            "BRIDGE_ROUTES, [0].fields.x.default.bitt: there is no such setting; did you mean "
            "routes[0].fields.x.default.bit?",
        ),
        (
            '[{"topic": "a", "stream": "s", "fields": {"x": {"source": "a", "default": [1]}}}]',
            "BRIDGE_ROUTES, [0].fields.x.default: must be a string, a number, true or false, or a table with source",
        ),
        (
            '[{"topic": "a", "stream": "s", "event_time": {"source": "a", "tmie": "s"}}]',
            "BRIDGE_ROUTES, [0].event_time.tmie: there is no such setting; did you mean routes[0].event_time.time?",
        ),
        (
            '[{"topic": "a", "stream": "s", "every": "ten"}]',
            "BRIDGE_ROUTES, [0].every: must be a number from 0.001 to 86400",
        ),
        (
            '[{"topic": "a", "stream": "s", "change": {"t": -1}}]',
            "BRIDGE_ROUTES, [0].change: must be a number from 0, or a table of such numbers by column",
        ),
        (
            '[{"topic": "a", "stream": "s", "on_empty": "drop"}]',
            "BRIDGE_ROUTES, [0].on_empty: must be next or dead_letter",
        ),
        ("[" * 100_000, "BRIDGE_ROUTES: must be a list, written as JSON"),
    ],
)
def test_invalid_routes_are_one_problem_with_its_place(environ: dict[str, str], text: str, expected: str) -> None:
    (problem,) = problems(environ, BRIDGE_ROUTES=text)

    assert problem.startswith(expected)


@given(
    fields=st.dictionaries(
        st.text(min_size=1).filter(str.isprintable),
        st.text() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(),
        max_size=4,
    )
)
def test_field_values_keep_value_and_type(fields: dict[str, str | int | float | bool]) -> None:
    environ = {"BRIDGE_ROUTES": json.dumps([ROUTE | {"fields": fields}])}
    more = {"mqtt": "mqtt://h", "gdn": "https://h"}
    environ |= {f"BRIDGE_{group.upper()}__URL": url for group, url in more.items()}
    environ |= {"BRIDGE_GDN__API_KEY": "k", "BRIDGE_GDN__TENANT": "t", "BRIDGE_WORKER__DEFINITION": __file__}

    read_back = read(environ).routes[0].fields

    assert {key: (type(value), value) for key, value in read_back.items()} == {
        key: (type(value), value) for key, value in fields.items()
    }


# --- the file --------------------------------------------------------------------------------------------

WRONG = """\
stop_timeout = 0

[mqtt]
url = "mqtt://broker"
colour = "blue"
keepalive = [
  1,
]

[[routes]]
topic = "a"
stream = "s"

[[routes]]
topik = "b"
stream = "s"
fields = { x = 1, y = 1979-05-27 }

[log]
level = "loud"
"""


def test_problems_of_the_file_name_line_and_key(environ: dict[str, str], tmp_path: Path) -> None:
    file = toml(tmp_path, WRONG)
    del environ["BRIDGE_ROUTES"], environ["BRIDGE_MQTT__URL"]

    assert sorted(problems(environ, file)) == [
        f"{file}:14: routes[1]: topic is required and not set",
        f"{file}:15: routes[1].topik: there is no such setting; did you mean routes[1].topic?",
        f"{file}:17: routes[1].fields.y: must be a string, a number, true or false, or a table with source",
        f"{file}:1: stop_timeout: must be a number from 1 to 600",
        f"{file}:20: log.level: must be debug, info, warning or error",
        f"{file}:5: mqtt.colour: there is no such setting; docs/settings.md lists all settings",
        f"{file}:6: mqtt.keepalive: must be a whole number from 5 to 65535",
    ]


def test_lines_are_right_in_a_file_from_windows(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_bytes(b"# a\r\n[log]\r\nlevel = 1\r\n")

    assert problems(environ, file) == (f"{file}:3: log.level: must be debug, info, warning or error",)


def test_a_value_instead_of_a_table_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    file = toml(tmp_path, "log = 5\n")

    assert problems(environ, file) == (f"{file}:1: log: must be a table",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[mqtt]\nurl = mqtt://broker\n", ":2:7: not TOML: Invalid value; strings need quotes"),
        ("[mqtt]\nurl = 'x", ":2:9: not TOML: Expected"),
        ("a = 1\na = 2\n", ":2:6: not TOML: Cannot overwrite a value"),
        ("a = " + "[" * 100_000, ": the configuration file has a number too long or a nesting too deep"),
        ("a = " + "1" * 5000, ": the configuration file has a number too long or a nesting too deep"),
    ],
)
def test_invalid_toml_is_reported_with_its_place(
    environ: dict[str, str], tmp_path: Path, text: str, expected: str
) -> None:
    file = toml(tmp_path, text)

    (problem,) = problems(environ, file)

    assert problem.startswith(f"{file}{expected}")


def test_a_missing_file_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "absent.toml"

    assert problems(environ, file) == (f"{file}: the configuration file can't be read: No such file or directory",)


def test_a_file_in_another_encoding_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_bytes(b"# \xff")

    assert problems(environ, file) == (f"{file}: the configuration file is not UTF-8 text",)


def test_problems_of_the_environment_are_reported_together_with_a_broken_file(
    environ: dict[str, str], tmp_path: Path
) -> None:
    found = problems(environ, toml(tmp_path, "["), BRIDGE_LOGLEVEL="info")

    assert len(found) == 2


# --- paths -----------------------------------------------------------------------------------------------


def test_paths_in_the_file_are_relative_to_its_directory(environ: dict[str, str], tmp_path: Path) -> None:
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "w.sql").write_text("x")
    file = toml(directory, '[worker]\ndefinition = "w.sql"\n[outbox]\npath = "/var/o.db"\n')
    del environ["BRIDGE_WORKER__DEFINITION"]

    settings = read(environ, file)

    assert settings.worker.definition == directory / "w.sql"
    assert settings.outbox.path == Path("/var/o.db")


def test_paths_in_the_environment_are_relative_to_the_working_directory(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc").mkdir()

    settings = read(environ, toml(tmp_path / "etc", ""), BRIDGE_WORKER__DEFINITION="worker.sql")

    assert settings.worker.definition == Path("worker.sql")


def test_the_outbox_is_in_the_state_directory_by_default(environ: dict[str, str], tmp_path: Path) -> None:
    file = toml(tmp_path, '[outbox]\npath = "o.db"\n')

    assert read(environ, STATE_DIRECTORY="/var/lib/b:/var/lib/c").outbox.path == Path("/var/lib/b/outbox.db")
    assert read(environ, file, STATE_DIRECTORY="/var/lib/b").outbox.path == tmp_path / "o.db"


@pytest.mark.parametrize("name", ["BRIDGE_WORKER__DEFINITION", "BRIDGE_GDN__CA_FILE"])
def test_a_file_that_cannot_be_read_is_refused(environ: dict[str, str], tmp_path: Path, name: str) -> None:
    (problem,) = problems(environ | {name: str(tmp_path / "absent")})

    assert problem.startswith(f"{name}: can't be read: No such file or directory")


def test_a_directory_as_outbox_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    (problem,) = problems(environ, BRIDGE_OUTBOX__PATH=str(tmp_path))

    assert problem.startswith("BRIDGE_OUTBOX__PATH: is a directory")


# --- settings that need each other -----------------------------------------------------------------------


def test_a_password_needs_a_user_name(environ: dict[str, str]) -> None:
    (problem,) = problems(environ, BRIDGE_MQTT__PASSWORD="hunter2")

    assert problem.startswith("BRIDGE_MQTT__PASSWORD: is set, but mqtt.username isn't")


def test_certificate_and_key_need_each_other(environ: dict[str, str], tmp_path: Path) -> None:
    environ["BRIDGE_MQTT__URL"] = "mqtts://broker"
    certificate = tmp_path / "client.pem"
    certificate.write_text("-----BEGIN CERTIFICATE-----\n")

    assert problems(environ, BRIDGE_MQTT__CERT_FILE=str(certificate)) == (
        "BRIDGE_MQTT__KEY_FILE: is required with mqtt.cert_file",
    )
    assert problems(environ, BRIDGE_MQTT__KEY_FILE=__file__)[0].startswith("BRIDGE_MQTT__KEY_FILE: is set, but")


def pair(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate and its private key as files."""
    issued = trustme.CA().issue_cert(name)
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    return cert, key


def test_a_key_of_another_certificate_or_with_a_passphrase_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    environ["BRIDGE_MQTT__URL"] = "mqtts://broker"
    cert, key = pair(tmp_path, "good")
    _, other = pair(tmp_path, "other")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    environ["BRIDGE_MQTT__CERT_FILE"] = str(cert)

    assert read(environ | {"BRIDGE_MQTT__KEY_FILE": str(key)}).mqtt.key_file == key
    (mismatch,) = problems(environ, BRIDGE_MQTT__KEY_FILE=str(other))
    assert mismatch.startswith("BRIDGE_MQTT__KEY_FILE: doesn't belong to mqtt.cert_file, or is damaged")
    (refused,) = problems(environ, BRIDGE_MQTT__KEY_FILE=str(encrypted))
    assert refused.startswith("BRIDGE_MQTT__KEY_FILE: the private key has a passphrase: remove it with `openssl pkey")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("BRIDGE_MQTT__CA_FILE", "certificate"),
        ("BRIDGE_GDN__CA_FILE", "certificate"),
        ("BRIDGE_MQTT__CERT_FILE", "certificate"),
        ("BRIDGE_MQTT__KEY_FILE", "private key"),
    ],
)
def test_a_tls_file_that_is_no_pem_is_named(environ: dict[str, str], tmp_path: Path, name: str, what: str) -> None:
    cert, key = pair(tmp_path, "good")
    good, wrong = tmp_path / "both.pem", tmp_path / "wrong.pem"
    good.write_text(cert.read_text() + key.read_text())
    wrong.write_bytes(b"\x30\x82\x01\x02")
    environ["BRIDGE_MQTT__URL"] = "mqtts://broker"
    both = {"BRIDGE_MQTT__CERT_FILE": str(good), "BRIDGE_MQTT__KEY_FILE": str(good)}

    (problem,) = problems(environ | both | {name: str(wrong)})

    assert problem.startswith(f"{name}: {wrong} has no {what} in PEM format")
    assert read(environ | both | {name: str(good)}).mqtt.cert_file == good


ROUTES_ONLY = {"BRIDGE_MQTT__URL", "BRIDGE_GDN__URL", "BRIDGE_GDN__API_KEY", "BRIDGE_GDN__TENANT"}


@pytest.mark.parametrize(
    "extra", [{}, {"BRIDGE_GDN__KIND": "pulsar"}, {"BRIDGE_GDN__USERNAME": "u"}, {"BRIDGE_GDN__EMAIL": "e@x"}]
)
def test_offline_no_address_and_no_credentials_are_required(environ: dict[str, str], extra: dict[str, str]) -> None:
    environ = {name: value for name, value in environ.items() if name not in ROUTES_ONLY} | extra

    settings = load(config_file=None, environ=environ, secret_directories=(), offline=True)

    assert settings.routes[0].stream == "readings"
    assert settings.mqtt.brokers[0].host.endswith(".invalid")
    with pytest.raises(ConfigError, match="BRIDGE_MQTT__URL: is required"):
        load(config_file=None, environ=environ, secret_directories=())


def test_offline_a_value_that_is_set_is_still_checked(environ: dict[str, str]) -> None:
    environ["BRIDGE_GDN__URL"] = "ftp://x"
    del environ["BRIDGE_GDN__API_KEY"]

    with pytest.raises(ConfigError) as caught:
        load(config_file=None, environ=environ, secret_directories=(), offline=True)

    (problem,) = caught.value.problems
    assert problem.startswith("BRIDGE_GDN__URL: must be https://host")


@pytest.mark.parametrize("url", ["mqtt://broker", "ws://broker", "wss://broker"])
def test_alpn_without_a_url_that_takes_it_is_refused(environ: dict[str, str], url: str) -> None:
    (problem,) = problems(environ | {"BRIDGE_MQTT__URL": url, "BRIDGE_MQTT__ALPN": "mqtt"})

    assert problem.startswith("BRIDGE_MQTT__ALPN: is for mqtts://")


def test_alpn_is_only_for_mqtt_without_websocket(environ: dict[str, str]) -> None:
    mqtt = read(environ, BRIDGE_MQTT__URL="mqtts://a,wss://b", BRIDGE_MQTT__ALPN="mqtt").mqtt

    assert [tls.alpn for broker in mqtt.brokers if (tls := mqtt.tls_files(broker))] == ["mqtt", None]


@pytest.mark.parametrize(
    ("group", "url"), [("MQTT", "mqtt://broker"), ("MQTT", "ws://broker"), ("GDN", "http://gdn.example")]
)
def test_tls_files_without_tls_are_refused(environ: dict[str, str], group: str, url: str) -> None:
    (problem,) = problems(environ | {f"BRIDGE_{group}__URL": url, f"BRIDGE_{group}__CA_FILE": __file__})

    assert problem.startswith(f"BRIDGE_{group}__CA_FILE: is for TLS")


def test_protocol_5_may_be_written_as_a_number(environ: dict[str, str], tmp_path: Path) -> None:
    assert read(environ, toml(tmp_path, "[mqtt]\nprotocol = 5\n")).mqtt.protocol == "5"


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::1]:8080", "localhost:0"])
def test_listen_takes_names_and_addresses(environ: dict[str, str], listen: str) -> None:
    status = read(environ, BRIDGE_STATUS__LISTEN=listen).status

    assert (status.host, status.port) == (listen.rpartition(":")[0].strip("[]"), int(listen.rpartition(":")[2]))


@pytest.mark.parametrize("listen", ["8080", ":8080", "host:", "host:99999", "a:b:c", "http://host:80", "u@h:80"])
def test_a_listen_address_without_host_and_port_is_refused(environ: dict[str, str], listen: str) -> None:
    (problem,) = problems(environ, BRIDGE_STATUS__LISTEN=listen)

    assert problem.startswith("BRIDGE_STATUS__LISTEN: must be host:port")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["topic", "stream", "fields", "url", "path", "0", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


NESTED = {
    "fields": {"t": FieldTable},
    "event_time": FieldTable,
    "test": [ExampleTable],
    "checks": [HealthCheck],
}
"""Tables inside a section's or route's tables, by the setting that holds them."""

WRONG_TYPES = [
    *('"x"', '""', "7", "-1", "1.5", "nan", "-inf", "true", "9223372036854775808", "1e400"),
    *(
        "[]",
        "[1]",
        "[[]]",
        "[{}]",
        "{}",
        "{ a = 1 }",
        "{ source = {} }",
        "2026-01-31",
        "2026-01-31T12:00:00Z",
        "07:32:00",
    ),
]


def filled(group: Any, value: str) -> str:
    """A table, in TOML on one line, in which every setting has this value; tables inside it are filled too."""
    members = []
    for name in group.model_fields:
        inner = NESTED.get(name)
        if isinstance(inner, dict):
            members.append(f"{name} = {{ {', '.join(f'{key} = {filled(one, value)}' for key, one in inner.items())} }}")
        elif isinstance(inner, list):
            members.append(f"{name} = [{', '.join(filled(one, value) for one in inner)}]")
        else:
            members.append(f"{name} = {value if inner is None else filled(inner, value)}")
    return f"{{ {', '.join(members)} }}"


def sections() -> dict[str, Any]:
    return {name: annotation_at((name,)) for name, field in Settings.model_fields.items() if is_group(field.annotation)}


@pytest.mark.parametrize("value", WRONG_TYPES)
def test_any_type_of_value_in_any_setting_is_accepted_or_reported_with_its_place(tmp_path: Path, value: str) -> None:
    lines = [f"{name} = {filled(group, value)}" for name, group in sections().items()]
    lines += [f"routes = [{filled(RouteSettings, value)}]", f"stop_timeout = {value}"]
    file = toml(tmp_path, "\n".join(lines))

    found = problems({}, file)

    assert [problem for problem in found if not problem.startswith((f"{file}:", "BRIDGE_"))] == []
    assert any(problem.startswith(f"{file}:") for problem in found)


@pytest.mark.parametrize("value", WRONG_TYPES)
@pytest.mark.parametrize("name", [*Settings.model_fields, "health.checks", "routes[0]"])
def test_any_type_of_value_for_a_whole_section_is_reported_or_accepted(tmp_path: Path, name: str, value: str) -> None:
    key, _, index = name.partition("[")
    file = toml(tmp_path, f"{key} = {f'[{value}]' if index else value}")

    found = problems({}, file)

    assert [problem for problem in found if not problem.startswith((f"{file}:", "BRIDGE_"))] == []


@pytest.mark.parametrize("setting", ["fields.t.scale", "fields.t.offset", "event_time.scale", "event_time.offset"])
@pytest.mark.parametrize("value", ['"ten"', "1e301", "[1]"])
def test_a_wrong_factor_is_answered_with_its_bounds(
    environ: dict[str, str], tmp_path: Path, setting: str, value: str
) -> None:
    del environ["BRIDGE_ROUTES"]
    name = setting.rpartition(".")[0]
    file = toml(tmp_path, f'[[routes]]\ntopic = "a"\nstream = "s"\n{name}.source = "x"\n{setting} = {value}\n')

    (problem,) = problems(environ, file)

    assert problem == f"{file}:5: routes[0].{setting}: must be a number from -1e+300 to 1e+300"


@given(
    name=st.sampled_from(["MQTT", "GDN", "WORKER", "ROUTES", "ROUTES__0", "ROUTES__0__FIELDS", "OUTBOX", "LOG"]),
    value=JSON_VALUES,
)
def test_any_json_is_accepted_or_reported_as_a_problem(name: str, value: object) -> None:
    found = problems({f"BRIDGE_{name}": json.dumps(value), "BRIDGE_ROUTES__0__TOPIC": "a"})

    assert [problem for problem in found if not problem.startswith("BRIDGE_")] == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("BRIDGE_GDN__REQUESTS_PER_MINUTE", "9", "must be at least 10, or 0"),
        ("BRIDGE_GDN__REQUESTS_PER_MINUTE", "-1", "must be a whole number from 0 to 1000000"),
        ("BRIDGE_GDN__REQUESTS_PER_DAY", "99", "must be at least 100, or 0"),
    ],
)
def test_a_request_limit_too_low_to_connect_is_refused(
    environ: dict[str, str], name: str, value: str, expected: str
) -> None:
    (problem,) = problems(environ | {name: value})

    assert problem.startswith(f"{name}: {expected}")


def test_request_limits_can_be_switched_off(environ: dict[str, str]) -> None:
    settings = read(environ, BRIDGE_GDN__REQUESTS_PER_MINUTE="0", BRIDGE_GDN__REQUESTS_PER_DAY="0")

    assert (settings.gdn.requests_per_minute, settings.gdn.requests_per_day) == (0, 0)


@pytest.mark.parametrize("name", ["BRIDGE_WORKER__DEFINITION", "BRIDGE_GDN__CA_FILE"])
@pytest.mark.parametrize("suffix", ["sql", "pem"])
def test_a_file_that_cant_be_read_is_named(environ: dict[str, str], name: str, suffix: str) -> None:
    (problem,) = problems(environ | {name: f"/nowhere/file.{suffix}"})

    assert problem.startswith(f"{name}: /nowhere/file.{suffix} can't be read: No such file or directory")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRIDGE_MQTT__URL", "mqtt://broker:99999"),
        ("BRIDGE_MQTT__URL", "mqtt://broker:0"),
        ("BRIDGE_GDN__URL", "https://gdn:99999"),
        ("BRIDGE_STATUS__LISTEN", "0.0.0.0:99999"),
    ],
)
def test_a_wrong_port_is_answered_with_the_range_of_ports(environ: dict[str, str], name: str, value: str) -> None:
    (problem,) = problems(environ | {name: value})

    assert problem.startswith(f"{name}: must ")
    assert "65535" in problem


def test_the_place_of_a_value_can_be_looked_up_after_loading(environ: dict[str, str], tmp_path: Path) -> None:
    file = toml(tmp_path, "\n[outbox]\npath = 'a.db'\n")
    place = places(config_file=file, environ=environ, overrides={"log.level": "info"}, secret_directories=())

    assert place(("outbox", "path")) == f"{file}:3: outbox.path"
    assert place(("gdn", "url")) == "BRIDGE_GDN__URL"
    assert place(("log", "level")) == "log.level, on the command line"
    assert place(("status", "listen")) == "BRIDGE_STATUS__LISTEN"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(10, 10), ("10", 10), ("10s", 10), ("500ms", 0.5), ("1.5 m", 90), ("2h", 7200)],
)
def test_a_duration_is_a_number_of_seconds_or_has_a_unit(written: object, seconds: float) -> None:
    assert RouteSettings.model_validate({"topic": "a", "stream": "s", "every": written}).every == seconds
