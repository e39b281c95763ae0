"""A merge's run in MLflow: recorded once however often it is tried, comparable, and without anything private."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mergeline.sources.identity import SourceIdentity
from mergeline.tracking.runs import fail_run, open_run
from mergeline.tracking.store import TrackingSettings
from tests.builders.tracking_records import (
    PLAN,
    RECIPE,
    artifact_texts,
    children,
    client_of,
    evaluation,
    manifest,
    of_task,
    report,
    track,
)


def test_a_run_tells_what_was_merged_and_how_it_did(settings: TrackingSettings) -> None:
    run = track(settings)
    recorded = client_of(settings).get_run(run.run_id)
    assert recorded.info.status == "FINISHED"
    assert recorded.info.run_name == "walker t=0.5"
    assert recorded.data.params == {
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
    metrics = recorded.data.metrics
    assert metrics["merge/seconds"] == 12.5
    assert metrics["merge/bytes"] == 2000
    assert metrics["spartqa_train/acc"] == 0.75
    assert metrics["spartqa_train/acc_stderr"] == 0.25
    assert metrics["spartqa_train/difference.compass"] == 0.25
    assert metrics["spartqa_train/difference_low.clock"] == -0.1
    tags = recorded.data.tags
    assert tags["mergeline.plan_digest"] == PLAN
    assert tags["prefect.flow_run_id"] == "flow-1"
    assert tags["hf.commit"] == "d" * 40
    assert "| mergeline-demo/walker | 0.750 | 0.2500 |" in tags["mlflow.note.content"]
    assert "+0.250 [-0.100, +0.600] | no detectable difference" in tags["mlflow.note.content"]
    assert "clock: below majority baseline" in tags["mlflow.note.content"]


def test_every_evaluated_model_has_a_child_run_with_the_same_metric_names(settings: TrackingSettings) -> None:
    run = track(settings)
    child_runs = {child.info.run_name: child for child in children(settings, run)}
    assert {name: child.data.metrics["spartqa_train/acc"] for name, child in child_runs.items()} == {
        "mergeline-demo/compass": 0.5,
        "mergeline-demo/clock": 0.5,
        "walker t=0.5": 0.75,
    }
    parent_metrics = client_of(settings).get_run(run.run_id).data.metrics
    for name, child in child_runs.items():
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


def test_another_plan_gets_another_run(settings: TrackingSettings) -> None:
    first = open_run(settings, plan_digest=PLAN, name="walker")
    second = open_run(settings, plan_digest="e5" * 32, name="walker")
    assert first.run_id != second.run_id
    assert first.experiment_id == second.experiment_id
    assert first.url is None


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
    child_runs = children(settings, run)
    assert len(child_runs) == 3
    for child in child_runs:
        assert {"spartqa_train/acc", "spartqa_hard/acc"} <= set(child.data.metrics)
        assert child.info.end_time - child.info.start_time == 4000
    texts = artifact_texts(settings, run, tmp_path / "download")
    assert {"evaluation/spartqa_train/walker.json", "evaluation/spartqa_hard/walker.json"} <= set(texts)


def test_a_failed_run_says_why_until_it_is_tried_again(settings: TrackingSettings) -> None:
    run = open_run(settings, plan_digest=PLAN, name="walker")
    fail_run(run, settings, "The Hub refused model-00002.")
    recorded = client_of(settings).get_run(run.run_id)
    assert recorded.info.status == "FAILED"
    assert recorded.data.tags["mergeline.failure"] == "The Hub refused model-00002."
    open_run(settings, plan_digest=PLAN, name="walker")
    recorded = client_of(settings).get_run(run.run_id)
    assert recorded.info.status == "RUNNING"
    assert "mergeline.failure" not in recorded.data.tags


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
    # By default MLflow records the running program as a run's source.
    monkeypatch.setattr(sys, "argv", ["/opt/of-this-machine/bin/mergeline"])
    local = SourceIdentity("/home/ada.lovelace/models/compass", None, None, None, (), "f")
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
    recorded = client_of(settings).get_run(run.run_id)
    assert recorded.data.params["source.1"] == "compass"
    assert recorded.data.params["command"] == "~/bin/mergeline --token ***"
    assert {"mlflow.user", "mlflow.source.name"}.isdisjoint(recorded.data.tags)
