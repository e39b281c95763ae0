"""Clients of local Hubs, signed in and not patient; another origin that takes what it is sent."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployments.loopback_hub import LOCAL_TOKEN, LocalHub
from mergeline.sources import hub_failures
from mergeline.sources.hub import Hub
from tests.builders.lying_hub import Stranger


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    class Connection(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            known.heard.append((self.command, self.path, dict(self.headers), body))
            self.send_response(known.status)
            headers = {"Content-Type": "application/json", "ETag": '"part"', "Content-Length": str(len(known.body))}
            for name, value in (headers | known.headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(known.body)

        do_GET = do_HEAD = do_POST = do_PUT = _serve

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Connection) as server:
        known = Stranger(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield known
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def signed_in_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", LOCAL_TOKEN)
    monkeypatch.setattr(hub_failures, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr("mergeline.sources.xet._endpoints", {})


@pytest.fixture
def hub(local_hub: LocalHub) -> Hub:
    return Hub(local_hub.endpoint)


@pytest.fixture
def xet_hub(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "xet-hub", xet=True) as local_hub:
        yield local_hub


@pytest.fixture
def treasure(tmp_path: Path) -> Path:
    """A file of the user's beside the cache."""
    path = tmp_path / "home" / "treasure"
    path.parent.mkdir()
    path.write_text("mine")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache"
