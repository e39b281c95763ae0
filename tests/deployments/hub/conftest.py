"""A repository on a local Hub, put there by the Hub's own client, and a second user."""

import os
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from deployments.loopback_hub import LocalHub
from tests.builders.local_hub_requests import REPOSITORY


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


@pytest.fixture
def guest(local_hub: LocalHub) -> HfApi:
    """A second user of the same Hub."""
    local_hub.tokens["hf_guest"] = "guest"
    return HfApi(endpoint=local_hub.endpoint, token="hf_guest")
