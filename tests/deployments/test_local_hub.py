"""The local Hub, asked by the clients that it is there for."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from deployments.loopback_hub import LOCAL_TOKEN, Fault, LocalHub

REPOSITORY = "mergeline/model"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two large files in two folders, a small one and an empty one."""
    folder = tmp_path / "model"
    (folder / "extra").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    (folder / "extra/more.bin").write_bytes(b"\0" * 1000)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "empty.bin").touch()
    return folder


@pytest.fixture
def published(hub_api: HfApi, folder: Path) -> str:
    """The commit that ``upload_folder`` made of ``folder``."""
    hub_api.create_repo(REPOSITORY)
    return hub_api.upload_folder(repo_id=REPOSITORY, folder_path=folder).oid


def files_under(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def ask(
    address: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[HTTPResponse, bytes]:
    """Ask without any client library: no redirects followed, nothing added."""
    connection = HTTPConnection(address.removeprefix("http://"))
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


# Repositories ----------------------------------------------------------------------------------------------------


def test_a_repository_is_created_once(hub_api: HfApi, local_hub: LocalHub):
    assert hub_api.create_repo(REPOSITORY) == f"{local_hub.endpoint}/{REPOSITORY}"
    assert hub_api.create_repo(REPOSITORY, exist_ok=True).repo_id == REPOSITORY
    with pytest.raises(HfHubHTTPError, match="already created this model repo") as caught:
        hub_api.create_repo(REPOSITORY)
    assert caught.value.response.status_code == 409
    assert hub_api.list_repo_files(REPOSITORY) == [".gitattributes"]


def test_a_deleted_repository_is_gone(hub_api: HfApi):
    hub_api.create_repo(REPOSITORY, repo_type="dataset")
    hub_api.delete_repo(REPOSITORY, repo_type="dataset")
    assert not hub_api.repo_exists(REPOSITORY, repo_type="dataset")
    hub_api.delete_repo(REPOSITORY, repo_type="dataset", missing_ok=True)


def test_search_finds_by_author_name_and_tag(hub_api: HfApi):
    for name in ("mergeline/slerp-a", "mergeline/linear-b", "other/slerp-c"):
        hub_api.create_repo(name)
    hub_api.upload_file(repo_id="other/slerp-c", path_or_fileobj=b"---\ntags: [merge]\n---\n", path_in_repo="README.md")
    assert [model.id for model in hub_api.list_models(search="slerp")] == ["mergeline/slerp-a", "other/slerp-c"]
    assert [model.id for model in hub_api.list_models(author="mergeline", limit=1)] == ["mergeline/linear-b"]
    assert [model.id for model in hub_api.list_models(filter="merge")] == ["other/slerp-c"]
    assert {org["name"] for org in hub_api.whoami()["orgs"]} == {"other"}


def test_information_holds_card_gate_and_digests(hub_api: HfApi, published: str, folder: Path):
    card = "---\nlicense: apache-2.0\nbase_model: [a/b]\nbase_model_relation: merge\ntags: [x]\n---\n# Hello\n"
    hub_api.upload_file(repo_id=REPOSITORY, path_or_fileobj=card.encode(), path_in_repo="README.md")
    information = hub_api.model_info(REPOSITORY, files_metadata=True)
    assert information.card_data is not None
    assert information.card_data.to_dict()["base_model"] == ["a/b"]
    assert {"x", "license:apache-2.0", "base_model:merge:a/b"} <= set(information.tags or [])
    assert (information.private, information.gated) == (False, False)
    siblings = {sibling.rfilename: sibling for sibling in information.siblings or []}
    shard = siblings["model.safetensors"]
    assert shard.lfs is not None
    assert shard.lfs.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert (shard.size, siblings["config.json"].lfs) == (300_000, None)


# Uploads and downloads -------------------------------------------------------------------------------------------


def test_what_is_uploaded_comes_back(hub_api: HfApi, published: str, folder: Path, tmp_path: Path):
    copy = hub_api.snapshot_download(REPOSITORY, local_dir=tmp_path / "copy")
    copied = files_under(Path(copy))
    assert copied.pop(".gitattributes").startswith(b"*.arrow filter=lfs")
    assert copied == files_under(folder)
    verification = hub_api.verify_repo_checksums(REPOSITORY, local_dir=copy)
    assert (verification.mismatches, verification.missing_paths) == ([], [])
    assert sorted(entry.path for entry in hub_api.list_repo_tree(REPOSITORY, recursive=True)) == [
        ".gitattributes",
        "config.json",
        "empty.bin",
        "extra",
        "extra/more.bin",
        "model.safetensors",
    ]
    with pytest.raises(RemoteEntryNotFoundError):
        list(hub_api.list_repo_tree(REPOSITORY, "no/such/folder"))


def test_a_second_upload_of_the_same_folder_moves_nothing(
    hub_api: HfApi, published: str, folder: Path, local_hub: LocalHub
):
    local_hub.requests.clear()
    assert hub_api.upload_folder(repo_id=REPOSITORY, folder_path=folder).oid == published
    assert not [request for request in local_hub.requests if request.method == "PUT" or "/commit/" in request.path]


def test_large_files_come_in_parts(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with LocalHub(tmp_path / "hub", multipart_bytes=100_000) as hub:
        api = HfApi(endpoint=hub.endpoint, token=LOCAL_TOKEN)
        api.create_repo(REPOSITORY)
        api.upload_folder(repo_id=REPOSITORY, folder_path=folder)
        parts = [request for request in hub.requests if request.method == "PUT"]
        assert [request.received_bytes for request in parts if request.received_bytes > 1000] == [100_000] * 3
        copy = api.hf_hub_download(REPOSITORY, "model.safetensors", local_dir=tmp_path / "copy")
    assert Path(copy).read_bytes() == (folder / "model.safetensors").read_bytes()


def test_an_upload_that_is_not_what_was_announced_is_refused(local_hub: LocalHub):
    response, body = ask(local_hub.cdn_endpoint, f"/upload/{'0' * 64}", "PUT", b"something else")
    assert response.status == 400
    assert b"not 0000" in body
    assert not list((local_hub.root / "incoming").iterdir())


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_ranges(hub_api: HfApi, published: str, folder: Path, local_hub: LocalHub, path: str):
    data = (folder / path).read_bytes()
    metadata = hub_api.get_hf_file_metadata(url=f"{local_hub.endpoint}/{REPOSITORY}/resolve/main/{path}")
    assert (metadata.commit_hash, metadata.size) == (published, len(data))
    address, _, target = metadata.location.removeprefix("http://").partition("/")
    assert (address == local_hub.cdn_endpoint.removeprefix("http://")) == (path == "model.safetensors")
    for asked, expected in {"2-5": data[2:6], "7-": data[7:], "-4": data[-4:], "3-99999999": data[3:]}.items():
        response, body = ask(address, f"/{target}", Range=f"bytes={asked}")
        assert (response.status, body) == (206, expected)
        assert response.headers["Content-Range"].endswith(f"/{len(data)}")
    response, _ = ask(address, f"/{target}", Range=f"bytes={len(data)}-")
    assert (response.status, response.headers["Content-Range"]) == (416, f"bytes */{len(data)}")


def test_the_token_never_reaches_the_cdn_origin(hub_api: HfApi, published: str, local_hub: LocalHub, tmp_path: Path):
    hub_api.snapshot_download(REPOSITORY, cache_dir=tmp_path / "cache")
    on_cdn = [request for request in local_hub.requests if request.origin == "cdn"]
    assert {request.method for request in on_cdn} == {"GET", "PUT"}
    assert not [request for request in on_cdn if request.authorized]
    refused, _ = ask(local_hub.cdn_endpoint, on_cdn[-1].path, Authorization=f"Bearer {LOCAL_TOKEN}")
    assert refused.status == 400


def test_transformers_loads_a_published_model(
    hub_api: HfApi, local_hub: LocalHub, tmp_path: Path, recwarn: pytest.WarningsRecorder
):
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "model", max_shard_size="8KB")
    hub_api.create_repo(REPOSITORY)
    hub_api.upload_folder(repo_id=REPOSITORY, folder_path=tmp_path / "model")
    header = hub_api.get_safetensors_metadata(REPOSITORY)
    assert header.sharded
    assert len(header.weight_map) == len(model.state_dict())
    loaded = AutoModelForCausalLM.from_pretrained(hub_api.snapshot_download(REPOSITORY))
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


# Commits and refs ------------------------------------------------------------------------------------------------


def test_a_commit_on_a_stale_parent_is_refused(hub_api: HfApi, published: str):
    newer = hub_api.create_commit(
        REPOSITORY, [CommitOperationAdd("a.txt", b"1")], commit_message="one", parent_commit=published
    )
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        hub_api.create_commit(
            REPOSITORY, [CommitOperationAdd("a.txt", b"2")], commit_message="two", parent_commit=published
        )
    assert caught.value.response.status_code == 412
    assert hub_api.model_info(REPOSITORY).sha == newer.oid


def test_a_commit_adds_copies_and_deletes(hub_api: HfApi, published: str):
    hub_api.create_commit(
        REPOSITORY,
        [
            CommitOperationAdd("notes/a.txt", b"text"),
            CommitOperationCopy("model.safetensors", "copy.safetensors"),
            CommitOperationDelete("extra/", is_folder=True),
            CommitOperationDelete("empty.bin"),
        ],
        commit_message="rearrange",
        commit_description="run: 1",
    )
    assert hub_api.list_repo_files(REPOSITORY) == [
        ".gitattributes",
        "config.json",
        "copy.safetensors",
        "model.safetensors",
        "notes/a.txt",
    ]
    newest, *older = hub_api.list_repo_commits(REPOSITORY)
    assert (newest.title, newest.message, newest.authors) == ("rearrange", "run: 1", ["mergeline"])
    assert [commit.title for commit in older] == ["Upload folder using huggingface_hub", "initial commit"]


def test_commits_at_the_same_time_all_land(hub_api: HfApi, published: str):
    def upload(number: int) -> str:
        return hub_api.upload_file(
            repo_id=REPOSITORY, path_or_fileobj=bytes([number]), path_in_repo=f"{number}.txt"
        ).oid

    with ThreadPoolExecutor(8) as threads:
        commits = set(threads.map(upload, range(8)))
    assert {f"{number}.txt" for number in range(8)} <= set(hub_api.list_repo_files(REPOSITORY))
    assert {commit.commit_id for commit in hub_api.list_repo_commits(REPOSITORY)} > commits


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": "0" * 64}}, "does not exist"),
        ({"key": "file", "value": {"path": "a.bin", "content": "AAAA", "encoding": "base64"}}, "Use LFS or Xet"),
        ({"key": "file", "value": {"path": "../a", "content": "AAAA"}}, "Not a path"),
        ({"key": "file", "value": {"path": "README.md", "content": "LS0tCmE6IFsKLS0tCg=="}}, "Invalid metadata"),
        ({"key": "renamedFile", "value": {"path": "a"}}, "Unknown operations"),
    ],
)
def test_a_commit_that_cannot_be_kept_is_refused(
    hub_api: HfApi, local_hub: LocalHub, line: dict[str, Any], problem: str
):
    hub_api.create_repo(REPOSITORY)
    lines = [{"key": "header", "value": {"summary": "x"}}, line]
    body = "\n".join(map(json.dumps, lines)).encode()
    path = f"/api/models/{REPOSITORY}/commit/main"
    response, answer = ask(local_hub.endpoint, path, "POST", body, Authorization=f"Bearer {LOCAL_TOKEN}")
    assert (response.status, problem in answer.decode()) == (400, True), answer
    assert len(hub_api.list_repo_commits(REPOSITORY)) == 1


def test_bad_front_matter_is_refused_before_anything_is_uploaded(hub_api: HfApi, local_hub: LocalHub):
    hub_api.create_repo(REPOSITORY)
    local_hub.requests.clear()
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        hub_api.upload_file(repo_id=REPOSITORY, path_or_fileobj=b"---\na: [\n---\n", path_in_repo="README.md")
    assert [request.path for request in local_hub.requests if request.method == "POST"] == ["/api/validate-yaml"]


def test_branches_and_tags_name_commits(hub_api: HfApi, published: str, folder: Path):
    hub_api.create_branch(REPOSITORY, branch="next/one")
    hub_api.create_tag(REPOSITORY, tag="v1", revision=published)
    branched = hub_api.upload_file(
        repo_id=REPOSITORY, path_or_fileobj=b"new", path_in_repo="config.json", revision="next/one"
    )
    refs = hub_api.list_repo_refs(REPOSITORY)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": published, "next/one": branched.oid}
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": published}
    assert Path(hub_api.hf_hub_download(REPOSITORY, "config.json", revision="next/one")).read_bytes() == b"new"
    old = hub_api.hf_hub_download(REPOSITORY, "config.json", revision="v1")
    assert Path(old).read_bytes() == (folder / "config.json").read_bytes()
    with pytest.raises(HfHubHTTPError, match="exists already"):
        hub_api.create_tag(REPOSITORY, tag="v1")
    hub_api.create_tag(REPOSITORY, tag="v1", exist_ok=True)
    hub_api.delete_branch(REPOSITORY, branch="next/one")
    with pytest.raises(RevisionNotFoundError):
        hub_api.model_info(REPOSITORY, revision="next/one")


def test_squashing_keeps_the_files_and_drops_the_history(hub_api: HfApi, published: str):
    files = hub_api.list_repo_files(REPOSITORY)
    hub_api.super_squash_history(REPOSITORY)
    assert len(hub_api.list_repo_commits(REPOSITORY)) == 1
    assert hub_api.list_repo_files(REPOSITORY) == files


def test_a_pull_request_is_read_and_then_merged(hub_api: HfApi, published: str):
    proposed = hub_api.create_commit(
        REPOSITORY, [CommitOperationAdd("a.txt", b"1")], commit_message="propose", create_pr=True
    )
    assert (proposed.pr_revision, proposed.pr_num) == ("refs/pr/1", 1)
    assert Path(hub_api.hf_hub_download(REPOSITORY, "a.txt", revision="refs/pr/1")).read_bytes() == b"1"
    assert hub_api.model_info(REPOSITORY).sha == published
    hub_api.upload_file(repo_id=REPOSITORY, path_or_fileobj=b"2", path_in_repo="b.txt")
    hub_api.merge_pull_request(REPOSITORY, 1)
    assert {"a.txt", "b.txt"} <= set(hub_api.list_repo_files(REPOSITORY))
    assert hub_api.get_discussion_details(REPOSITORY, 1).status == "merged"


def test_a_pull_request_in_conflict_is_not_merged(hub_api: HfApi, published: str):
    number = hub_api.create_pull_request(REPOSITORY, "Change it").num
    for revision in (f"refs/pr/{number}", "main"):
        hub_api.upload_file(
            repo_id=REPOSITORY, path_or_fileobj=revision.encode(), path_in_repo="config.json", revision=revision
        )
    assert hub_api.get_discussion_details(REPOSITORY, number).conflicting_files == ["config.json"]
    with pytest.raises(HfHubHTTPError, match=r"conflicts with main in config\.json"):
        hub_api.merge_pull_request(REPOSITORY, number)
    hub_api.change_discussion_status(REPOSITORY, number, "closed")
    assert [pull.status for pull in hub_api.get_repo_discussions(REPOSITORY)] == ["closed"]


def test_a_long_tree_comes_in_pages(hub_api: HfApi, local_hub: LocalHub):
    hub_api.create_repo(REPOSITORY)
    names = [f"part/{number:04d}.txt" for number in range(1200)]
    hub_api.create_commit(REPOSITORY, [CommitOperationAdd(name, b"x") for name in names], commit_message="many")
    local_hub.requests.clear()
    assert [entry.path for entry in hub_api.list_repo_tree(REPOSITORY, "part")] == names
    assert len(local_hub.requests) == 2


# Who may do what -------------------------------------------------------------------------------------------------


@pytest.fixture
def guest(local_hub: LocalHub) -> HfApi:
    """A second user of the same Hub."""
    local_hub.tokens["hf_guest"] = "guest"
    return HfApi(endpoint=local_hub.endpoint, token="hf_guest")


def test_a_private_repository_is_not_there_for_strangers(
    hub_api: HfApi, guest: HfApi, local_hub: LocalHub, published: str
):
    hub_api.update_repo_settings(REPOSITORY, private=True)
    assert hub_api.model_info(REPOSITORY).private
    with pytest.raises(RepositoryNotFoundError) as caught:
        guest.model_info(REPOSITORY)
    assert caught.value.response.status_code == 404
    with pytest.raises(RepositoryNotFoundError) as caught:
        guest.hf_hub_download(REPOSITORY, "config.json", token=False)
    assert caught.value.response.status_code == 401
    assert list(guest.list_models()) == []


def test_a_wrong_token_is_said_to_be_wrong(hub_api: HfApi, published: str):
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as caught:
        hub_api.model_info(REPOSITORY, token="hf_stale")
    assert caught.value.response.status_code == 401
    assert not isinstance(caught.value, RepositoryNotFoundError)


def test_a_gated_repository_shows_its_card_and_keeps_its_files(hub_api: HfApi, guest: HfApi, published: str):
    hub_api.update_repo_settings(REPOSITORY, gated="manual")
    assert guest.model_info(REPOSITORY).gated == "manual"
    with pytest.raises(GatedRepoError, match="not in the authorized list") as caught:
        guest.hf_hub_download(REPOSITORY, "config.json")
    assert caught.value.response.status_code == 403
    with pytest.raises(GatedRepoError):
        guest.auth_check(REPOSITORY)
    hub_api.grant_access(REPOSITORY, "guest")
    guest.auth_check(REPOSITORY)
    assert Path(guest.hf_hub_download(REPOSITORY, "config.json")).exists()


def test_nobody_writes_in_a_namespace_of_somebody_else(hub_api: HfApi, guest: HfApi, published: str):
    with pytest.raises(HfHubHTTPError, match="403 Forbidden: You don't have the rights"):
        guest.create_repo("mergeline/another")
    with pytest.raises(HfHubHTTPError, match="403 Forbidden: You don't have the rights"):
        guest.upload_file(repo_id=REPOSITORY, path_or_fileobj=b"1", path_in_repo="a.txt")
    assert guest.create_repo("shared/by-everyone").repo_id == "shared/by-everyone"


# Failures on order -----------------------------------------------------------------------------------------------


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
    connection.request("POST", "/no/such/place", iter([b"in ", b"chunks"]), encode_chunked=True)
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


# The server ------------------------------------------------------------------------------------------------------


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


# Xet -------------------------------------------------------------------------------------------------------------


def test_a_hub_without_xet_says_so(hub_api: HfApi, published: str, local_hub: LocalHub):
    path = f"/api/models/{REPOSITORY}/xet-write-token/main"
    response, _ = ask(local_hub.endpoint, path, Authorization=f"Bearer {LOCAL_TOKEN}")
    assert response.status == 404
    assert not hub_api.get_paths_info(REPOSITORY, ["model.safetensors"])[0].xet_hash


def test_files_travel_through_xet_and_are_there_for_clients_without_it(tmp_path: Path):
    script = """
        import os, sys
        from huggingface_hub import HfApi
        api, data = HfApi(), os.urandom(3_000_000)
        api.create_repo("mergeline/model")
        for name in ("a.safetensors", "b.safetensors"):
            api.upload_file(repo_id="mergeline/model", path_or_fileobj=data, path_in_repo=name)
            data += b"appended"
        with open(api.hf_hub_download("mergeline/model", "b.safetensors"), "rb") as file:
            print(file.read() + b"appended" == data)
        import hf_xet
        from huggingface_hub import constants
        (file,) = api.get_paths_info("mergeline/model", ["b.safetensors"])
        url = f"{api.endpoint}/api/models/mergeline/model/xet-read-token/main"
        headers = {"Authorization": "Bearer " + os.environ["HF_TOKEN"]}
        group = hf_xet.XetSession().new_download_stream_group(token_refresh_url=url, token_refresh_headers=headers)
        piece = group.download_stream(hf_xet.XetFileInfo(file.xet_hash, file.size), start=2_999_990, end=3_000_004)
        print(b"".join(piece) == data[2_999_990:3_000_004])
        constants.HF_HUB_DISABLE_XET = True
        path = api.hf_hub_download("mergeline/model", "b.safetensors", cache_dir=sys.argv[1])
        with open(path, "rb") as file:
            print(file.read() + b"appended" == data)
    """
    with LocalHub(tmp_path / "hub", xet=True) as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": LOCAL_TOKEN,
            "HF_HOME": str(tmp_path / "home"),
        }
        command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "second-cache")]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert result.stdout.split() == ["True"] * 3, result.stderr
        uploads = [request for request in hub.requests if request.method == "PUT"]
        xorbs = [request for request in hub.requests if request.path.startswith("/xorb/")]
        plain = [request for request in hub.requests if request.path.startswith("/lfs/")]
        assert (uploads, len(plain)) == ([], 1)
        assert xorbs
        stored = sum(path.stat().st_size for path in (tmp_path / "hub/xet/xorbs").iterdir())
        assert stored < 3_500_000, "the second file shares all but its last chunk with the first"
    with LocalHub(tmp_path / "hub", xet=True) as hub:
        (file,) = HfApi(endpoint=hub.endpoint, token=False).get_paths_info("mergeline/model", ["b.safetensors"])
        assert file.xet_hash
        reader, writer = (
            ask(hub.endpoint, f"/api/models/mergeline/model/xet-{kind}-token/main")[0].status
            for kind in ("read", "write")
        )
        assert (reader, writer) == (200, 401)
