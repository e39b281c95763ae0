"""Links that lead out of the cache: nothing behind them is read, written or removed."""

from pathlib import Path

from mergeline.sources.hub import Hub
from tests.builders.lying_hub import REPOSITORY, WEIGHTS, assert_untouched, publish, refusal


def test_a_link_out_of_the_cache_is_removed_but_not_followed(hub: Hub, treasure: Path, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    path = hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors"
    path.unlink()
    path.symlink_to(treasure)
    path = hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors"
    assert path.read_bytes() == WEIGHTS
    assert_untouched(treasure)


def test_a_blob_that_leads_out_of_the_cache_is_removed_but_not_followed(hub: Hub, treasure: Path, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    path = hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors"
    blob = path.parent / path.readlink()
    blob.unlink()
    blob.symlink_to(treasure)
    path = hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors"
    assert path.read_bytes() == WEIGHTS
    assert_untouched(treasure)


def test_a_folder_that_leads_out_of_the_cache_is_neither_cleared_nor_written(
    hub: Hub, treasure: Path, cache: Path
) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    directory = hub.download(pinned, ["config.json"], cache)
    outside = treasure.parent / "cache" / "outside"
    outside.mkdir()
    (directory / "extra").symlink_to(outside)
    assert "outside the cache" in refusal(lambda: hub.download(pinned, ["extra/notes.json"], cache))
    assert not list(outside.iterdir())
    (outside / "notes.json").write_text("mine too")
    assert "outside the cache" in refusal(lambda: hub.download(pinned, ["extra/notes.json"], cache))
    assert (outside / "notes.json").read_text() == "mine too"


def test_blobs_that_lead_out_of_the_cache_are_not_written(hub: Hub, treasure: Path, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    repository = hub.download(pinned, ["config.json"], cache).parents[1]
    (repository / "blobs").rename(cache / "outside")
    (repository / "blobs").symlink_to(cache / "outside")
    before = set((cache / "outside").iterdir())
    assert "outside the cache" in refusal(lambda: hub.download(pinned, ["extra/notes.json"], cache))
    assert set((cache / "outside").iterdir()) == before


def test_what_was_verified_is_not_noted_outside_the_cache(hub: Hub, treasure: Path, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    repository = hub.download(pinned, ["model.safetensors"], cache).parents[1]
    (record,) = (repository / "mergeline-verified").iterdir()
    record.unlink()
    record.symlink_to(treasure)
    hub.download(pinned, ["model.safetensors"], cache)
    assert_untouched(treasure)


def test_a_repository_s_folder_may_lie_on_another_disk(hub: Hub, cache: Path, tmp_path: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    (tmp_path / "disk").mkdir()
    cache.mkdir(parents=True)
    (cache / "models--mergeline--model").symlink_to(tmp_path / "disk")
    path = hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors"
    path.write_bytes(bytes(len(WEIGHTS)))
    assert (hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors").read_bytes() == WEIGHTS
