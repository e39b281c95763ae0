"""Uploads to the loopback Hub and downloads from it, whole and in ranges."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    RemoteEntryNotFoundError,
)

from deployments.loopback_hub import LOCAL_TOKEN, LocalHub
from tests.builders.local_hub_requests import REPOSITORY, ask, files_under


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
