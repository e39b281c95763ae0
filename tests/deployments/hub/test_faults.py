"""Failures that the local Hub makes on order, and a restart."""

import json
from http.client import HTTPConnection
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx

from deployments.loopback_hub import LOCAL_TOKEN, Fault, LocalHub
from tests.builders.local_hub_requests import REPOSITORY, ask


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
