"""Publishing a merge on the loopback Hub: one commit, never twice, and no file that must not be published."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from deployments.loopback_hub import LOCAL_TOKEN, Fault, LocalHub
from mergeline.errors import HubError, OutputError, RepositoryError, TransientHubError, VerificationError
from mergeline.merge.manifest import MANIFEST_NAME
from mergeline.publish.publication import Publication, publish_directory
from mergeline.sources import hub_failures
from mergeline.sources.hub import Hub

REPOSITORY = "mergeline/merged"
PLAN = "ab" * 32
CARD = b"---\nlicense: mit\n---\nA merge.\n"


@pytest.fixture(autouse=True)
def signed_in_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", LOCAL_TOKEN)
    monkeypatch.setattr(hub_failures, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr("mergeline.sources.xet._endpoints", {})


@pytest.fixture
def hub(local_hub: LocalHub) -> Hub:
    return Hub(local_hub.endpoint)


def write_merge(directory: Path, shards: Mapping[str, bytes], others: Mapping[str, bytes] | None = None) -> Path:
    """A model directory as a merge leaves it, manifest last."""
    others = {"config.json": b"{}", "tokenizer.json": b"{}"} if others is None else others
    directory.mkdir()
    records: dict[str, list[dict[str, object]]] = {"shards": [], "other_files": []}
    for key, files in (("shards", shards), ("other_files", others)):
        for name, content in files.items():
            (directory / name).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            records[key].append({"name": name, "nbytes": len(content), "sha256": sha256})
    (directory / MANIFEST_NAME).write_text(json.dumps(records))
    return directory


@pytest.fixture
def merge(tmp_path: Path) -> Path:
    shards = {f"model-0000{i}-of-00002.safetensors": os.urandom(50_000) for i in (1, 2)}
    index = {"model.safetensors.index.json": b'{"weight_map": {}}', "config.json": b"{}", "tokenizer.json": b"{}"}
    return write_merge(tmp_path / "merge", shards, index)


def publish(hub: Hub, directory: Path, **options: object) -> Publication:
    options = {"plan_digest": PLAN, "extra_files": {"README.md": CARD}, **options}
    return publish_directory(directory, REPOSITORY, hub=hub, **options)  # type: ignore[arg-type]


def commit_requests(local_hub: LocalHub) -> int:
    return sum("/commit/" in request.path for request in local_hub.requests)


# One commit ----------------------------------------------------------------------------------------------------------


def test_a_merge_is_published_in_one_commit(hub: Hub, local_hub: LocalHub, merge: Path) -> None:
    (merge / ".journal").write_text("hidden")
    publication = publish(hub, merge, extra_files={"README.md": CARD, "eval/spartqa_train.json": b"[]"})

    history = hub.commits(REPOSITORY)
    assert [commit.commit for commit in history][:-1] == [publication.commit]
    assert f"mergeline-plan: {PLAN}" in history[0].description.splitlines()
    assert commit_requests(local_hub) == 1
    assert publication == Publication(
        REPOSITORY, publication.commit, f"{hub.url}/{REPOSITORY}/tree/{publication.commit}", False
    )

    pinned = hub.resolve(REPOSITORY, publication.commit)
    local = {path.name for path in merge.iterdir()} - {".journal"}
    assert {file.path for file in pinned.files} - {".gitattributes"} == {*local, "README.md", "eval/spartqa_train.json"}
    assert pinned.is_private
    for name in ("model-00001-of-00002.safetensors", "config.json"):
        assert hub.read_file(pinned, name) == (merge / name).read_bytes()


def test_publishing_again_commits_nothing(hub: Hub, local_hub: LocalHub, merge: Path) -> None:
    first = publish(hub, merge)
    uploads = sum(request.method == "PUT" for request in local_hub.requests)
    again = publish(hub, merge)
    assert again == Publication(first.repo_id, first.commit, first.url, True)
    assert commit_requests(local_hub) == 1
    assert sum(request.method == "PUT" for request in local_hub.requests) == uploads


def test_an_edit_on_the_hub_survives_publishing_again(hub: Hub, hub_api: HfApi, merge: Path) -> None:
    first = publish(hub, merge)
    hub_api.upload_file(repo_id=REPOSITORY, path_in_repo="README.md", path_or_fileobj=b"Better words.\n")
    assert publish(hub, merge).commit == first.commit
    assert hub.read_file(hub.resolve(REPOSITORY), "README.md") == b"Better words.\n"


def test_going_back_to_an_earlier_version_is_a_new_commit(hub: Hub, merge: Path) -> None:
    first = publish(hub, merge)
    second = publish(hub, merge, extra_files={"README.md": CARD + b"More.\n"})
    third = publish(hub, merge)
    assert len({first.commit, second.commit, third.commit}) == 3
    assert not third.was_already_published
    assert hub.read_file(hub.resolve(REPOSITORY), "README.md") == CARD


def test_an_extra_file_takes_the_place_of_the_directory_s(hub: Hub, merge: Path) -> None:
    (merge / "README.md").write_text("A draft.")
    publication = publish(hub, merge)
    assert hub.read_file(hub.resolve(REPOSITORY, publication.commit), "README.md") == CARD


def test_a_name_without_an_owner_is_the_token_s_user_s(hub: Hub, merge: Path) -> None:
    assert publish_directory(merge, "mine", hub=hub, plan_digest=PLAN).repo_id == "mergeline/mine"


def test_the_first_line_of_the_commit_can_be_chosen(hub: Hub, merge: Path) -> None:
    publish(hub, merge, message="SLERP at 0.5")
    assert hub.commits(REPOSITORY)[0].title == "SLERP at 0.5"


# Lost answers and races ----------------------------------------------------------------------------------------------


def test_a_commit_whose_answer_was_lost_is_not_made_again(hub: Hub, local_hub: LocalHub, merge: Path) -> None:
    local_hub.faults.append(Fault(r"POST /api/models/.*/commit/", cut_after=10))
    publication = publish(hub, merge)
    assert publication.was_already_published
    assert [commit.commit for commit in hub.commits(REPOSITORY)][:-1] == [publication.commit]
    assert commit_requests(local_hub) == 1


def test_a_commit_that_was_refused_in_passing_is_asked_for_again(hub: Hub, local_hub: LocalHub, merge: Path) -> None:
    local_hub.faults.append(Fault(r"POST /api/models/.*/commit/", status=503, times=2))
    publication = publish(hub, merge)
    assert not publication.was_already_published
    assert len(hub.commits(REPOSITORY)) == 2
    assert commit_requests(local_hub) == 3
    assert sum(request.method == "PUT" for request in local_hub.requests) == 2  # each shard once


def test_a_hub_that_keeps_refusing_the_commit(hub: Hub, local_hub: LocalHub, merge: Path) -> None:
    local_hub.faults.append(Fault(r"POST /api/models/.*/commit/", status=500, times=99))
    with pytest.raises(TransientHubError, match="answered 500 for mergeline/merged"):
        publish(hub, merge)
    assert len(hub.commits(REPOSITORY)) == 1


def when_committing(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Call a function between staging and the first commit."""
    commit, waiting = Hub.commit, [do]

    def commit_later(self: Hub, *args: object, **options: object) -> str | None:
        while waiting:
            waiting.pop()()
        return commit(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Hub, "commit", commit_later)


def test_somebody_else_s_commit_in_between_is_reported(
    hub: Hub, hub_api: HfApi, merge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_committing(
        monkeypatch, lambda: hub_api.upload_file(repo_id=REPOSITORY, path_in_repo="x.txt", path_or_fileobj=b"x")
    )
    with pytest.raises(HubError, match=r"somebody else committed after .* look at that commit, then publish again"):
        publish(hub, merge)
    assert len(hub.commits(REPOSITORY)) == 2
    assert not publish(hub, merge).was_already_published


def test_two_publishers_of_the_same_merge_make_one_commit(
    hub: Hub, local_hub: LocalHub, merge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[Publication] = []
    when_committing(monkeypatch, lambda: others.append(publish(hub, merge)))
    publication = publish(hub, merge)
    assert publication.was_already_published
    assert publication.commit == others[0].commit
    assert [request.status for request in local_hub.requests if "/commit/" in request.path] == [200, 412]
    assert len(hub.commits(REPOSITORY)) == 2


# What stays and what goes --------------------------------------------------------------------------------------------


def test_what_an_earlier_merge_left_is_deleted_in_the_same_commit(
    hub: Hub, hub_api: HfApi, merge: Path, tmp_path: Path
) -> None:
    publish(hub, merge, extra_files={"README.md": CARD, "eval/spartqa_train.json": b"[]"})
    hub_api.upload_file(repo_id=REPOSITORY, path_in_repo="figure.svg", path_or_fileobj=b"<svg/>")
    smaller = write_merge(tmp_path / "smaller", {"model.safetensors": b"weights"}, {"config.json": b"{}"})
    publication = publish(hub, smaller)
    paths = {file.path for file in hub.resolve(REPOSITORY).files}
    assert paths == {".gitattributes", "README.md", MANIFEST_NAME, "config.json", "figure.svg", "model.safetensors"}
    assert hub.commits(REPOSITORY)[0].commit == publication.commit
    assert len(hub.commits(REPOSITORY)) == 4  # the first, two publications, the figure


def test_weights_that_were_there_before_any_merge_are_replaced(hub: Hub, hub_api: HfApi, merge: Path) -> None:
    hub_api.create_repo(REPOSITORY)
    for path in ("model.safetensors", "adapter/adapter_model.safetensors", MANIFEST_NAME):
        hub_api.upload_file(repo_id=REPOSITORY, path_in_repo=path, path_or_fileobj=b"not a manifest")
    publish(hub, merge)
    paths = {file.path for file in hub.resolve(REPOSITORY).files}
    assert "model.safetensors" not in paths
    assert "adapter/adapter_model.safetensors" in paths


# Visibility ----------------------------------------------------------------------------------------------------------


def test_a_public_repository_stays_public_and_that_is_said(
    hub: Hub, merge: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.create_repository(REPOSITORY, is_private=False)
    publish(hub, merge)
    assert not hub.resolve(REPOSITORY).is_private
    assert "mergeline/merged is public already and stays public" in caplog.text


def test_a_private_repository_becomes_public_when_asked(hub: Hub, local_hub: LocalHub, merge: Path) -> None:
    publish(hub, merge)
    assert hub.resolve(REPOSITORY).is_private
    assert publish(hub, merge, private=False).was_already_published
    assert not hub.resolve(REPOSITORY).is_private
    assert commit_requests(local_hub) == 1


def test_somebody_else_s_name_is_refused(hub: Hub, local_hub: LocalHub, merge: Path) -> None:
    local_hub.tokens["hf_of_another"] = "another"
    with pytest.raises(RepositoryError, match=r"another/merged at .* does not allow this"):
        publish_directory(merge, "another/merged", hub=hub, plan_digest=PLAN)


# What is refused -----------------------------------------------------------------------------------------------------


def test_an_unfinished_merge_is_refused(hub: Hub, local_hub: LocalHub, merge: Path) -> None:
    (merge / MANIFEST_NAME).unlink()
    with pytest.raises(
        OutputError, match=r"is not a finished merge: mergeline_manifest.json, written last, is missing"
    ):
        publish(hub, merge)
    assert not local_hub.requests


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("pytorch_model.bin", b"x", "is named like a pickle"),
        ("training_args.pt", b"x", "is named like a pickle"),
        ("state.dat", b"\x80\x04\x95\x00", "holds a pickle"),
        ("server.pem", b"x", "is named like a secret"),
        ("client_secret.json", b"{}", "is named like a secret"),
        ("notes.txt", b"token: hf_" + b"a" * 34, "holds what looks like an access token"),
        ("notes.md", LOCAL_TOKEN.encode(), "holds what looks like an access token"),
        ("key.txt", b"-----BEGIN RSA PRIVATE KEY-----", "holds what looks like an access token or a private key"),
        ("model-00003-of-00003.safetensors", b"stale", "is not among the shards of mergeline_manifest.json"),
    ],
)
def test_what_must_not_be_published_is_refused_before_any_request(
    name: str, content: bytes, problem: str, hub: Hub, local_hub: LocalHub, merge: Path
) -> None:
    (merge / name).write_bytes(content)
    with pytest.raises(OutputError, match=problem) as failure:
        publish(hub, merge)
    assert str(failure.value).startswith(f"{merge}/{name} ")
    assert "hf_" not in str(failure.value)
    assert failure.value.exit_status == 2
    assert not local_hub.requests


def test_every_problem_is_reported_at_once(hub: Hub, merge: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    (merge / "linked.json").symlink_to(outside)
    (merge / "folder").symlink_to(tmp_path)
    (merge / "inside.json").symlink_to("config.json")
    (merge / "special_tokens_map.json").write_text("{}")
    with pytest.raises(OutputError) as failure:
        publish(hub, merge, extra_files={"id_rsa": b"x"})
    problems = [problem.removeprefix(f"{merge}/") for problem in failure.value.problems]
    assert [problem.partition(" ")[0] for problem in problems] == ["folder", "id_rsa", "linked.json"]
    assert "is a link that leads out of the directory" in problems[0]
    assert "is a link that leads out of the directory" in problems[2]


def test_a_shard_that_was_changed_after_the_merge_is_refused(hub: Hub, local_hub: LocalHub, merge: Path) -> None:
    (merge / "model-00002-of-00002.safetensors").write_bytes(b"other weights")
    with pytest.raises(
        VerificationError, match=r"model-00002-of-00002.safetensors: expected sha256 [0-9a-f]{64} as in"
    ):
        publish(hub, merge)
    (merge / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(OutputError, match=r"model-00002-of-00002.safetensors is missing; merge again"):
        publish(hub, merge)
    assert not local_hub.requests


# Secrets -------------------------------------------------------------------------------------------------------------


def test_the_token_is_in_no_log_line_and_no_error(
    hub: Hub, local_hub: LocalHub, merge: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("huggingface_hub").addHandler(caplog.handler)
    try:
        local_hub.faults.append(Fault(r"POST /api/models/.*/commit/", status=503))
        publication = publish(hub, merge)
        local_hub.faults.append(Fault("GET /lfs/", cut_after=10))
        pinned = hub.resolve(REPOSITORY, publication.commit)
        assert hub.read_range(pinned, "model-00001-of-00002.safetensors", 0, 1000)
        local_hub.faults.append(Fault("/repos/create", status=500, times=99))
        with pytest.raises(TransientHubError) as failure:
            publish(hub, merge)
    finally:
        logging.getLogger("huggingface_hub").removeHandler(caplog.handler)
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("HTTP Request: GET") for line in lines)
    assert not [line for line in lines if LOCAL_TOKEN in line]
    assert not [line for line in lines if "filename=" in line]  # what stands for a signature here
    assert LOCAL_TOKEN not in str(failure.value)
    assert failure.value.__context__ is None
    assert not any(request.authorized for request in local_hub.requests if request.origin == "cdn")
