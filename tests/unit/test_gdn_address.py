from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.gdn.address import GdnAddress, Numbering, api_host, fabric_path, with_otp
from bridge.streamql.syntax import StreamScope


def producer_url(*, address: str = "https://play.example.io", **changes: object) -> str:
    arguments: dict[str, object] = {"tenant": "acme", "fabric": "_system", "scope": StreamScope.LOCAL, "stream": "In"}
    return GdnAddress.parse(address).producer_url(**(arguments | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("https://api-play.paas.macrometa.io", "https://api-play.paas.macrometa.io"),
        ("https://play.paas.macrometa.io/", "https://api-play.paas.macrometa.io"),
        ("  play.paas.macrometa.io\n", "https://api-play.paas.macrometa.io"),
        ("HTTPS://Play.Paas.Macrometa.IO", "https://api-play.paas.macrometa.io"),
        ("https://play.paas.macrometa.io:443", "https://api-play.paas.macrometa.io"),
        ("https://play.paas.macrometa.io:8443", "https://api-play.paas.macrometa.io:8443"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://gdn:8080", "http://gdn:8080"),
    ],
)
def test_every_way_to_write_the_url_gives_the_same_base(written: str, expected: str) -> None:
    assert GdnAddress.parse(written).base_url == expected


def test_parsing_a_base_url_again_changes_nothing() -> None:
    once = GdnAddress.parse("play.example.io:8443")

    assert GdnAddress.parse(once.base_url) == once


@pytest.mark.parametrize(
    "written",
    [
        "",
        "https://",
        "ftp://play.example.io",
        "https://play.example.io/_fabric",
        "https://play.example.io?x=1",
        "https://play.example.io#x",
        "https://play.example.io:port",
        "https://play.example.io:70000",
        "https://play.example.io:0",
        "https://play.example.io:",
        "https://play example.io",
        "https://play..example.io",
        "https://[::1",
    ],
)
def test_anything_but_a_plain_host_is_refused(written: str) -> None:
    with pytest.raises(ValueError):
        GdnAddress.parse(written)


@pytest.mark.parametrize(
    "written",
    ["https://user:s3cr3t@play.example.io", "play.example.io/s3cr3t", "play.example.io?key=s3cr3t", "s3cr3t@x:port"],
)
def test_the_error_does_not_repeat_possible_secrets(written: str) -> None:
    with pytest.raises(ValueError) as caught:
        GdnAddress.parse(written)

    assert "s3cr3t" not in str(caught.value)


def test_the_producer_url_names_tenant_namespace_and_topic() -> None:
    parts = urlsplit(producer_url())

    assert (parts.scheme, parts.netloc) == ("wss", "api-play.example.io")
    assert parts.path == "/_ws/ws/v2/producer/persistent/acme/c8local._system/c8locals.In"
    assert parse_qs(parts.query) == {
        "sendTimeoutMillis": ["30000"],
        "maxPendingMessages": ["1000"],
        "batchingEnabled": ["false"],
    }


def test_a_global_stream_has_the_global_namespace_and_topic() -> None:
    assert "/acme/c8global._system/c8globals.In?" in producer_url(scope=StreamScope.GLOBAL)


def test_http_becomes_ws_and_a_region_has_its_own_host() -> None:
    assert producer_url(address="http://localhost:1", host="localhost:2").startswith("ws://localhost:2/_ws/")


def test_with_deduplication_the_producer_has_a_name_a_first_number_and_no_send_timeout() -> None:
    query = parse_qs(urlsplit(producer_url(numbering=Numbering("a b&c", 0))).query)

    assert query["producerName"] == ["a b&c"]
    assert query["initialSequenceId"] == ["0"]
    assert query["sendTimeoutMillis"] == ["0"]


def test_a_plain_pulsar_is_dialled_at_its_own_host_and_path() -> None:
    address = GdnAddress.parse("http://pulsar.example.io:8080", prefixed=False)

    url = address.pulsar_producer_url(tenant="public", namespace="default", topic="In")

    assert url.startswith("ws://pulsar.example.io:8080/ws/v2/producer/persistent/public/default/In?")


@pytest.mark.parametrize("host", ["evil.example/x", "user@evil.example", "", "a b"])
def test_a_region_without_a_valid_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError):
        producer_url(host=host)


@pytest.mark.parametrize("name", ["tenant", "stream", "fabric"])
def test_an_empty_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        producer_url(**{name: ""})


@given(st.text(min_size=1).filter(lambda text: text not in {".", ".."} and text.isprintable()))
def test_no_name_can_change_the_path(name: str) -> None:
    parts = fabric_path("_system", "streamapps", name).split("/")

    assert [unquote(part) for part in parts] == ["", "_fabric", "_system", "_api", "streamapps", name]


@pytest.mark.parametrize("part", ["", ".", ".."])
def test_a_part_that_clients_resolve_away_is_refused(part: str) -> None:
    with pytest.raises(ValueError):
        fabric_path("_system", "streamapps", part)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_one_time_password_arrives_unchanged(otp: str) -> None:
    url = with_otp(producer_url(), otp)

    assert parse_qs(urlsplit(url).query, keep_blank_values=True)["otp"] == [otp]


@pytest.mark.parametrize(
    ("api", "url", "expected"),
    [
        ("api-fra.example.io", "fra.example.io", "api-fra.example.io"),
        (None, "fra.example.io", "api-fra.example.io"),
        (None, "api-fra.example.io", "api-fra.example.io"),
        ("localhost:8080", "localhost:8080", "localhost:8080"),
    ],
)
def test_a_region_is_dialled_at_its_api_host(api: str | None, url: str | None, expected: str) -> None:
    assert api_host(api=api, url=url) == expected


def test_a_region_without_tags_is_an_error() -> None:
    with pytest.raises(ValueError, match="tags"):
        api_host(api=None, url=None)
