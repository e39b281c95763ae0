"""A real merge on the local Hub: verified without moving a weight, made again from the same commits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi

from deployments.loopback_hub import LOCAL_TOKEN, LocalHub
from mergeline.cli.command_line import main
from mergeline.errors import InputError, VerificationError
from mergeline.merge.manifest import read_manifest
from mergeline.merge.merging import merge_recipe
from mergeline.merge.reproduction import reproduce
from mergeline.merge.verification import verify_model
from mergeline.plan.plan_file import PLAN_NAME
from mergeline.publish.publication import publish_directory
from mergeline.sources.hub import Hub
from tests.builders.tiny_checkpoints import make_mistral

REPOSITORY = "mergeline/merged"
RECIPE = """\
merge_method: slerp
base_model: mergeline/a
models: [{model: mergeline/a}, {model: mergeline/b}]
parameters: {t: 0.3}
"""


@pytest.fixture
def hub(local_hub: LocalHub, hub_api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub that holds two models and their merge."""
    monkeypatch.setenv("HF_TOKEN", LOCAL_TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", local_hub.endpoint)
    monkeypatch.setattr("mergeline.sources.xet._endpoints", {})
    for seed, name in enumerate("ab"):
        make_mistral(tmp_path / name, seed, dtype=torch.float32)
        hub_api.create_repo(f"mergeline/{name}")
        hub_api.upload_folder(repo_id=f"mergeline/{name}", folder_path=tmp_path / name)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    hub = Hub(local_hub.endpoint)
    merged = merge_recipe(tmp_path / "recipe.yaml", tmp_path / "out", hub=hub, max_shard_bytes=100_000)
    publish_directory(merged.directory, REPOSITORY, hub=hub, plan_digest=merged.manifest.plan_digest)
    return hub


def test_a_published_merge_is_verified_without_moving_a_weight(hub: Hub, local_hub: LocalHub, tmp_path: Path) -> None:
    here = verify_model(str(tmp_path / "out"), hub, try_loading=True)
    before = len(local_hub.requests)
    assert verify_model(REPOSITORY, hub, try_loading=True) == here
    weights = [request for request in local_hub.requests[before:] if request.path.endswith(".safetensors")]
    assert weights
    assert [request for request in weights if request.range is None and request.method == "GET"] == []


def test_a_published_merge_that_was_tampered_with_is_found(
    hub: Hub, hub_api: HfApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = next((tmp_path / "out").glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    hub_api.upload_file(repo_id=REPOSITORY, path_in_repo=shard.name, path_or_fileobj=bytes(content))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    config["vocab_size"] += 1
    hub_api.upload_file(
        repo_id=REPOSITORY, path_in_repo="config.json", path_or_fileobj=json.dumps(config, indent=2).encode()
    )
    assert main(["verify", REPOSITORY]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert (
        lines[0] == f"mergeline: error: {REPOSITORY}: {shard.name} has changed since it was written (sha256 differs)."
    )
    assert len(lines) == 2
    assert "config.json has" in lines[1]
    # The commit that was published has not changed.
    published = hub.commits(REPOSITORY)[2].commit
    assert main(["verify", f"{REPOSITORY}@{published}"]) == 0


def test_a_published_merge_is_made_again_byte_for_byte(hub: Hub, hub_api: HfApi, tmp_path: Path) -> None:
    # A parent that has moved on is read at the commit that was merged.
    hub_api.upload_file(repo_id="mergeline/b", path_in_repo="config.json", path_or_fileobj=b"{}")
    reproduce(REPOSITORY, tmp_path / "again", hub=hub)
    first, again = (read_manifest(tmp_path / name) for name in ("out", "again"))
    assert first is not None
    assert again is not None
    assert again.shards == first.shards
    for shard in again.shards:
        assert (tmp_path / "again" / shard.name).read_bytes() == (tmp_path / "out" / shard.name).read_bytes()


def test_a_merge_that_comes_out_otherwise_is_told(hub: Hub, hub_api: HfApi, tmp_path: Path) -> None:
    manifest = json.loads((tmp_path / "out" / "mergeline_manifest.json").read_text())
    manifest["shards"][0]["sha256"] = "0" * 64
    hub_api.upload_file(
        repo_id=REPOSITORY, path_in_repo="mergeline_manifest.json", path_or_fileobj=json.dumps(manifest).encode()
    )
    with pytest.raises(VerificationError, match=r"1 of \d+ shards came out otherwise, first model-00001"):
        reproduce(REPOSITORY, tmp_path / "again", hub=hub)


def test_only_a_merge_is_verified_or_made_again(hub: Hub, hub_api: HfApi, tmp_path: Path) -> None:
    for act in (lambda: verify_model("mergeline/a", hub), lambda: reproduce("mergeline/a", tmp_path / "x", hub=hub)):
        with pytest.raises(InputError, match=r"mergeline/a: has no mergeline_manifest\.json"):
            act()
    plan = json.loads((tmp_path / "out" / PLAN_NAME).read_text())
    plan["shards"][0]["filename"] = "../elsewhere.safetensors"
    hub_api.upload_file(repo_id=REPOSITORY, path_in_repo=PLAN_NAME, path_or_fileobj=json.dumps(plan).encode())
    with pytest.raises(InputError, match=r"names '\.\./elsewhere\.safetensors', which is no file of a merge"):
        reproduce(REPOSITORY, tmp_path / "again", hub=hub)


def test_a_merge_of_another_numerics_version_is_refused(hub: Hub, hub_api: HfApi, tmp_path: Path) -> None:
    plan = json.loads((tmp_path / "out" / PLAN_NAME).read_text()) | {"numerics_version": 1}
    hub_api.upload_file(repo_id=REPOSITORY, path_in_repo=PLAN_NAME, path_or_fileobj=json.dumps(plan).encode())
    with pytest.raises(InputError, match=r"was merged with numerics version 1 .* this one computes with version 2"):
        reproduce(REPOSITORY, tmp_path / "again", hub=hub)
    assert not (tmp_path / "again").exists()
