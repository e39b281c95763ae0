"""Names, addresses and revisions on the Hub, over real HTTP."""

import hashlib
import pickle
import subprocess
import sys

import pytest
from huggingface_hub import HfApi

from deployments.loopback_hub import LOCAL_TOKEN, LocalHub
from mergeline.errors import RepositoryError
from mergeline.sources.hub import Hub, PinnedRepository, RemoteFile
from tests.builders.hub_repository import FILES, REPOSITORY, WEIGHTS, publish


def test_the_endpoint_is_the_environment_s_at_the_moment_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    assert hub.url == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/prefix/")
    assert hub.url == "http://127.0.0.1:9/prefix"
    assert Hub("https://hub.example/").url == "https://hub.example"


def test_addresses_name_the_commit_and_the_kind() -> None:
    hub = Hub("https://hub.example")
    assert hub.repository_url("o/m") == "https://hub.example/o/m"
    assert hub.repository_url("o/d", "c" * 40, "dataset") == f"https://hub.example/datasets/o/d/tree/{'c' * 40}"
    assert hub.file_url("o/m", "a b#.json") == "https://hub.example/o/m/resolve/main/a%20b%23.json"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a\\b", "C:x", "", "a//b", "./a", "a\nb"])
def test_a_path_that_could_lead_out_is_refused(path: str) -> None:
    repository = PinnedRepository("o/m", "0" * 40, "model", None, False, (RemoteFile(path, 1, None),))
    for use in (lambda: Hub("https://hub.example").file_url("o/m", path), lambda: repository.file(path)):
        with pytest.raises(RepositoryError, match="could lead out of the repository"):
            use()


def test_a_hub_holds_no_token(hub: Hub) -> None:
    assert hub.whoami() == "mergeline"
    assert LOCAL_TOKEN not in repr(hub)
    assert LOCAL_TOKEN.encode() not in pickle.dumps(hub)


def test_resolve_pins_a_branch_and_a_tag_to_commits(hub: Hub, hub_api: HfApi) -> None:
    first = publish(hub, FILES)
    hub_api.create_tag(REPOSITORY, tag="v1")
    second = publish(hub, {"config.json": b"{}"})

    pinned = hub.resolve(REPOSITORY)
    assert pinned.commit == hub.resolve(REPOSITORY, "main").commit == second
    tagged = hub.resolve(REPOSITORY, "v1")
    assert tagged.commit == hub.resolve(REPOSITORY, first).commit == first
    assert {file.path: file.nbytes for file in tagged.files if file.path != ".gitattributes"} == {
        path: len(content) for path, content in FILES.items()
    }
    assert tagged.file("model.safetensors").sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert tagged.file("config.json").sha256 is None
    assert tagged.license == "sea-licence"
    assert not tagged.is_gated
    assert not tagged.is_private


def test_resolve_takes_two_requests(hub: Hub, local_hub: LocalHub) -> None:
    publish(hub, FILES)
    before = len(local_hub.requests)
    hub.resolve(REPOSITORY)
    assert len(local_hub.requests) - before == 2


def test_a_dataset_is_resolved_by_its_kind(hub: Hub) -> None:
    hub.create_repository("mergeline/questions", is_private=True, kind="dataset")
    pinned = hub.resolve("mergeline/questions", kind="dataset")
    assert pinned.kind == "dataset"
    assert pinned.is_private
    with pytest.raises(RepositoryError, match="does not exist or is private"):
        hub.resolve("mergeline/questions")


def test_the_library_is_imported_only_when_the_hub_is_asked() -> None:
    program = (
        "import sys, mergeline.sources.hub, mergeline.publish.publication, mergeline.publish.card; "
        "mergeline.sources.hub.Hub().file_url('o/m', 'x');"
        "print([name for name in ('huggingface_hub', 'httpx2', 'torch') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout == "[]\n"
