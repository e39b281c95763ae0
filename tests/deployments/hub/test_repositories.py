"""Repositories of the loopback Hub: creation, information, pages."""

import urllib.request

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
)

from deployments.loopback_hub import LOCAL_TOKEN, LocalHub
from tests.builders.local_hub_requests import REPOSITORY, ask


def test_a_repository_is_created_once(hub_api: HfApi, local_hub: LocalHub):
    assert hub_api.create_repo(REPOSITORY) == f"{local_hub.endpoint}/{REPOSITORY}"
    assert hub_api.create_repo(REPOSITORY, exist_ok=True).repo_id == REPOSITORY
    with pytest.raises(HfHubHTTPError, match="already created this model repo") as caught:
        hub_api.create_repo(REPOSITORY)
    assert caught.value.response.status_code == 409
    assert hub_api.list_repo_files(REPOSITORY) == [".gitattributes"]


def test_information_has_card_gate_and_files(hub_api: HfApi, published: str):
    card = "---\nlicense: apache-2.0\nbase_model: [a/b]\n---\n# Hello\n"
    commit = hub_api.upload_file(repo_id=REPOSITORY, path_or_fileobj=card.encode(), path_in_repo="README.md")
    information = hub_api.model_info(REPOSITORY)
    assert information.sha == commit.oid
    assert information.card_data is not None
    assert information.card_data.to_dict() == {"license": "apache-2.0", "base_model": ["a/b"]}
    assert (information.private, information.gated) == (False, False)
    assert {file.rfilename for file in information.siblings or []} >= {"README.md", "model.safetensors"}


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
