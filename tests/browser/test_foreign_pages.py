"""What a page of another site can make a person's browser do with our servers: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from deployments.foreign_pages import HOSTS
from deployments.loopback_hub import LOCAL_TOKEN, LocalHub
from deployments.programs import answers
from tests.browser.conftest import ARGUMENTS, CHROMIUM, PATIENCE_MS
from tests.servers.stack import ROOT, START_SECONDS, unused_port, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]

expect.set_options(timeout=PATIENCE_MS)

ATTEMPTS = """
async ([server, prefix, token, uuid]) => {
  const create = (path, options) => fetch(server + path, {method: 'POST', ...options}).then(
    answer => answer.type === 'opaque' ? 'sent' : String(answer.status), () => 'refused')
  const flow = name => JSON.stringify({name: prefix + name})
  const json = {'Content-Type': 'application/json'}
  // Prefect takes a body without a type for JSON, and a page may send one without asking first.
  const untyped = name => new Blob([flow(name)])
  const submitted = () => new Promise(done => {
    const frame = document.createElement('iframe'), form = document.createElement('form')
    frame.name = uuid
    Object.assign(form, {action: server + '/api/flows/', method: 'post', enctype: 'text/plain', target: frame.name})
    const field = document.createElement('input')
    Object.assign(field, {name: `{"name": "${prefix}form", "ignored": "`, value: '"}'})
    form.append(field)
    document.body.append(frame, form)
    frame.onload = () => done('sent')
    form.submit()
  })
  const sandboxed = () => new Promise(done => {
    const frame = document.createElement('iframe')
    frame.sandbox = 'allow-scripts'
    const body = JSON.stringify(flow('null-origin'))
    frame.srcdoc = `<script>fetch('${server}/api/flows/', {method: 'POST', mode: 'no-cors', body: new Blob([${body}])})`
      + ".then(() => 'sent', () => 'refused').then(said => parent.postMessage(said, '*'))</" + 'script>'
    onmessage = message => done(message.data)
    document.body.append(frame)
  })
  const connected = path => new Promise(done => {
    const socket = new WebSocket(server.replace('http', 'ws') + path)
    socket.onerror = () => done('refused')
    socket.onopen = () => {
      if (path.endsWith('/in'))
        socket.send(JSON.stringify({event: prefix + 'socket', resource: {'prefect.resource.id': 'by.socket'},
                                    occurred: new Date().toISOString(), id: uuid}))
      setTimeout(() => done('open'), 500)
    }
  })
  return {
    json: await create('/api/flows/', {headers: json, body: flow('json')}),
    text: await create('/api/flows/', {mode: 'no-cors', body: flow('text')}),
    untyped: await create('/api/flows/', {mode: 'no-cors', body: untyped('untyped')}),
    beacon: navigator.sendBeacon(server + '/api/flows/', untyped('beacon')) ? 'sent' : 'refused',
    form: await submitted(),
    sandboxed: await sandboxed(),
    read: await fetch(server + '/api/admin/settings').then(answer => String(answer.status), () => 'refused'),
    socket_in: await connected('/api/events/in'),
    socket_out: await connected('/api/logs/out'),
    hub: await create('/api/repos/create', {headers: {...json, Authorization: 'Bearer ' + token}, body: flow('mine')}),
  }
}
"""
"""Everything a page may try at an address, each thing with a name of its own.

It sees no answer to what it sends without leave: ``sent`` says nothing.
"""


@dataclass(frozen=True)
class Server:
    """A Prefect server with a database of its own."""

    address: str

    def ask(self, path: str, body: Any = None, **headers: str) -> Any:
        """Call the API as a program does, under any ``Host``."""
        content = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.address}/api/{path}", content, {"Content-Type": "application/json", **headers})
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def flows(self) -> set[str]:
        return {flow["name"] for flow in self.ask("flows/filter", {})}

    def events(self, name: str) -> int:
        return self.ask("events/filter", {"filter": {"event": {"name": [name]}}})["total"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as docs/deploying.md starts it, with a name by which other machines reach it."""
    folder, port = tmp_path_factory.mktemp("prefect"), unused_port()
    address = f"http://127.0.0.1:{port}"
    own = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_UI_API_URL": f"{address}/api", "DO_NOT_TRACK": "1"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MERGELINE_"))}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.prefect_server", "--port", str(port)],
            cwd=folder,
            env=inherited | own | {"PYTHONPATH": str(ROOT), HOSTS: "servers.example"},
            stdout=log,
            stderr=log,
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, (folder / "server.log").read_text()
            return answers(f"{address}/api/health")

        wait_until(ready, "Prefect", START_SECONDS)
        yield Server(address)
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def foreign_page() -> Iterator[str]:
    """The address of an empty page of somebody else's, on this machine but on a port of its own."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>foreign</title><body>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_port}/"
        listener.shutdown()


@pytest.fixture
def rebound_page(browser: Browser) -> Iterator[Page]:
    """A page in a browser for which another site's name has come to mean this machine."""
    rule = "--host-resolver-rules=MAP *.example 127.0.0.1"
    with browser.browser_type.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, rule]) as rebound:
        page = rebound.new_page()
        page.set_default_timeout(PATIENCE_MS)
        yield page


def attempt(page: Page, address: str, prefix: str = "by-") -> dict[str, str]:
    """Try everything from where the page is; what it makes has a name that begins with ``prefix``."""
    return page.evaluate(ATTEMPTS, [address, prefix, LOCAL_TOKEN, str(uuid4())])


def nothing_was_done(server: Server) -> None:
    assert not {name for name in server.flows() if name.startswith("by-")}
    assert server.events("by-socket") == 0


def test_a_page_of_another_origin_does_nothing(server: Server, foreign_page: str, page: Page, tmp_path: Path) -> None:
    page.goto(foreign_page)
    tried = attempt(page, server.address)
    for answer_of in ("json", "read", "socket_in", "socket_out"):
        assert tried[answer_of] == "refused", tried
    nothing_was_done(server)
    with LocalHub(tmp_path / "hub") as hub:
        assert attempt(page, hub.endpoint)["hub"] == "refused"
        assert not hub_repositories(hub)


def test_another_sites_name_for_this_machine_opens_nothing(server: Server, rebound_page: Page, tmp_path: Path) -> None:
    port = server.address.rpartition(":")[2]
    rebound_page.goto(f"http://evil.example:{port}/")
    expect(rebound_page.get_by_text("none of this server's names")).to_be_visible()
    tried = attempt(rebound_page, f"http://evil.example:{port}")
    assert (tried["json"], tried["read"]) == ("403", "403"), tried
    assert (tried["socket_in"], tried["socket_out"]) == ("refused", "refused"), tried
    nothing_was_done(server)
    with LocalHub(tmp_path / "hub") as hub:
        rebound = hub.endpoint.replace("127.0.0.1", "evil.example")
        rebound_page.goto(rebound)
        assert attempt(rebound_page, rebound)["hub"] == "403"
        assert not hub_repositories(hub)


def hub_repositories(hub: LocalHub) -> Any:
    with urlopen(Request(f"{hub.endpoint}/api/models", headers={"Authorization": f"Bearer {LOCAL_TOKEN}"})) as answer:
        return json.load(answer)


def test_another_site_cannot_frame_our_pages(server: Server, foreign_page: str, page: Page) -> None:
    page.goto(foreign_page)
    page.evaluate("address => document.body.innerHTML = `<iframe src='${address}/v2/runs'></iframe>`", server.address)
    expect(page.frame_locator("iframe").get_by_text("may not call this server")).to_be_visible()
    with urlopen(f"{server.address}/api/health", timeout=30) as answer:
        # For a browser that does not say where a request is from.
        assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    # A link to them works.
    page.evaluate("address => document.body.innerHTML = `<a href='${address}/v2/runs'>runs</a>`", server.address)
    page.get_by_role("link", name="runs").click()
    page.wait_for_url(f"{server.address}/v2/runs**")
    expect(page.get_by_role("link", name="Deployments").first).to_be_visible()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_our_own_pages_work(server: Server, page: Page, host: str) -> None:
    flow = server.ask("flows/", {"name": "ours"})
    run = server.ask("flow_runs/", {"flow_id": flow["id"], "name": f"seen-at-{host.replace('.', '-')}"})
    own = server.address.replace("127.0.0.1", host)
    page.goto(f"{own}/v2/runs")
    expect(page.get_by_text(run["name"]).first).to_be_visible()
    # The same attempts as above, from here: they are good ones.
    tried = attempt(page, server.address, f"{host}-")
    assert (tried["json"], tried["read"], tried["socket_in"], tried["socket_out"]) == ("201", "200", "open", "open")
    wait_until(lambda: {f"{host}-{name}" for name in ("json", "untyped", "beacon")} <= server.flows(), "flows")
    wait_until(lambda: server.events(f"{host}-socket"), "the event")
    assert f"{host}-null-origin" not in server.flows()


@pytest.mark.parametrize(("host", "is_served"), [("servers.example:4200", True), ("other.example:4200", False)])
def test_programs_reach_the_server_by_the_names_it_was_given(server: Server, host: str, is_served: bool) -> None:
    if is_served:
        assert server.ask("health", Host=host) is True
    else:
        with pytest.raises(HTTPError, match="403"):
            server.ask("health", Host=host)
