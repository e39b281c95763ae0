"""Who may read and change repositories of the loopback Hub."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)

from deployments.loopback_hub import LocalHub
from tests.builders.local_hub_requests import REPOSITORY


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
    assert [model.id for model in hub_api.list_models()] == [REPOSITORY]


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
    assert Path(hub_api.hf_hub_download(REPOSITORY, "config.json")).exists()


def test_nobody_writes_in_a_namespace_of_somebody_else(hub_api: HfApi, guest: HfApi, published: str):
    with pytest.raises(HfHubHTTPError, match="403 Forbidden: You don't have the rights"):
        guest.create_repo("mergeline/another")
    with pytest.raises(HfHubHTTPError, match="403 Forbidden: You don't have the rights"):
        guest.upload_file(repo_id=REPOSITORY, path_or_fileobj=b"1", path_in_repo="a.txt")
    assert guest.create_repo("shared/by-everyone").repo_id == "shared/by-everyone"
