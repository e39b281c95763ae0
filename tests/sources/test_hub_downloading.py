"""Files downloaded into a cache, by LFS and by Xet: checked once, fetched again where they are damaged."""

import logging
from pathlib import Path

import pytest

from deployments.loopback_hub import Fault, LocalHub
from mergeline.errors import HubError, TransientHubError
from mergeline.sources.hub import Hub
from tests.builders.hub_repository import FILES, REPOSITORY, WEIGHTS, only_line, publish, stored


def test_download_touches_only_the_named_files(hub: Hub, local_hub: LocalHub, tmp_path: Path) -> None:
    commit = publish(hub, {**FILES, "model[1].safetensors": b"brackets are no pattern", "model1.safetensors": b"1"})
    pinned = hub.resolve(REPOSITORY)
    before = len(local_hub.requests)
    directory = hub.download(pinned, ["model.safetensors", "extra/more.safetensors"], tmp_path / "cache")
    assert directory.name == commit
    found = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert found == {"model.safetensors", "extra/more.safetensors"}
    assert (directory / "model.safetensors").read_bytes() == WEIGHTS
    sent = [
        request for request in local_hub.requests[before:] if request.method == "GET" and "/api/" not in request.path
    ]
    assert sum(request.sent_bytes for request in sent) == len(WEIGHTS) + len(b"more")

    directory = hub.download(pinned, ["model[1].safetensors"], tmp_path / "cache")
    assert (directory / "model[1].safetensors").read_bytes() == b"brackets are no pattern"
    assert not (directory / "model1.safetensors").exists()


def test_a_second_download_asks_nothing_and_hashes_nothing(
    hub: Hub, local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    first = hub.download(pinned, ["model.safetensors", "config.json"], tmp_path)
    before = len(local_hub.requests)
    monkeypatch.setattr("mergeline.sources.snapshot.file_sha256", lambda path: pytest.fail(f"{path} was hashed again"))
    assert hub.download(pinned, ["model.safetensors", "config.json"], tmp_path) == first
    assert hub.download(pinned, ["extra/more.safetensors", "config.json"][1:], tmp_path) == first
    assert len(local_hub.requests) == before


def test_a_file_damaged_in_the_cache_is_fetched_again(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    path = hub.download(pinned, ["model.safetensors"], tmp_path) / "model.safetensors"
    with path.open("r+b") as file:
        file.write(bytes(8) if WEIGHTS[:8] != bytes(8) else b"damaged!")
    assert (hub.download(pinned, ["model.safetensors"], tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert "model.safetensors is damaged in the cache; fetching it again" in caplog.text


def test_a_file_damaged_on_the_hub_is_caught(hub: Hub, local_hub: LocalHub, tmp_path: Path) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    stored(local_hub, WEIGHTS).write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
    with pytest.raises(HubError, match=r"model.safetensors arrived twice with another size or sha256") as failure:
        hub.download(pinned, ["config.json", "model.safetensors"], tmp_path)
    only_line(failure.value)
    fetched = [r for r in local_hub.requests if r.origin == "cdn" and r.method == "GET"]
    assert len(fetched) == 2
    stored(local_hub, WEIGHTS).write_bytes(WEIGHTS)
    directory = hub.download(pinned, ["model.safetensors"], tmp_path)
    assert (directory / "model.safetensors").read_bytes() == WEIGHTS


def test_read_file_checks_what_it_read(hub: Hub, local_hub: LocalHub) -> None:
    publish(hub, FILES)
    stored(local_hub, b"more").write_bytes(b"less")
    with pytest.raises(TransientHubError, match=r"extra/more.safetensors arrived damaged"):
        hub.read_file(hub.resolve(REPOSITORY), "extra/more.safetensors")


def test_a_storage_that_fails_is_asked_again(hub: Hub, local_hub: LocalHub, tmp_path: Path) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    local_hub.faults.append(Fault("GET /lfs/", status=503, times=2))
    directory = hub.download(pinned, ["model.safetensors"], tmp_path)
    assert (directory / "model.safetensors").read_bytes() == WEIGHTS


def test_a_download_from_a_server_that_keeps_failing(hub: Hub, local_hub: LocalHub, tmp_path: Path) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    local_hub.faults.append(Fault("GET /lfs/", status=503, times=99))
    with pytest.raises(TransientHubError, match=f"{local_hub.cdn_endpoint} answered 503 for mergeline/model"):
        hub.download(pinned, ["model.safetensors"], tmp_path)


def test_the_cache_serves_without_a_server(hub: Hub, local_hub: LocalHub, tmp_path: Path) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    hub.download(pinned, ["model.safetensors"], tmp_path)
    local_hub.stop()
    assert (hub.download(pinned, ["model.safetensors"], tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_without_xet_is_asked_once_and_served_by_lfs(
    hub: Hub, local_hub: LocalHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from huggingface_hub import constants

    caplog.set_level(logging.INFO, "mergeline")
    publish(hub, FILES)
    publish(hub, {"other.safetensors": b"other"})
    hub.download(hub.resolve(REPOSITORY), ["model.safetensors"], tmp_path)
    probes = [request.path for request in local_hub.requests if "/xet-" in request.path]
    assert [path.split("/")[-2] for path in probes] == ["xet-write-token", "xet-read-token"]
    assert "no Xet storage: large files go by LFS" in caplog.text
    assert not constants.HF_HUB_DISABLE_XET  # the switch is back where it was


def test_a_hub_with_xet_is_served_by_xet(tmp_path: Path) -> None:
    with LocalHub(tmp_path / "xet-hub", xet=True) as local_hub:
        hub = Hub(local_hub.endpoint)
        publish(hub, FILES)
        pinned = hub.resolve(REPOSITORY)
        assert hub.read_range(pinned, "model.safetensors", 10, 20) == WEIGHTS[10:20]
        path = hub.download(pinned, ["model.safetensors"], tmp_path / "cache") / "model.safetensors"
        assert path.read_bytes() == WEIGHTS
        paths = [request.path for request in local_hub.requests]
        assert any("/cas/v1/xorbs/" in path for path in paths)
        assert any("/reconstructions/" in path for path in paths)
        assert not any("objects/batch" in path for path in paths)

        # A damaged file sits in the cache-wide store that symbolic links lead to.
        path.resolve().chmod(0o644)
        path.resolve().write_bytes(bytes(len(WEIGHTS)))
        path = hub.download(pinned, ["model.safetensors"], tmp_path / "cache") / "model.safetensors"
        assert path.read_bytes() == WEIGHTS
