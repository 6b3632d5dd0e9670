"""Which connection goes through which proxy. No socket."""

from __future__ import annotations

import pytest

from bridge.errors import ConfigError
from bridge.gdn.proxy import Proxies, Proxy

VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.test:3128", Proxy("proxy.test", 3128)),
        ("proxy.test:3128", Proxy("proxy.test", 3128)),
        ("http://proxy.test/", Proxy("proxy.test", 80)),
        ("http://[::1]:3128", Proxy("::1", 3128)),
        ("http://me:p%40ss%2F@proxy.test:1", Proxy("proxy.test", 1, "me", "p@ss/")),
        ("http://me@proxy.test:1", Proxy("proxy.test", 1, "me", "")),
    ],
)
def test_the_url_of_a_proxy_is_parsed(url: str, proxy: Proxy) -> None:
    assert Proxy.parse(url) == proxy
    assert Proxy.parse(proxy.url) == proxy


@pytest.mark.parametrize(
    "url", ["", "https://proxy.test", "socks5://proxy.test", "http://", "http://h:99999", "http://h/path", "http://h?a"]
)
def test_what_is_no_url_of_an_http_proxy_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be http://host:port"):
        Proxy.parse(url)


def test_a_refused_url_and_the_repr_of_a_proxy_do_not_show_the_password() -> None:
    with pytest.raises(ValueError, match="must be") as refused:
        Proxy.parse("https://me:secret@proxy.test:3128")

    assert "secret" not in str(refused.value)
    assert "secret" not in repr(Proxy.parse("http://me:secret@proxy.test:3128"))
    assert "secret" not in Proxy.parse("http://me:secret@proxy.test:3128").name


def test_a_configured_proxy_is_used_for_every_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    proxies = Proxies.of("http://proxy.test:3128")

    assert {proxies.find(host, secure=True) for host in ("gdn.test", "127.0.0.1:8080")} == {Proxy("proxy.test", 3128)}


def test_none_means_no_proxy_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")

    assert Proxies.of("none").find("gdn.test", secure=True) is None


@pytest.mark.parametrize(
    ("variables", "secure", "found"),
    [
        ({"HTTPS_PROXY": "http://a.test:1"}, True, Proxy("a.test", 1)),
        ({"https_proxy": "http://a.test:1"}, True, Proxy("a.test", 1)),
        ({"HTTPS_PROXY": "http://a.test:1"}, False, None),
        ({"HTTP_PROXY": "http://a.test:1"}, False, Proxy("a.test", 1)),
        ({"HTTP_PROXY": "http://a.test:1"}, True, None),
        ({"ALL_PROXY": "http://a.test:1"}, True, Proxy("a.test", 1)),
        ({"ALL_PROXY": "http://a.test:1", "HTTPS_PROXY": "http://b.test:2"}, True, Proxy("b.test", 2)),
        ({"HTTPS_PROXY": "http://a.test:1", "NO_PROXY": "other.test,.gdn.test"}, True, None),
        ({"HTTPS_PROXY": "http://a.test:1", "NO_PROXY": "other.test"}, True, Proxy("a.test", 1)),
        ({}, True, None),
    ],
)
def test_the_usual_variables_are_followed(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], secure: bool, found: Proxy | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert Proxies.of(None).find("api.gdn.test:8443", secure=secure) == found


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "a.localhost"])
def test_the_variables_do_not_apply_to_this_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")

    assert Proxies.of(None).find(host, secure=False) is None


def test_a_variable_that_cannot_be_used_is_named() -> None:
    proxies = Proxies(by_variable={"https": "socks5://me:secret@proxy.test"})

    with pytest.raises(ConfigError, match=r"HTTPS_PROXY: must be .* or set gdn\.proxy") as refused:
        proxies.find("gdn.test", secure=True)
    assert "secret" not in str(refused.value)
