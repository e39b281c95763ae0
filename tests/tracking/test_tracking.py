"""Merges in MLflow: recorded once however often it is tried, comparable, and without anything private."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mergeline.errors import TrackingError, TrackingInputError
from mergeline.sources.identity import SourceRecord
from mergeline.tracking.runs import TrackedRun, fail_run, open_run, record_merge
from mergeline.tracking.store import TrackingSettings
from tests.builders.tracking_records import (
    EXPERIMENT,
    PLAN,
    RECIPE,
    TIMESTAMP_MS,
    client_of,
    evaluation,
    manifest,
    merge_record,
    of_task,
    report,
)
from tests.servers.mlflow_server import MlflowServer


def track(settings: TrackingSettings, **changes: Any) -> TrackedRun:
    """Open a run and record a merge in it, as a flow does."""
    record = merge_record(**changes)
    tags = {"prefect.flow_run_id": "flow-1"}
    run = open_run(settings, plan_digest=record.manifest.plan_digest, name=record.name, tags=tags)
    assert record_merge(settings, record) == run
    return run


def children(settings: TrackingSettings, run: TrackedRun) -> list[Any]:
    return list(client_of(settings).search_runs([run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.run_id}'"))


def artifact_texts(settings: TrackingSettings, run: TrackedRun, into: Path) -> dict[str, str]:
    into.mkdir()
    folder = Path(client_of(settings).download_artifacts(run.run_id, "", str(into)))
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_run_tells_what_was_merged_and_how_it_did(settings: TrackingSettings) -> None:
    run = track(settings)
    found = client_of(settings).get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "walker t=0.5"
    assert found.data.params == {
        "method": "slerp",
        "engine_version": "0.1.0",
        "dtype": "bfloat16",
        "source.1": "mergeline-demo/compass",
        "source.1.commit": "c0" * 20,
        "source.2": "mergeline-demo/clock",
        "source.2.commit": "c1" * 20,
        "t": "0.5",
        "t.self_attn": "[0, 0.5, 1]",
    }
    metrics = found.data.metrics
    assert metrics["merge/seconds"] == 12.5
    assert metrics["merge/bytes"] == 2000
    assert metrics["spartqa_train/acc"] == 0.75
    assert metrics["spartqa_train/acc_stderr"] == 0.25
    assert metrics["spartqa_train/difference.compass"] == 0.25
    assert metrics["spartqa_train/difference_low.clock"] == -0.1
    tags = found.data.tags
    assert tags["mergeline.plan_digest"] == PLAN
    assert tags["prefect.flow_run_id"] == "flow-1"
    assert tags["hf.commit"] == "d" * 40
    assert "| mergeline-demo/walker | 0.750 | 0.2500 |" in tags["mlflow.note.content"]
    assert "+0.250 [-0.100, +0.600] | no detectable difference" in tags["mlflow.note.content"]
    assert "clock: below majority baseline" in tags["mlflow.note.content"]


def test_every_evaluated_model_has_a_child_run_with_the_same_metric_names(settings: TrackingSettings) -> None:
    run = track(settings)
    found = {child.info.run_name: child for child in children(settings, run)}
    assert {name: child.data.metrics["spartqa_train/acc"] for name, child in found.items()} == {
        "mergeline-demo/compass": 0.5,
        "mergeline-demo/clock": 0.5,
        "walker t=0.5": 0.75,
    }
    parent_metrics = client_of(settings).get_run(run.run_id).data.metrics
    for name, child in found.items():
        assert set(child.data.metrics) <= set(parent_metrics)
        assert child.info.status == "FINISHED"
        assert child.info.end_time - child.info.start_time == 2000
        assert child.data.tags["mergeline.model_digest"] == f"digest of {child.data.params['model']}"
        assert child.data.params["role"] == ("merge" if name == "walker t=0.5" else "reference")
        assert child.data.params["limit"] == "4"


def test_files_lie_beside_the_database(settings: TrackingSettings, tmp_path: Path) -> None:
    run = track(settings)
    texts = artifact_texts(settings, run, tmp_path / "download")
    assert set(texts) == {
        "recipe.yaml",
        "pipeline.yaml",
        "plan.json",
        "mergeline_manifest.json",
        "samples.json",
        "evaluation/spartqa_train/compass.json",
        "evaluation/spartqa_train/compass.md",
        "evaluation/spartqa_train/clock.json",
        "evaluation/spartqa_train/clock.md",
        "evaluation/spartqa_train/walker.json",
        "evaluation/spartqa_train/walker.md",
        "evaluation/spartqa_train/comparison.json",
    }
    assert texts["recipe.yaml"] == RECIPE
    assert json.loads(texts["mergeline_manifest.json"])["sources"][1]["commit"] == "c1" * 20
    assert len(json.loads(texts["evaluation/spartqa_train/walker.json"])["answers"]) == 4
    assert texts["evaluation/spartqa_train/clock.md"].startswith("| Tasks | acc |")
    assert settings.artifacts is not None
    assert settings.artifacts.parent == tmp_path / "state of play"
    assert (settings.artifacts / run.run_id / "artifacts" / "recipe.yaml").is_file()


def test_recording_again_adds_nothing_twice(settings: TrackingSettings, tmp_path: Path) -> None:
    first = track(settings)
    client = client_of(settings)
    before = client.get_run(first.run_id)
    again = track(settings)
    assert again == first
    after = client.get_run(first.run_id)
    assert after.data.to_dictionary() == before.data.to_dictionary()
    assert after.info.end_time == before.info.end_time
    assert len(client.search_runs([first.experiment_id])) == 1 + 3
    for run in client.search_runs([first.experiment_id]):
        for key in run.data.metrics:
            assert len(client.get_metric_history(run.info.run_id, key)) == 1, key


def test_an_interrupted_recording_is_completed_by_the_next(settings: TrackingSettings) -> None:
    run = open_run(settings, plan_digest=PLAN, name="walker")
    assert settings.artifacts is not None
    in_the_way = settings.artifacts / run.run_id
    in_the_way.write_text("a file where the run's folder should be")
    with pytest.raises(TrackingInputError, match="Not a directory"):
        record_merge(settings, merge_record())
    in_the_way.unlink()
    assert record_merge(settings, merge_record()) == run
    assert client_of(settings).get_run(run.run_id).data.metrics["merge/seconds"] == 12.5
    assert len(children(settings, run)) == 3


def test_another_plan_gets_another_run(settings: TrackingSettings) -> None:
    first = open_run(settings, plan_digest=PLAN, name="walker")
    second = open_run(settings, plan_digest="e5" * 32, name="walker")
    assert first.run_id != second.run_id
    assert first.experiment_id == second.experiment_id
    assert first.url is None


def test_a_parameter_that_changed_keeps_its_first_value_and_shows_the_latest(
    settings: TrackingSettings, caplog: pytest.LogCaptureFixture
) -> None:
    track(settings, parameters={"device": "cpu"})
    run = track(settings, parameters={"device": "cuda"})
    data = client_of(settings).get_run(run.run_id).data
    assert data.params["device"] == "cpu"
    assert data.tags["mergeline.latest.device"] == "cuda"
    assert "keeps device = cpu; this time it was cuda" in caplog.text


def test_an_evaluation_with_other_settings_gets_its_own_child(settings: TrackingSettings) -> None:
    track(settings)
    walker = evaluation("mergeline-demo/walker", 0.8)
    all_questions = replace(walker, settings=replace(walker.settings, limit=None), task_hash="f6" * 32)
    run = track(settings, reports=(replace(report(), merge=all_questions),))
    assert len(children(settings, run)) == 4


def test_lm_eval_tasks_share_one_child_per_model(settings: TrackingSettings, tmp_path: Path) -> None:
    other = replace(
        report(),
        merge=of_task(report().merge, "spartqa_hard"),
        references=tuple(of_task(reference, "spartqa_hard") for reference in report().references),
    )
    run = track(settings, reports=(report(), other))
    found = children(settings, run)
    assert len(found) == 3
    for child in found:
        assert {"spartqa_train/acc", "spartqa_hard/acc"} <= set(child.data.metrics)
        assert child.info.end_time - child.info.start_time == 4000
    texts = artifact_texts(settings, run, tmp_path / "download")
    assert {"evaluation/spartqa_train/walker.json", "evaluation/spartqa_hard/walker.json"} <= set(texts)


def test_a_score_that_changed_shows_its_latest_value(settings: TrackingSettings) -> None:
    track(settings)
    run = track(settings, reports=(replace(report(), merge=evaluation("mergeline-demo/walker", 0.25)),))
    client = client_of(settings)
    assert client.get_run(run.run_id).data.metrics["spartqa_train/acc"] == 0.25
    history = client.get_metric_history(run.run_id, "spartqa_train/acc")
    assert [(point.value, point.timestamp) for point in history] == [(0.75, TIMESTAMP_MS), (0.25, TIMESTAMP_MS + 1)]


def test_a_failed_run_says_why_until_it_is_tried_again(settings: TrackingSettings) -> None:
    run = open_run(settings, plan_digest=PLAN, name="walker")
    fail_run(run, settings, "The Hub refused model-00002.")
    found = client_of(settings).get_run(run.run_id)
    assert found.info.status == "FAILED"
    assert found.data.tags["mergeline.failure"] == "The Hub refused model-00002."
    open_run(settings, plan_digest=PLAN, name="walker")
    found = client_of(settings).get_run(run.run_id)
    assert found.info.status == "RUNNING"
    assert "mergeline.failure" not in found.data.tags


def test_keys_that_mlflow_refuses_are_made_legal(settings: TrackingSettings) -> None:
    run = track(settings, metrics={"acc,none": 0.5, "shard/bytes@disk": 1}, parameters={"t(mlp)": 1})
    data = client_of(settings).get_run(run.run_id).data
    assert data.metrics["acc"] == 0.5
    assert data.metrics["shard/bytes-disk"] == 1
    assert data.params["t-mlp-"] == "1"


def test_parents_of_one_name_are_told_apart(settings: TrackingSettings) -> None:
    twins = ("ours/model", "theirs/model")
    twin_report = replace(
        report(),
        references=tuple(evaluation(label, 0.5) for label in twins),
        comparisons=tuple(
            replace(comparison, reference=label) for comparison, label in zip(report().comparisons, twins, strict=True)
        ),
    )
    run = track(settings, reports=(twin_report,))
    metrics = client_of(settings).get_run(run.run_id).data.metrics
    assert {"spartqa_train/difference.ours.model", "spartqa_train/difference.theirs.model"} <= set(metrics)


def test_a_merge_that_was_not_evaluated_is_recorded(settings: TrackingSettings, tmp_path: Path) -> None:
    many = {f"t.layer{n}": n / 250 for n in range(250)}
    run = track(settings, reports=(), samples=(), pipeline_text=None, parameters=many)
    texts = artifact_texts(settings, run, tmp_path / "download")
    assert set(texts) == {"recipe.yaml", "plan.json", "mergeline_manifest.json"}
    assert len(client_of(settings).get_run(run.run_id).data.params) == 7 + 250
    assert children(settings, run) == []


def test_nothing_private_is_recorded(settings: TrackingSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "hf_" + "Qz7" * 11
    password = "correct-horse-battery"
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    for variable in ("LOGNAME", "USER", "USERNAME"):
        monkeypatch.setenv(variable, "ada.lovelace")
    monkeypatch.setenv("HOME", "/home/ada.lovelace")
    # MLflow would take the program that runs for a run's source.
    monkeypatch.setattr(sys, "argv", ["/opt/of-this-machine/bin/mergeline"])
    local = SourceRecord("/home/ada.lovelace/models/compass", None, None, None, (), "f")
    run = track(
        settings,
        recipe_text=f"base_model: /home/ada.lovelace/models/compass  # {token}\n",
        manifest=manifest(sources=(local,)),
        tags={"note": f"sent with {token}"},
        parameters={"command": "/home/ada.lovelace/bin/mergeline --token " + token},
    )
    fail_run(run, settings, f"403 for https://ada.lovelace:{password}@hub.example/x with {token}")
    assert settings.database is not None
    folder = settings.database.parent
    stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for private in (token, password, "ada.lovelace", "/srv/private", "of-this-machine", str(Path.cwd())):
        assert private.encode() not in stored, private
    found = client_of(settings).get_run(run.run_id)
    assert found.data.params["source.1"] == "compass"
    assert found.data.params["command"] == "~/bin/mergeline --token ***"
    assert {"mlflow.user", "mlflow.source.name"}.isdisjoint(found.data.tags)


START = """
import sys
from mergeline.tracking import TrackingSettings, open_run
print(open_run(TrackingSettings(sys.argv[1], "mergeline/demo"), plan_digest="a1" * 32, name="walker").run_id)
"""


@pytest.mark.slow
def test_four_processes_may_start_on_a_database_that_does_not_exist_yet(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'state' / 'mlflow.db'}"
    work = tmp_path / "working directory"
    work.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, uri],
            cwd=work,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], outputs
    assert len({stdout for stdout, _ in outputs}) == 1
    assert "".join(stderr for _, stderr in outputs) == ""
    assert list(work.iterdir()) == []


def test_a_server_that_is_not_there_is_one_line_and_soon() -> None:
    started = time.monotonic()
    with pytest.raises(TrackingError, match="does not answer") as caught:
        open_run(TrackingSettings("http://ada:secret@127.0.0.1:9", EXPERIMENT), plan_digest=PLAN, name="walker")
    assert time.monotonic() - started < 30
    assert "MLflow server http://127.0.0.1:9 does not answer" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, though it is long enough to be looked at as one" * 20)
    started = time.monotonic()
    with pytest.raises(TrackingInputError, match=r"MLflow store sqlite:////.*/mlflow\.db: file is not a database"):
        open_run(TrackingSettings(f"sqlite:///{tmp_path / 'mlflow.db'}", EXPERIMENT), plan_digest=PLAN, name="w")
    assert time.monotonic() - started < 10


def test_another_kind_of_store_is_refused() -> None:
    with pytest.raises(TrackingInputError, match=r"'file:///runs': expected sqlite:///<file> or http\(s\)://<server>"):
        open_run(TrackingSettings("file:///runs", EXPERIMENT), plan_digest=PLAN, name="walker")


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_server_that_is_none_of_mlflows_is_wrong_and_not_away(status: int) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>Another service</html>")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as other:
        threading.Thread(target=other.serve_forever).start()
        try:
            settings = TrackingSettings(f"http://127.0.0.1:{other.server_port}", EXPERIMENT)
            with pytest.raises(TrackingInputError, match=rf"MLflow store http://127\.0\.0\.1:{other.server_port}: "):
                open_run(settings, plan_digest=PLAN, name="walker")
        finally:
            other.shutdown()


def test_a_deleted_experiment_is_named(settings: TrackingSettings) -> None:
    run = open_run(settings, plan_digest=PLAN, name="walker")
    client_of(settings).delete_experiment(run.experiment_id)
    with pytest.raises(TrackingInputError, match="'mergeline/demo' was deleted; restore it"):
        open_run(settings, plan_digest=PLAN, name="walker")


def test_an_experiment_made_through_a_server_is_refused_on_its_database(settings: TrackingSettings) -> None:
    client_of(settings).create_experiment(EXPERIMENT, "mlflow-artifacts:/1")
    with pytest.raises(TrackingInputError, match="keeps its files behind a server; give the server's http address"):
        open_run(settings, plan_digest=PLAN, name="walker")


def test_importing_the_tracking_does_not_import_mlflow() -> None:
    code = "import sys, mergeline.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_server_holds_the_same_record(
    mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ada.lovelace")
    server = mlflow_server.url
    settings = TrackingSettings(f"{server}/", EXPERIMENT)
    run = track(settings)
    assert track(settings) == run
    assert run.url == (f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}?workflowType=machine_learning")
    client = client_of(settings)
    assert client.get_run(run.run_id).data.metrics["spartqa_train/difference.compass"] == 0.25
    assert len(client.search_runs([run.experiment_id])) == 1 + 3
    for key in client.get_run(run.run_id).data.metrics:
        assert len(client.get_metric_history(run.run_id, key)) == 1
    texts = artifact_texts(settings, run, tmp_path / "download")
    assert texts["recipe.yaml"] == RECIPE
    assert len(texts) == 12
    stored = (mlflow_server.folder / "server.db").read_bytes()
    assert b"ada.lovelace" not in stored
