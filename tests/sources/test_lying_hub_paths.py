"""A Hub that lies: no answer makes or removes a file outside the cache."""

import json
from itertools import product
from pathlib import Path

import pytest

from deployments.loopback_hub import Fault, LocalHub
from mergeline.errors import HubError, RepositoryError
from mergeline.sources.hub import Hub
from tests.builders.lying_hub import (
    REPOSITORY,
    SHA256,
    WEIGHTS,
    Stranger,
    assert_untouched,
    lie,
    listing,
    publish,
    redirect,
    refusal,
    uploads,
)

ESCAPES = [
    "{treasure}",
    "../../../treasure",
    'W/"../../../treasure"',
    '"{treasure}"',
    '"',
    f"../../../{'0' * 64}",
    "0" * 39,
    "",
    "treasure",
]


HEADERS = ["ETag", "X-Linked-ETag", "X-Repo-Commit", "X-Xet-Hash"]


# An empty X-Linked-ETag is as good as none: the library takes the ETag.
@pytest.mark.parametrize(
    ("header", "escape"), [pair for pair in product(HEADERS, ESCAPES) if pair != ("X-Linked-ETag", "")]
)
def test_metadata_that_is_no_digest_writes_nothing(
    header: str, escape: str, hub: Hub, local_hub: LocalHub, treasure: Path, cache: Path
) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    lie(local_hub, "HEAD .*/resolve/", **{header: escape.format(treasure=treasure)})
    text = refusal(lambda: hub.download(pinned, ["config.json"], cache))
    assert "expected hexadecimal digits; nothing was written" in text
    assert_untouched(treasure)
    assert not list(cache.rglob("blobs/*"))


def test_a_missing_file_s_commit_makes_no_folder(hub: Hub, local_hub: LocalHub, treasure: Path, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": f"{treasure.parent}/made"}
    local_hub.faults.append(Fault("HEAD .*/resolve/", status=404, headers=headers))
    assert "as a commit" in refusal(lambda: hub.download(pinned, ["config.json"], cache))
    assert_untouched(treasure)


@pytest.mark.parametrize("escape", ["{treasure}", "../../../treasure"])
@pytest.mark.parametrize("is_second", [False, True], ids=["first listing", "library's own listing"])
@pytest.mark.parametrize("field", ["oid", "lfs", "xetHash", "path"])
def test_a_listing_s_digests_and_paths_write_nothing(
    field: str, is_second: bool, escape: str, xet_hub: LocalHub, treasure: Path, cache: Path
) -> None:
    hub = Hub(xet_hub.endpoint)
    commit = publish(hub)
    pinned = hub.resolve(REPOSITORY)
    entries = listing(xet_hub, commit)
    (entry,) = [entry for entry in entries if entry["path"] == "model.safetensors"]
    entry[field] = escape = escape.format(treasure=treasure)
    if field == "lfs":
        entry[field] = {"oid": escape, "size": len(WEIGHTS), "pointerSize": 1}
    lie(xet_hub, "GET .*/tree/", entries)
    kind = RepositoryError if field == "path" else HubError

    def use() -> None:
        hub.download(pinned if is_second else hub.resolve(REPOSITORY), ["model.safetensors"], cache)

    # A message shows the first 80 characters.
    assert escape[:60] in refusal(use, kind)
    assert_untouched(treasure)
    assert not list(cache.rglob("trees/*"))


def test_a_listing_that_is_redirected_is_checked_too(
    xet_hub: LocalHub, stranger: Stranger, treasure: Path, cache: Path
) -> None:
    hub = Hub(xet_hub.endpoint)
    commit = publish(hub)
    pinned = hub.resolve(REPOSITORY)
    entries = listing(xet_hub, commit)
    for entry in entries:
        entry["lfs"] = {"oid": str(treasure), "size": len(WEIGHTS), "pointerSize": 1}
    stranger.body = json.dumps(entries).encode()
    redirect(xet_hub, "GET .*/tree/", f"{stranger.url}/somewhere")
    assert "as the sha256 of" in refusal(lambda: hub.download(pinned, ["model.safetensors"], cache))
    assert_untouched(treasure)


@pytest.mark.parametrize("commit", ["../../treasure", "HEAD", "", None, 5])
def test_a_commit_that_is_no_commit_is_refused(commit: object, hub: Hub, local_hub: LocalHub) -> None:
    parent = publish(hub)
    local_hub.faults.append(
        Fault(
            "/commits/",
            status=None,
            body=json.dumps(
                [{"id": commit, "title": "", "message": "", "date": "2026-01-01T00:00:00.000Z", "authors": []}]
            ).encode(),
        )
    )
    assert "as a commit" in refusal(lambda: hub.commits(REPOSITORY))
    staged = hub.stage(REPOSITORY, uploads({"config.json": b"{}"}))
    lie(local_hub, "POST .*/commit/", {"commitOid": commit, "commitUrl": f"{hub.url}/{REPOSITORY}/commit/x"})
    assert "as a commit" in refusal(lambda: hub.commit(staged, parent=parent, title="t", description=""))


def test_a_refusal_during_an_upload_is_told_as_it_is(hub: Hub, local_hub: LocalHub) -> None:
    hub.create_repository(REPOSITORY, is_private=True)
    local_hub.faults.append(Fault("PUT /upload/", status=None, headers={"X-Repo-Commit": "../x"}))
    text = refusal(lambda: hub.stage(REPOSITORY, uploads({"model.safetensors": WEIGHTS})))
    assert text.startswith(f"{local_hub.cdn_endpoint}/upload/{SHA256} gives '../x' as a commit")


def test_a_file_of_another_commit_is_not_taken(hub: Hub, local_hub: LocalHub, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    lie(local_hub, "HEAD .*/resolve/", X_Repo_Commit="f" * 40)
    assert f"answers for commit {'f' * 40}" in refusal(lambda: hub.download(pinned, ["config.json"], cache))
    assert not list(cache.rglob("refs/*"))


def test_a_file_missing_from_a_second_listing_is_not_taken(xet_hub: LocalHub, cache: Path) -> None:
    hub = Hub(xet_hub.endpoint)
    commit = publish(hub)
    pinned = hub.resolve(REPOSITORY)
    lie(xet_hub, "GET .*/tree/", [entry for entry in listing(xet_hub, commit) if entry["path"] != "config.json"])
    assert "arrived twice with another size or sha256" in refusal(lambda: hub.download(pinned, ["config.json"], cache))


@pytest.mark.parametrize("use", ["read_file", "read_range", "download"])
def test_a_redirect_to_a_local_file_reads_nothing(
    use: str, hub: Hub, local_hub: LocalHub, treasure: Path, cache: Path
) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    headers = {"Location": treasure.as_uri(), "X-Repo-Commit": pinned.commit, "ETag": f'"{"0" * 40}"'}
    local_hub.faults.append(Fault("/resolve/", status=302, times=99, headers=headers))
    calls = {
        "read_file": lambda: hub.read_file(pinned, "config.json"),
        "read_range": lambda: hub.read_range(pinned, "config.json", 0, 4),
        "download": lambda: hub.download(pinned, ["config.json"], cache),
    }
    assert "mine" not in refusal(calls[use])
    assert_untouched(treasure)
