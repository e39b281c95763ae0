"""The Hub client against the local Hub, over real HTTP."""

import hashlib
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from deployments.local.hub import LOCAL_TOKEN, Fault, LocalHub
from mergeline.errors import HubError, InputError, MergelineError, RepositoryError, TransientHubError
from mergeline.sources import hub_failures
from mergeline.sources.hub import Hub, PinnedRepository, RemoteFile, Upload

REPOSITORY = "mergeline/model"
WEIGHTS = os.urandom(400_000)
FILES = {
    "README.md": b"---\nlicense: other\nlicense_name: sea-licence\n---\nA model.\n",
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "extra/more.safetensors": b"more",
}


@pytest.fixture(autouse=True)
def signed_in_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", LOCAL_TOKEN)
    monkeypatch.setattr(hub_failures, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr("mergeline.sources.xet._endpoints", {})


@pytest.fixture
def hub(local_hub: LocalHub) -> Hub:
    return Hub(local_hub.endpoint)


def publish(hub: Hub, files: Mapping[str, bytes], repo_id: str = REPOSITORY, *, is_private: bool = False) -> str:
    hub.create_repository(repo_id, is_private=is_private)
    uploads = [Upload(path, content, hashlib.sha256(content).hexdigest()) for path, content in files.items()]
    parent = hub.resolve(repo_id).commit
    commit = hub.commit(hub.stage(repo_id, uploads), parent=parent, title="Add files", description="")
    assert commit is not None
    return commit


def stored(local_hub: LocalHub, content: bytes) -> Path:
    """Where the server keeps a large file."""
    (path,) = local_hub.root.rglob(hashlib.sha256(content).hexdigest())
    return path


def only_line(error: MergelineError) -> str:
    text = str(error)
    assert "\n" not in text
    assert LOCAL_TOKEN not in text
    return text


# Names ---------------------------------------------------------------------------------------------------------------


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


# Resolving -----------------------------------------------------------------------------------------------------------


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


# Errors --------------------------------------------------------------------------------------------------------------


def test_a_missing_repository_is_the_users_to_mend(hub: Hub) -> None:
    with pytest.raises(RepositoryError) as failure:
        hub.resolve("mergeline/nothing")
    assert only_line(failure.value) == (
        f"mergeline/nothing at {hub.url} does not exist or is private: check the name, or set HF_TOKEN to a token that "
        "may read it."
    )
    assert failure.value.exit_status == 2
    assert failure.value.__cause__ is failure.value.__context__ is None


def test_a_missing_revision_is_named(hub: Hub) -> None:
    publish(hub, FILES)
    with pytest.raises(RepositoryError, match=r"mergeline/model at .* has no revision 'v9': name a branch, a tag") as e:
        hub.resolve(REPOSITORY, "v9")
    only_line(e.value)


def test_a_private_repository_without_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, FILES, is_private=True)
    assert hub.resolve(REPOSITORY).is_private
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(RepositoryError, match="is private: check the name, or set HF_TOKEN"):
        hub.resolve(REPOSITORY)
    with pytest.raises(RepositoryError, match="set HF_TOKEN, or log in with `hf auth login`"):
        hub.whoami()


@pytest.mark.parametrize("token", ["", "hf_of_a_reader"])
def test_a_gated_repository_shows_its_files_but_not_their_contents(
    token: str, hub: Hub, local_hub: LocalHub, hub_api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, FILES)
    hub_api.update_repo_settings(REPOSITORY, gated="manual")
    local_hub.tokens["hf_of_a_reader"] = "reader"
    monkeypatch.setenv("HF_TOKEN", token)
    pinned = hub.resolve(REPOSITORY)
    assert pinned.is_gated
    for read in (
        lambda: hub.read_file(pinned, "config.json"),
        lambda: hub.read_range(pinned, "model.safetensors", 0, 8),
        lambda: hub.download(pinned, ["model.safetensors"], tmp_path / "cache"),
    ):
        with pytest.raises(RepositoryError, match=f"is gated: accept its conditions at {hub.url}/{REPOSITORY}") as e:
            read()
        assert only_line(e.value)


def test_a_refused_token_is_told_from_a_missing_repository(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, FILES)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    with pytest.raises(RepositoryError, match="refused the token") as failure:
        hub.resolve(REPOSITORY)
    assert "xxxx" not in str(failure.value)


def test_an_id_that_is_none(hub: Hub) -> None:
    with pytest.raises(RepositoryError, match="'a/b/c' is not a repository id"):
        hub.resolve("a/b/c")


def test_a_server_that_is_down_is_transient(local_hub: LocalHub, hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    local_hub.stop()
    with pytest.raises(TransientHubError, match=r"could not be reached for mergeline/model \(ConnectError") as failure:
        hub.resolve(REPOSITORY)
    only_line(failure.value)
    assert failure.value.exit_status == 1
    assert sum("Attempt " in record.message for record in caplog.records) == hub_failures.ATTEMPTS - 1


def test_offline_is_said_and_not_waited_for(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="was not asked: HF_HUB_OFFLINE is set"):
        hub.resolve(REPOSITORY)
    assert "Attempt" not in caplog.text


def test_an_address_that_is_no_url() -> None:
    with pytest.raises(RepositoryError, match="is not an http"):
        Hub("hub.example").resolve(REPOSITORY)


def test_a_failing_server_is_asked_again_as_late_as_it_wishes(
    local_hub: LocalHub, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    publish(hub, FILES)
    local_hub.faults.append(Fault("GET /api/models", status=503, times=2))
    local_hub.faults.append(Fault("GET /api/models", status=429, times=1, headers={"Retry-After": "1"}))
    assert hub.resolve(REPOSITORY).file("config.json")
    delays = [record.message.rpartition(" in ")[2] for record in caplog.records if "Attempt" in record.message]
    assert delays == ["0.0 s.", "0.0 s.", "1.0 s."]


def test_a_server_that_keeps_failing(local_hub: LocalHub, hub: Hub) -> None:
    local_hub.faults.append(Fault("GET /api/models", status=502, times=99))
    with pytest.raises(TransientHubError, match="answered 502 for mergeline/model"):
        hub.resolve(REPOSITORY)


def test_other_refusals_are_not_tried_again(local_hub: LocalHub, hub: Hub) -> None:
    local_hub.faults.append(Fault("GET /api/models", status=418, times=1))
    with pytest.raises(HubError, match="answered 418") as failure:
        hub.resolve(REPOSITORY)
    assert not isinstance(failure.value, TransientHubError)


def test_messages_lose_tokens_and_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-token-of-ours")
    text = "GET https://cdn.example/x?X-Amz-Signature=abc&e=1 with hf_abcdefghijklmnopqrstuvwx or a-token-of-ours; no."
    error = hub_failures.explain(ValueError(text), hub_url="https://hub.example", repo_id="a/b", revision=None)
    assert str(error).endswith("(ValueError: GET https://cdn.example/x with *** or ***; no).")


# Reading -------------------------------------------------------------------------------------------------------------


def test_read_file_gives_small_files_whole(hub: Hub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    assert hub.read_file(pinned, "config.json") == FILES["config.json"]
    assert hub.read_file(pinned, "extra/more.safetensors") == b"more"
    with pytest.raises(RepositoryError, match=r"has no file 'tokenizer.json'"):
        hub.read_file(pinned, "tokenizer.json")


def test_read_file_refuses_large_files_unasked(hub: Hub, local_hub: LocalHub) -> None:
    repository = PinnedRepository("o/m", "0" * 40, "model", None, False, (RemoteFile("big", 32_000_001, None),))
    with pytest.raises(RepositoryError, match="32,000,001 bytes, expected at most 32,000,000; download it instead"):
        hub.read_file(repository, "big")
    assert not local_hub.requests


def test_a_range_costs_its_bytes_and_one_redirect_per_file(hub: Hub, local_hub: LocalHub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    before = len(local_hub.requests)
    for start, stop in ((0, 8), (100, 300_000), (399_999, 400_000)):
        assert hub.read_range(pinned, "model.safetensors", start, stop) == WEIGHTS[start:stop]
    assert hub.read_range(pinned, "model.safetensors", 5, 5) == b""
    requests = local_hub.requests[before:]
    assert [(request.origin, request.status) for request in requests] == [
        ("api", 302),
        *[("cdn", 206)] * 3,
    ]
    assert sum(request.sent_bytes for request in requests) == 8 + 299_900 + 1
    assert not any(request.authorized for request in requests if request.origin == "cdn")


def test_a_range_of_a_file_in_git(hub: Hub) -> None:
    publish(hub, FILES)
    assert hub.read_range(hub.resolve(REPOSITORY), "config.json", 2, 12) == FILES["config.json"][2:12]


def test_a_range_outside_the_file_is_refused(hub: Hub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    with pytest.raises(RepositoryError, match="has 400,000 bytes; bytes 0 to 400001 were asked"):
        hub.read_range(pinned, "model.safetensors", 0, 400_001)


def test_a_cut_range_continues_where_it_stopped(hub: Hub, local_hub: LocalHub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    local_hub.faults.append(Fault("GET /lfs/", cut_after=50_000, times=2))
    before = len(local_hub.requests)
    assert hub.read_range(pinned, "model.safetensors", 1000, 301_000) == WEIGHTS[1000:301_000]
    ranges = [request.range for request in local_hub.requests[before:] if request.origin == "cdn"]
    assert ranges == ["bytes=1000-300999", "bytes=51000-300999", "bytes=101000-300999"]


def test_a_failing_storage_is_asked_again_for_a_range(hub: Hub, local_hub: LocalHub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    local_hub.faults.append(Fault("GET /lfs/", status=500, times=2))
    assert hub.read_range(pinned, "model.safetensors", 0, 64) == WEIGHTS[:64]


def test_an_expired_redirect_is_asked_for_anew(hub: Hub, local_hub: LocalHub) -> None:
    publish(hub, FILES)
    pinned = hub.resolve(REPOSITORY)
    hub.read_range(pinned, "model.safetensors", 0, 8)
    local_hub.faults.append(Fault("GET /lfs/", status=403))
    before = len(local_hub.requests)
    assert hub.read_range(pinned, "model.safetensors", 8, 16) == WEIGHTS[8:16]
    statuses = [request.status for request in local_hub.requests[before:]]
    assert statuses == [403, 302, 206]


class WholeFiles(BaseHTTPRequestHandler):
    """A server that has not heard of ranges."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(WEIGHTS)))
        self.end_headers()
        with suppress(OSError):  # the client hangs up, as it should
            self.wfile.write(WEIGHTS)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server_without_ranges() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), WholeFiles) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_answer_that_ignores_the_range_is_refused(server_without_ranges: str) -> None:
    hub = Hub(server_without_ranges)
    file = RemoteFile("model.safetensors", len(WEIGHTS), None)
    repository = PinnedRepository("o/m", "0" * 40, "model", None, False, (file,))
    with pytest.raises(HubError, match=r"expected status 206 for bytes 0 to 8, found 200.*download the file instead"):
        hub.read_range(repository, "model.safetensors", 0, 8)
    assert hub.read_range(repository, "model.safetensors", 0, len(WEIGHTS)) == WEIGHTS  # exactly what was asked for


# Downloading ---------------------------------------------------------------------------------------------------------


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


# Transports ----------------------------------------------------------------------------------------------------------


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


# Writing -------------------------------------------------------------------------------------------------------------


def test_a_commit_on_a_stale_parent_is_not_made(hub: Hub) -> None:
    hub.create_repository(REPOSITORY, is_private=True)
    parent = hub.resolve(REPOSITORY).commit
    head = publish(hub, FILES)
    staged = hub.stage(REPOSITORY, [Upload("late.json", b"{}", hashlib.sha256(b"{}").hexdigest())])
    assert hub.commit(staged, parent=parent, title="Too late", description="") is None
    assert hub.commits(REPOSITORY)[0].commit == head


def test_creating_twice_says_so_and_visibility_can_change(hub: Hub) -> None:
    assert hub.create_repository(REPOSITORY, is_private=True)
    assert not hub.create_repository(REPOSITORY, is_private=False)
    assert hub.resolve(REPOSITORY).is_private
    hub.set_visibility(REPOSITORY, is_private=False)
    assert not hub.resolve(REPOSITORY).is_private


def test_an_invalid_card_is_refused_before_anything_is_committed(hub: Hub) -> None:
    with pytest.raises(HubError) as failure:
        publish(hub, {"README.md": b"---\nlicense: [\n---\n"})
    only_line(failure.value)
    assert len(hub.commits(REPOSITORY)) == 1


def test_the_library_is_imported_only_when_the_hub_is_asked() -> None:
    program = (
        "import sys, mergeline.sources.hub, mergeline.publish.publication, mergeline.publish.card; "
        "mergeline.sources.hub.Hub().file_url('o/m', 'x');"
        "print([name for name in ('huggingface_hub', 'httpx2', 'torch') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout == "[]\n"


def test_errors_can_be_pickled() -> None:
    for error in (RepositoryError("one line"), TransientHubError("one line")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy)) == (type(error), str(error))
    assert issubclass(RepositoryError, InputError)
