"""The loopback Hub's servers: ordered failures, restarts, pages, command."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from http.client import HTTPConnection
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx

from deployments.loopback_hub import LOCAL_TOKEN, Fault, LocalHub
from tests.builders.plain_http import ask

REPOSITORY = "mergeline/model"
ROOT = Path(__file__).parents[3]


def test_a_fault_hits_the_requests_it_names_as_often_as_it_says(hub_api: HfApi, published: str, local_hub: LocalHub):
    fault = Fault(rf"GET /api/models/{REPOSITORY}$", status=429, skip=1, times=2, headers={"Retry-After": "1"})
    local_hub.faults.append(fault)
    statuses = [ask(local_hub.endpoint, f"/api/models/{REPOSITORY}")[0] for _ in range(4)]
    assert [response.status for response in statuses] == [200, 429, 429, 200]
    assert statuses[1].headers["Retry-After"] == "1"


def test_a_download_that_is_cut_goes_on_where_it_stopped(
    hub_api: HfApi, published: str, folder: Path, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
):
    # Otherwise the client asks again only from its last ten megabytes.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    local_hub.faults.append(Fault("GET /lfs/.*model.safetensors", cut_after=100_000))
    path = hub_api.hf_hub_download(REPOSITORY, "model.safetensors")
    assert Path(path).read_bytes() == (folder / "model.safetensors").read_bytes()
    cut, resumed = [request for request in local_hub.requests if request.path.startswith("/lfs/")]
    assert (cut.sent_bytes, cut.range) == (100_000, None)
    assert (resumed.status, resumed.range) == (206, "bytes=100000-")


def test_a_commit_whose_answer_is_lost_was_made(hub_api: HfApi, published: str, local_hub: LocalHub):
    local_hub.faults.append(Fault("POST .*/commit/main", cut_after=0))
    with pytest.raises(httpx.RemoteProtocolError):
        hub_api.upload_file(repo_id=REPOSITORY, path_or_fileobj=b"1", path_in_repo="a.txt")
    assert "a.txt" in hub_api.list_repo_files(REPOSITORY)


def test_a_refusal_leaves_the_connection_in_order(local_hub: LocalHub):
    connection = HTTPConnection(local_hub.endpoint.removeprefix("http://"))
    connection.request("POST", "/api/repos/create", b"GET /trap HTTP/1.1\r\n\r\n")
    refused = connection.getresponse()
    assert (refused.status, b"Invalid username" in refused.read()) == (401, True)
    connection.request("POST", "/no/such/place", b"GET /trap HTTP/1.1\r\n\r\n")
    refused = connection.getresponse()
    assert (refused.status, b"Nothing answers" in refused.read()) == (404, True)
    connection.request("GET", "/api/whoami-v2", headers={"Authorization": f"Bearer {LOCAL_TOKEN}"})
    assert json.load(connection.getresponse())["name"] == "mergeline"
    connection.close()
    assert [request.path for request in local_hub.requests] == [
        "/api/repos/create",
        "/no/such/place",
        "/api/whoami-v2",
    ]


def test_a_restarted_hub_serves_what_it_served(hub_api: HfApi, published: str, folder: Path, local_hub: LocalHub):
    endpoint = local_hub.endpoint
    kept_alive = HTTPConnection(endpoint.removeprefix("http://"))
    kept_alive.request("GET", "/")
    kept_alive.getresponse().read()
    local_hub.stop()
    kept_alive.request("GET", "/")
    with pytest.raises(ConnectionError):
        kept_alive.getresponse()
    kept_alive.close()
    with pytest.raises(ConnectionError):
        ask(endpoint, "/")
    local_hub.start()
    assert local_hub.endpoint == endpoint
    assert hub_api.model_info(REPOSITORY).sha == published
    path = hub_api.hf_hub_download(REPOSITORY, "model.safetensors")
    assert Path(path).read_bytes() == (folder / "model.safetensors").read_bytes()


def test_one_folder_is_served_by_one_hub(local_hub: LocalHub):
    with pytest.raises(OSError, match="is served by another local Hub"):
        LocalHub(local_hub.root).start()


def test_pages_for_a_person(hub_api: HfApi, published: str, local_hub: LocalHub):
    text = b"# Model <script>alert(1)</script>"
    commit = hub_api.upload_file(repo_id=REPOSITORY, path_or_fileobj=text, path_in_repo="README.md")
    for address in (f"{local_hub.endpoint}/{REPOSITORY}", str(commit.commit_url)):
        with urllib.request.urlopen(address) as page:
            html = page.read().decode()
        assert "model.safetensors" in html
        assert "# Model &lt;script&gt;" in html
    hub_api.update_repo_settings(REPOSITORY, private=True)
    assert REPOSITORY not in ask(local_hub.endpoint, "/")[1].decode()
    signed_in, _ = ask(local_hub.endpoint, f"/?token={LOCAL_TOKEN}")
    cookie = signed_in.headers["Set-Cookie"].partition(";")[0]
    assert REPOSITORY in ask(local_hub.endpoint, signed_in.headers["Location"], Cookie=cookie)[1].decode()
    path = f"/api/models/{REPOSITORY}/branch/x"
    assert ask(local_hub.endpoint, path, "POST", b"", Cookie=cookie)[0].status == 401


def test_the_command_prints_one_line_and_stops_when_told(tmp_path: Path):
    command = [sys.executable, "-m", "deployments.loopback_hub", str(tmp_path / "hub")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        line = server.stdout.readline()
        settings = dict(pair.split("=", 1) for pair in line.split())
        assert settings["HF_HUB_DISABLE_XET"] == "1"
        assert HfApi(endpoint=settings["HF_ENDPOINT"], token=settings["HF_TOKEN"]).whoami()["name"] == "mergeline"
        second = subprocess.run([*command, "--port", "0"], cwd=ROOT, capture_output=True, text=True)
        assert (second.returncode, second.stdout) == (2, "")
        assert re.fullmatch(r"The local Hub cannot start: .* is served by another .*\n", second.stderr)
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=10) == 0
        assert (server.stdout.read(), server.stderr.read()) == ("", "")
