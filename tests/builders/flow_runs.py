"""Runs of the main flow on a real Prefect server, a real Hub over HTTP and a real MLflow store, and what they leave."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from huggingface_hub import HfApi
from mlflow import MlflowClient
from mlflow.entities import Run
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import State, TaskRun

from deployments.local.demo import TOKEN
from deployments.loopback_hub import LocalHub
from flows.merge_and_evaluate import merge_and_evaluate
from mergeline.cli.command_line import main
from mergeline.pipeline.run import PipelineResult

FLOW_MARKS = [
    pytest.mark.slow,
    # huggingface_hub 2.4 hands the bodies of LFS uploads to httpx2 in a way that httpx2 is about to drop.
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
    # Prefect leaves a connection to its own server to the garbage collector where that server is slow to answer.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


LIMIT = 200
"""So few questions take seconds, and still tell a merge that knows them all from parents that know three in four."""


USER = "ada.lovelace"


MORE = """\
execute: {max_shard_size: 150kB}
evaluate: {dataset: mergeline-demo/spartqa-directions}
sample: {prompts: []}
track: {experiment: flows}
"""


TASK_RUNS_OF_A_MERGE = {
    "plan": 1,
    "fetch_checkpoint": 2,
    "merge_shard": 3,
    "assemble": 1,
    "verify": 1,
    "fetch_questions": 1,
    "evaluate": 1,
    "open_run": 1,
    "publish": 1,
    "record_merge": 1,
}


@dataclass(frozen=True)
class Workplace:
    """Where flows work: the Hub they ask, and a folder for all that they write."""

    hub: LocalHub
    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Let the environment name this place, and a user whose name must not be recorded anywhere."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_ENDPOINT", self.hub.endpoint)
            patch.setenv("HF_TOKEN", TOKEN)
            patch.setenv("MERGELINE_HOME", str(self.state))
            # Models this small are three times slower on two threads.
            patch.setenv("OMP_NUM_THREADS", "1")
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            for variable in ("LOGNAME", "USER", "USERNAME"):
                patch.setenv(variable, USER)
            patch.setenv("HOME", f"/home/{USER}")
            patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(self.folder / "hub-cache"))
            patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
            yield

    def commits(self, repo_id: str) -> list[str]:
        """Return the titles of a repository's commits, newest first."""
        api = HfApi(endpoint=self.hub.endpoint, token=TOKEN)
        return [commit.title for commit in api.list_repo_commits(repo_id)]

    def models(self) -> set[str]:
        api = HfApi(endpoint=self.hub.endpoint, token=TOKEN)
        return {model.id for model in api.list_models()}

    @property
    def mlflow(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.state / 'mlflow' / 'mlflow.db'}")

    def runs(self, experiment: str) -> list[Run]:
        found = self.mlflow.get_experiment_by_name(experiment)
        return [] if found is None else list(self.mlflow.search_runs([found.experiment_id]))


def run_pipeline(**parameters: Any) -> State[PipelineResult]:
    """Run the whole pipeline as a form with these fields would; the others keep a small demonstration's values."""
    form = {"name": "flow-slerp", "limit": LIMIT, "publish": "never", "more": MORE} | parameters
    return merge_and_evaluate(**form, return_state=True)


def flow_run_id(state: State[Any]) -> UUID:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


def task_runs(state: State[Any], count: int) -> list[TaskRun]:
    """Return a flow run's task runs once there are so many and each has ended; the server hears of them by and by."""
    flow_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id(state)]))
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_task_runs(flow_run_filter=flow_run)
            if len(runs) >= count and all(run.state is not None and run.state.is_final() for run in runs):
                return runs
            assert time.monotonic() < deadline, [(run.name, run.state_name) for run in runs]
            time.sleep(0.2)


def stages(runs: list[TaskRun]) -> dict[str, int]:
    """Count task runs by the function they ran."""
    return dict(Counter(run.task_key.rpartition("-")[0] for run in runs))


def without(*stages: str) -> dict[str, int]:
    """Return the task runs of a merge less those of some stages."""
    return {stage: count for stage, count in TASK_RUNS_OF_A_MERGE.items() if stage not in stages}


def artifacts(state: State[Any]) -> dict[str, Artifact]:
    only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id(state)]))
    with get_client(sync_client=True) as client:
        return {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=only)}


def records(workplace: Workplace, experiment: str) -> dict[str, Any]:
    """Return everything MLflow holds of an experiment's runs, every point of every metric included."""
    client = workplace.mlflow
    return {
        run.info.run_id: {
            "parameters": run.data.params,
            "history": {
                key: [
                    (point.value, point.timestamp, point.step)
                    for point in client.get_metric_history(run.info.run_id, key)
                ]
                for key in run.data.metrics
            },
            "status": run.info.status,
            "start": run.info.start_time,
            "end": run.info.end_time,
        }
        for run in workplace.runs(experiment)
    }


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Return what a command answers in JSON."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)
