"""Records that MLflow cannot receive now: kept on disk, and sent later, once."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from mergeline.cli.command_line import main
from mergeline.errors import TrackingError
from mergeline.tracking import outbox, store
from mergeline.tracking.outbox import keep_record, send_record, waiting_records
from mergeline.tracking.runs import open_run
from mergeline.tracking.store import TrackingSettings
from tests.builders.tracking_records import EXPERIMENT, PLAN, client_of, manifest, merge_record
from tests.servers.mlflow_server import MlflowServer

NOWHERE = "http://ada:correct-horse@127.0.0.1:9"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MERGELINE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "state"


def everything(settings: TrackingSettings) -> dict[str, object]:
    """Return all runs of a store, with every point of every metric."""
    client = client_of(settings)
    experiment = client.get_experiment_by_name(settings.experiment)
    runs = [] if experiment is None else client.search_runs([experiment.experiment_id])
    return {
        run.info.run_id: (
            run.info.run_name,
            run.info.status,
            run.data.params,
            {key: len(client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics},
        )
        for run in runs
    }


def test_a_record_waits_whole_and_without_secrets(state: Path) -> None:
    path = keep_record(TrackingSettings(NOWHERE, EXPERIMENT), merge_record())
    assert path.parent == state / "tracking"
    assert b"correct-horse" not in path.read_bytes()
    with pytest.raises(TrackingError, match="does not answer"):
        send_record(path)
    (waiting,) = waiting_records()
    assert (waiting.name, waiting.address) == ("walker t=0.5", "http://127.0.0.1:9")


def test_a_later_record_of_the_same_merge_takes_the_place_of_the_earlier() -> None:
    first = keep_record(TrackingSettings(NOWHERE, EXPERIMENT), merge_record())
    again = keep_record(TrackingSettings(NOWHERE, EXPERIMENT), merge_record(metrics={"merge/bytes": 3000}))
    other = keep_record(TrackingSettings(NOWHERE, EXPERIMENT), merge_record(manifest=manifest(plan_digest="e5" * 32)))
    assert first == again != other
    assert len(waiting_records()) == 2


def test_the_command_sends_what_waits_and_says_what_still_does(
    settings: TrackingSettings, capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    assert main(["track"]) == 0
    assert capsys.readouterr().out == "No record waits for MLflow.\n"
    keep_record(settings, merge_record())
    kept = keep_record(TrackingSettings("http://127.0.0.1:9", EXPERIMENT), merge_record(name="elsewhere"))
    (state / "tracking" / "foreign.json").write_text("{}")

    assert main(["track"]) == 0
    assert f"elsewhere: waits for http://127.0.0.1:9 in {kept}" in capsys.readouterr().out

    assert main(["track", "--replay"]) == 1
    said = capsys.readouterr()
    assert "walker t=0.5: sent to sqlite:///" in said.out
    assert "error: elsewhere: MLflow server http://127.0.0.1:9 does not answer" in said.err
    assert "error: foreign.json: " in said.err
    assert "is not a record to be sent to MLflow" in said.err

    assert main(["track", "--replay", "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[0])["sent"] == []
    assert [run[0] for run in everything(settings).values()].count("walker t=0.5") == 2  # the merge and its own scores


def test_two_replays_at_once_send_a_record_once(settings: TrackingSettings) -> None:
    keep_record(settings, merge_record())
    results: list[outbox.Replayed] = []
    threads = [threading.Thread(target=lambda: results.extend(outbox.replay())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([result for result in results if result.run is not None]) == 1
    assert waiting_records() == []
    assert len(everything(settings)) == 1 + 3


@pytest.mark.slow
def test_a_server_killed_while_it_is_told_gets_the_rest_once(mlflow_server: MlflowServer) -> None:
    settings = TrackingSettings(mlflow_server.url, "killed")
    open_run(settings, plan_digest=PLAN, name="walker t=0.5")
    # Enough files for the server to be stopped long before the last.
    record = merge_record(pages={f"page-{number}.txt": "text" for number in range(60)})
    path = keep_record(settings, record)
    watcher = threading.Thread(target=_kill_once_told, args=(mlflow_server, settings))
    watcher.start()
    with pytest.raises(TrackingError):
        send_record(path, settings)
    watcher.join()
    mlflow_server.start()
    before = everything(settings)
    assert before
    assert [record.name for record in waiting_records()] == ["walker t=0.5"]

    assert main(["track", "--replay"]) == 0
    after = everything(settings)
    assert before.keys() <= after.keys()
    assert len(after) == 1 + 3
    assert {status for _, status, _, _ in after.values()} == {"FINISHED"}
    assert {count for _, _, _, history in after.values() for count in history.values()} == {1}
    assert waiting_records() == []
    send_record(keep_record(settings, record))
    assert everything(settings) == after


@pytest.mark.slow
def test_a_server_that_takes_requests_and_answers_none_is_given_up(
    mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = TrackingSettings(mlflow_server.url, "stopped")
    mlflow_server.send(signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(TrackingError, match="does not answer"):
            open_run(settings, plan_digest=PLAN, name="walker")
        assert time.monotonic() - started < 30
    finally:
        mlflow_server.send(signal.SIGCONT)


@pytest.mark.slow
def test_a_slow_server_is_given_up_between_two_requests(
    mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 0.0)
    settings = TrackingSettings(mlflow_server.url, "slow")
    with pytest.raises(TrackingError, match="has not taken everything within 0 s"):
        send_record(keep_record(settings, merge_record()), settings)
    assert len(waiting_records()) == 1


def _kill_once_told(server: MlflowServer, settings: TrackingSettings) -> None:
    client = client_of(settings)
    experiment = client.get_experiment_by_name(settings.experiment)
    deadline = time.monotonic() + 120
    while not client.search_runs([experiment.experiment_id], "metrics.`spartqa_train/acc` > 0"):
        assert time.monotonic() < deadline
    server.stop(signal.SIGKILL)
