"""Commits, branches and tags on the loopback Hub."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    RevisionNotFoundError,
)

from deployments.loopback_hub import LOCAL_TOKEN, LocalHub
from tests.builders.local_hub_requests import REPOSITORY, ask


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


def test_a_commit_adds_and_deletes(hub_api: HfApi, published: str):
    hub_api.create_commit(
        REPOSITORY,
        [
            CommitOperationAdd("notes/a.txt", b"text"),
            CommitOperationDelete("empty.bin"),
        ],
        commit_message="rearrange",
        commit_description="run: 1",
    )
    assert hub_api.list_repo_files(REPOSITORY) == [
        ".gitattributes",
        "config.json",
        "extra/more.bin",
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
    names = ("main", "next/one", "v1", published[:10])
    commits = [hub_api.model_info(REPOSITORY, revision=name).sha for name in names]
    assert commits == [published, branched.oid, published, published]
    assert Path(hub_api.hf_hub_download(REPOSITORY, "config.json", revision="next/one")).read_bytes() == b"new"
    old = hub_api.hf_hub_download(REPOSITORY, "config.json", revision="v1")
    assert Path(old).read_bytes() == (folder / "config.json").read_bytes()
    with pytest.raises(HfHubHTTPError, match="exists already"):
        hub_api.create_tag(REPOSITORY, tag="v1")
    hub_api.create_tag(REPOSITORY, tag="v1", exist_ok=True)
    with pytest.raises(RevisionNotFoundError):
        hub_api.model_info(REPOSITORY, revision="next/two")


def test_a_long_tree_comes_in_pages(hub_api: HfApi, local_hub: LocalHub):
    hub_api.create_repo(REPOSITORY)
    names = [f"part/{number:04d}.txt" for number in range(1200)]
    hub_api.create_commit(REPOSITORY, [CommitOperationAdd(name, b"x") for name in names], commit_message="many")
    local_hub.requests.clear()
    assert [entry.path for entry in hub_api.list_repo_tree(REPOSITORY, "part")] == names
    assert len(local_hub.requests) == 2
