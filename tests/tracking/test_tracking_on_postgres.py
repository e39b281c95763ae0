"""Pipelines that record at the same time, on a server that keeps runs in PostgreSQL and files in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mergeline.tracking.store import TrackingSettings
from tests.builders.tracking_records import EXPERIMENT, client_of
from tests.servers.mlflow_server import MlflowServer
from tests.servers.postgres import PostgresCluster

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "Qz7" * 11
USER = "ada.lovelace"
MERGES = 4

RECORD = """
import sys
from mergeline.publish import Publication
from mergeline.tracking import TrackingSettings, keep_record, open_run, send_record
from tests.builders.tracking_records import EXPERIMENT, HUB, evaluation, manifest, merge_record, report
from dataclasses import replace

uri, pipeline, count, token = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
settings = TrackingSettings(uri, EXPERIMENT)
sys.stdin.readline()  # all begin at once
for number in range(count):
    plan, t = f"{pipeline}{number}".ljust(64, "0"), pipeline + number / 10
    walker = replace(evaluation(f"walker-{pipeline}", t / 10), model_digest=f"digest of {plan}")
    scores = replace(report(), merge=walker)
    commit = plan[:40]
    record = merge_record(
        name=f"pipeline {pipeline} t={t}", manifest=manifest(plan_digest=plan), parameters={"t": t}, reports=(scores,),
        metrics={"merge/bytes": 1000.0 * pipeline + number}, tags={"prefect.flow_run_id": f"flow {pipeline}"},
        recipe_text=f"pipeline: {pipeline}  # {token}",
        publication=Publication(f"ours/{pipeline}", commit, f"{HUB}/ours/{pipeline}/tree/{commit}", False),
    )
    open_run(settings, plan_digest=plan, name=record.name)
    send_record(keep_record(settings, record), settings)
"""


@pytest.fixture(scope="module")
def server(postgres: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    postgres.create_database("tracking")
    with MlflowServer(tmp_path_factory.mktemp("mlflow"), postgres.url("tracking")) as server:
        yield server


@pytest.fixture(scope="module")
def recorded(server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> TrackingSettings:
    """Two pipelines' merges, recorded at the same time by two processes."""
    private = {"HF_TOKEN": TOKEN, "LOGNAME": USER, "USER": USER, "USERNAME": USER, "HOME": f"/home/{USER}"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RECORD, server.url, str(pipeline), str(MERGES), TOKEN],
            env=os.environ
            | private
            | {"PYTHONPATH": str(ROOT), "MERGELINE_HOME": str(tmp_path_factory.mktemp(f"state-{pipeline}"))},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for pipeline in (1, 2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return TrackingSettings(server.url, EXPERIMENT)


def test_nothing_is_lost_and_nothing_mixed(recorded: TrackingSettings, tmp_path: Path) -> None:
    client = client_of(recorded)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = list(client.search_runs([experiment.experiment_id]))
    merges = {run.info.run_name: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    assert len(runs) == 2 * MERGES * (1 + 3)
    assert len(merges) == 2 * MERGES
    for pipeline in (1, 2):
        for number in range(MERGES):
            t = pipeline + number / 10
            run = client.get_run(merges[f"pipeline {pipeline} t={t}"].info.run_id)
            assert run.info.status == "FINISHED"
            assert run.data.params["t"] == str(t)
            assert run.data.metrics["merge/bytes"] == 1000 * pipeline + number
            assert run.data.metrics["spartqa_train/acc"] == t / 10
            assert run.data.tags["prefect.flow_run_id"] == f"flow {pipeline}"
            assert run.data.tags["hf.repo"] == f"ours/{pipeline}"
            children = [child for child in runs if child.data.tags.get("mlflow.parentRunId") == run.info.run_id]
            assert sorted(child.data.metrics["spartqa_train/acc"] for child in children) == sorted([0.5, 0.5, t / 10])
            assert models(client, [model.model_id for model in run.inputs.model_inputs]) == {
                "mergeline-demo/compass",
                "mergeline-demo/clock",
            }
            assert models(client, [model.model_id for model in run.outputs.model_outputs]) == {f"ours/{pipeline}"}
            (tmp_path / run.info.run_id).mkdir()
            manifest = client.download_artifacts(
                run.info.run_id, "mergeline_manifest.json", str(tmp_path / run.info.run_id)
            )
            assert json.loads(Path(manifest).read_text())["plan_digest"].startswith(f"{pipeline}{number}")
    for run in runs:
        assert all(len(client.get_metric_history(run.info.run_id, key)) == 1 for key in run.data.metrics)
    versions = client.search_model_versions("name = 'mergeline-demo'")
    assert len({version.source for version in versions}) == len(versions) == 2 * MERGES


def models(client: Any, model_ids: list[str]) -> set[str]:
    return {client.get_logged_model(model_id).tags["hf.repo"] for model_id in model_ids}


def test_neither_token_nor_user_is_in_database_or_files(
    recorded: TrackingSettings, server: MlflowServer, postgres: PostgresCluster
) -> None:
    stored = [postgres.dump("tracking"), *(path.read_bytes() for path in server.folder.rglob("*") if path.is_file())]
    assert len(stored) > 2 * MERGES * 5
    assert any(b"***" in content for content in stored)
    for private in (TOKEN, USER):
        assert not [content for content in stored if private.encode() in content]
