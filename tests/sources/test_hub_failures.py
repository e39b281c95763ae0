"""What the Hub refuses and where it fails: said in one line, tried again where that may help."""

import pickle
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from deployments.loopback_hub import Fault, LocalHub
from mergeline.errors import HubError, InputError, RepositoryError, TransientHubError
from mergeline.sources import hub_failures
from mergeline.sources.hub import Hub
from tests.builders.hub_repository import FILES, REPOSITORY, only_line, publish


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


def test_errors_can_be_pickled() -> None:
    for error in (RepositoryError("one line"), TransientHubError("one line")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy)) == (type(error), str(error))
    assert issubclass(RepositoryError, InputError)
