"""Small files and ranges of large ones, read from the local Hub over real HTTP."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments.loopback_hub import Fault, LocalHub
from mergeline.errors import HubError, RepositoryError
from mergeline.sources.hub import Hub, PinnedRepository, RemoteFile
from tests.builders.hub_repository import FILES, REPOSITORY, WEIGHTS, publish


def test_read_file_gives_small_files_whole(hub: Hub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    assert hub.read_file(pinned, "config.json") == FILES["config.json"]
    assert hub.read_file(pinned, "extra/more.safetensors") == b"more"
    with pytest.raises(RepositoryError, match=r"has no file 'tokenizer.json'"):
        hub.read_file(pinned, "tokenizer.json")


def test_read_file_refuses_large_files_unasked(hub: Hub, local_hub: LocalHub) -> None:
    repository = PinnedRepository("o/m", "0" * 40, "model", None, False, (RemoteFile("big", 32_000_001, None),))
    with pytest.raises(RepositoryError, match="32,000,001 bytes, expected at most 32,000,000; download it instead"):
        hub.read_file(repository, "big")
    assert not local_hub.requests


def test_a_range_costs_its_bytes_and_one_redirect_per_file(hub: Hub, local_hub: LocalHub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    before = len(local_hub.requests)
    for start, stop in ((0, 8), (100, 300_000), (399_999, 400_000)):
        assert hub.read_range(pinned, "model.safetensors", start, stop) == WEIGHTS[start:stop]
    assert hub.read_range(pinned, "model.safetensors", 5, 5) == b""
    requests = local_hub.requests[before:]
    assert [(request.origin, request.status) for request in requests] == [
        ("api", 302),
        *[("cdn", 206)] * 3,
    ]
    assert sum(request.sent_bytes for request in requests) == 8 + 299_900 + 1
    assert not any(request.authorized for request in requests if request.origin == "cdn")


def test_a_range_of_a_file_in_git(hub: Hub) -> None:
    publish(hub, FILES)
    assert hub.read_range(hub.resolve(REPOSITORY), "config.json", 2, 12) == FILES["config.json"][2:12]


def test_a_range_outside_the_file_is_refused(hub: Hub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    with pytest.raises(RepositoryError, match="has 400,000 bytes; bytes 0 to 400001 were asked"):
        hub.read_range(pinned, "model.safetensors", 0, 400_001)


def test_a_cut_range_continues_where_it_stopped(hub: Hub, local_hub: LocalHub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    local_hub.faults.append(Fault("GET /lfs/", cut_after=50_000, times=2))
    before = len(local_hub.requests)
    assert hub.read_range(pinned, "model.safetensors", 1000, 301_000) == WEIGHTS[1000:301_000]
    ranges = [request.range for request in local_hub.requests[before:] if request.origin == "cdn"]
    assert ranges == ["bytes=1000-300999", "bytes=51000-300999", "bytes=101000-300999"]


def test_a_failing_storage_is_asked_again_for_a_range(hub: Hub, local_hub: LocalHub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    local_hub.faults.append(Fault("GET /lfs/", status=500, times=2))
    assert hub.read_range(pinned, "model.safetensors", 0, 64) == WEIGHTS[:64]


def test_an_expired_redirect_is_asked_for_anew(hub: Hub, local_hub: LocalHub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    hub.read_range(pinned, "model.safetensors", 0, 8)
    local_hub.faults.append(Fault("GET /lfs/", status=403))
    before = len(local_hub.requests)
    assert hub.read_range(pinned, "model.safetensors", 8, 16) == WEIGHTS[8:16]
    statuses = [request.status for request in local_hub.requests[before:]]
    assert statuses == [403, 302, 206]


class WholeFiles(BaseHTTPRequestHandler):
    """A server that has not heard of ranges."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(WEIGHTS)))
        self.end_headers()
        with suppress(OSError):  # the client hangs up, as it should
            self.wfile.write(WEIGHTS)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server_without_ranges() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), WholeFiles) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_answer_that_ignores_the_range_is_refused(server_without_ranges: str) -> None:
    hub = Hub(server_without_ranges)
    file = RemoteFile("model.safetensors", len(WEIGHTS), None)
    repository = PinnedRepository("o/m", "0" * 40, "model", None, False, (file,))
    with pytest.raises(HubError, match=r"expected status 206 for bytes 0 to 8, found 200.*download the file instead"):
        hub.read_range(repository, "model.safetensors", 0, 8)
    assert hub.read_range(repository, "model.safetensors", 0, len(WEIGHTS)) == WEIGHTS  # exactly what was asked for
