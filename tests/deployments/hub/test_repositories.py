"""Repositories of the local Hub: made, found, described and deleted."""

import hashlib
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
)

from deployments.local.hub import LOCAL_TOKEN, LocalHub
from tests.builders.local_hub_requests import REPOSITORY, ask


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
