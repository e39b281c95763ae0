"""What tells a request of another site's page from one of a program or of our own pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deployments.foreign_pages import HOSTS, reason_to_refuse

OWN = {"host": "127.0.0.1:4200"}
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:4200",
        "localhost",
        "LOCALHOST:4200",
        "[::1]:4200",
        "10.1.2.3:4200",
        "servers.example",
        "Servers.Example:1",
    ],
)
def test_own_names_and_addresses_are_served(host: str) -> None:
    assert reason_to_refuse("POST", {"host": host}, ["servers.example"]) is None


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:4200", "localhost.evil.example", "10.evil.example", "127.0.0.1.evil.example"),
        *("sub.servers.example", "servers.example.", "evil.example@127.0.0.1", "127.0.0.1:80@evil.example", "127.1"),
        *("127.0.0.1, evil.example", "[::1", "", "127.0.0.1:4200/"),
    ],
)
def test_a_foreign_host_is_refused_and_told_where_to_be_named(host: str) -> None:
    reason = reason_to_refuse("GET", {"host": host}, ["servers.example"])
    assert reason is not None
    assert f"{host!r}" in reason
    assert HOSTS in reason


def test_a_request_without_a_host_is_refused() -> None:
    assert reason_to_refuse("GET", {}) is not None


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example", "null", "", "http://127.0.0.1", "http://127.0.0.1:4201", "http://localhost:4200"),
        *("http://127.0.0.1:4200.evil.example", "file://127.0.0.1:4200", "127.0.0.1:4200", "*"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_page_of_another_origin_is_refused(origin: str, method: str) -> None:
    for pages in ([], ["*"]) if origin != "*" else ([],):
        assert reason_to_refuse(method, OWN | {"origin": origin} | LINK, pages=pages) is not None


@pytest.mark.parametrize("origin", ["http://127.0.0.1:4200", "https://127.0.0.1:4200", "http://localhost:4200"])
def test_own_pages_are_served(origin: str) -> None:
    headers = OWN | {"origin": origin, "sec-fetch-site": "cross-site"}
    assert reason_to_refuse("POST", headers, pages=["http://localhost:4200"]) is None


def test_a_link_from_elsewhere_may_be_followed_and_nothing_else_be_loaded() -> None:
    assert reason_to_refuse("GET", OWN | LINK) is None
    assert reason_to_refuse("POST", OWN | LINK) is not None
    assert reason_to_refuse("GET", OWN | LINK | {"sec-fetch-dest": "iframe"}) is not None
    assert reason_to_refuse("GET", OWN | {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}) is not None
    assert reason_to_refuse("GET", OWN | {"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors"}) is None


@pytest.mark.parametrize("name", ["http://servers.example", "servers.example:4200", "*"])
def test_a_name_that_no_host_can_have_is_told_before_the_server_starts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOSTS, f"good.example, {name}")
    done = subprocess.run([sys.executable, "-m", "deployments.prefect_server"], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{HOSTS}: expected host names without port or path, separated by commas, found {name!r}." in done.stderr
