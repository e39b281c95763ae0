"""The flows on a real Prefect server, a real Hub over HTTP and a real MLflow store."""

from __future__ import annotations

import json
import re
import shlex
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch
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
from safetensors.torch import save_file

from deployments.local.demo import TOKEN, fill
from deployments.loopback_hub import LocalHub
from flows.evaluate_model import evaluate_model
from flows.form import EXAMPLE_RECIPE
from flows.merge_and_evaluate import merge_and_evaluate
from flows.merge_model import merge_model
from mergeline.cli.command_line import main
from mergeline.errors import InputError, MergeError
from mergeline.merge.manifest import read_manifest
from mergeline.merge.merging import merge_recipe
from mergeline.merge.verification import verify_directory
from mergeline.pipeline.run import PipelineResult, describe_result, result_json
from mergeline.sources.hub import Hub
from mergeline.support.text import parse_size
from tests.builders.tiny_checkpoints import make_mistral
from tests.servers.mlflow_server import MlflowServer

pytestmark = [
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
    """Where the flows of this file work."""

    hub: LocalHub
    state: Path

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


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Workplace]:
    """A state directory, and a Hub with the demonstration models and questions."""
    folder = tmp_path_factory.mktemp("flows")
    with pytest.MonkeyPatch.context() as patch, LocalHub(folder / "hub") as hub:
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("MERGELINE_HOME", str(folder / "state"))
        # Models this small are three times slower on two threads.
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for variable in ("LOGNAME", "USER", "USERNAME"):
            patch.setenv(variable, USER)
        patch.setenv("HOME", f"/home/{USER}")
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub-cache"))
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        fill(hub.endpoint)
        yield Workplace(hub, folder / "state")


def run_pipeline(**parameters: Any) -> State[PipelineResult]:
    """Run the whole pipeline as a form with these fields would; the others keep a small demonstration's values."""
    form = {"name": "flow-slerp", "limit": LIMIT, "publish": "never", "more": MORE} | parameters
    return merge_and_evaluate(**form, return_state=True)


@pytest.fixture(scope="module")
def published(workplace: Workplace) -> State[PipelineResult]:
    """The demonstration's merge, evaluated beside its parents and published because it is better than both."""
    return run_pipeline(publish="better_than_parents", repo_id="flow-slerp")


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


def test_a_merge_that_is_better_than_its_parents_is_published_in_one_commit(
    workplace: Workplace, published: State[PipelineResult]
) -> None:
    result = published.result()
    assert {comparison.verdict for comparison in result.reports[0].comparisons} == {"better"}
    assert result.decision.is_published
    assert result.publication is not None
    assert (result.publication.repo_id, result.publication.was_already_published) == ("mergeline/flow-slerp", False)
    title, initial = workplace.commits("mergeline/flow-slerp")
    assert title.startswith("Publish a merge made by Mergeline")
    assert initial == "initial commit"


def test_every_task_run_reaches_a_final_state(published: State[PipelineResult]) -> None:
    runs = task_runs(published, sum(TASK_RUNS_OF_A_MERGE.values()))
    assert stages(runs) == TASK_RUNS_OF_A_MERGE
    assert {run.state_name for run in runs} == {"Completed"}
    shards = [run.name for run in runs if run.name.startswith("merge ")]
    assert sorted(shards) == [f"merge model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]


def test_plan_progress_scores_and_commit_are_artifacts(published: State[PipelineResult]) -> None:
    found = artifacts(published)
    result = published.result()
    expected = {"merge-plan", "merge-progress", "geometry", "evaluation", "hub-commit", "mlflow-run"}
    assert set(found) == expected | {"report-spartqa-train"}
    assert "slerp of 2 models" in str(found["merge-plan"].data)
    assert found["merge-progress"].data == 100
    assert "Between the models the cosine is" in str(found["geometry"].data)
    assert "| flow-slerp " in str(found["evaluation"].data)
    assert result.publication is not None
    assert result.publication.url in str(found["hub-commit"].data)
    assert result.run is not None
    assert result.run.run_id in str(found["mlflow-run"].data)


def test_mlflow_holds_the_merge_and_every_model_beside_it(
    workplace: Workplace, published: State[PipelineResult]
) -> None:
    result = published.result()
    runs = workplace.runs("flows")
    merges = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert result.run is not None
    assert [run.info.run_id for run in merges] == [result.run.run_id]
    assert merges[0].data.tags["prefect.flow_run_id"] == str(flow_run_id(published))
    assert result.publication is not None
    assert merges[0].data.tags["hf.commit"] == result.publication.commit
    assert merges[0].data.tags["verdict"] == "better"
    assert merges[0].data.params["t"] == "0.5"
    children = {run.info.run_name: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {result.run.run_id}
    assert merges[0].info.run_name == "flow-slerp t=0.5"
    told = {evaluation.label: evaluation.accuracy for evaluation in result.reports[0].evaluations}
    assert set(told) == {"mergeline-demo/compass", "mergeline-demo/clock", "flow-slerp"}
    told["flow-slerp t=0.5"] = told.pop("flow-slerp")
    assert {name: run.data.metrics["spartqa_train/acc"] for name, run in children.items()} == told
    assert {run.info.status for run in runs} == {"FINISHED"}
    held, manifest = merges[0].data, read_manifest(result.directory)
    assert manifest is not None
    assert held.params["max_shard_size"] == "150kB"
    assert held.params["engine_version"] == manifest.engine_version
    stages = {"fetch", "merge", "merge_shards", "evaluate", "publish"}
    assert {f"{stage}/seconds" for stage in stages} <= set(held.metrics)
    assert held.metrics["merge/bytes"] == sum(shard.nbytes for shard in manifest.shards)
    assert {"fetch/bytes", "publish/bytes"} <= set(held.metrics)
    assert held.metrics["merge/peak_memory_bytes"] > 100e6
    assert -1 <= held.metrics["geometry/cosine_least"] <= held.metrics["geometry/cosine_mean"] <= 1
    assert 0 < held.metrics["geometry/moved.compass"] < 1
    assert held.metrics["spartqa_train/acc.relation.left"] == 1.0
    assert len(held.tags["mergeline.config_digest"]) == 64
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", held.tags["mlflow.source.git.commit"])
    names = {file.path for file in workplace.mlflow.list_artifacts(result.run.run_id)}
    assert {"README.md", "geometry.jsonl", "mergeline_manifest.json", "pipeline.yaml", "plan.json"} <= names


def test_running_again_adds_nothing_anywhere(workplace: Workplace, published: State[PipelineResult]) -> None:
    first = published.result()
    files = {path: path.stat() for path in first.directory.iterdir()}
    before = records(workplace, "flows")

    again = run_pipeline(publish="better_than_parents", repo_id="flow-slerp")

    result = again.result()
    assert first.publication is not None
    assert result.publication == replace(first.publication, was_already_published=True)
    assert len(workplace.commits("mergeline/flow-slerp")) == 2
    assert records(workplace, "flows") == before
    assert all(len(points) == 1 for run in before.values() for points in run["history"].values())
    # Not a single shard is as much as looked at: the directory is complete.
    made = without("merge_shard", "assemble")
    assert stages(task_runs(again, sum(made.values()))) == made
    for path, earlier in files.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (earlier.st_ino, earlier.st_mtime_ns)


def test_never_publishes_nothing(workplace: Workplace, published: State[PipelineResult]) -> None:
    before = workplace.models()
    result = run_pipeline(name="kept", publish="never", more=MORE.replace("flows", "kept")).result()
    assert (result.decision.is_published, result.publication) == (False, None)
    assert result.decision.reason == "publish.when is never"
    assert workplace.models() == before
    assert not [tag for run in workplace.runs("kept") for tag in run.data.tags if tag.startswith("hf.")]
    assert "Not published: publish.when is never." in describe_result(result)
    assert json.loads(result_json(result))["publication"] is None


def test_without_a_deployment_approval_is_asked_of_nobody(
    workplace: Workplace, published: State[PipelineResult]
) -> None:
    before = workplace.models()
    more = MORE.replace("flows", "unasked")
    result = run_pipeline(name="unasked", publish="after_approval", repo_id="unasked", more=more).result()
    assert (result.decision.is_published, result.decision.is_pending, result.publication) == (False, True, None)
    assert workplace.models() == before
    assert "--set publish.when=always" in describe_result(result)


def test_a_merge_that_is_one_of_its_parents_is_not_published(
    workplace: Workplace, published: State[PipelineResult]
) -> None:
    before = workplace.models()
    recipe = EXAMPLE_RECIPE.replace("t: 0.5", "t: 0")
    state = run_pipeline(recipe=recipe, name="compass-again", publish="better_than_parents", repo_id="compass-again")
    result = state.result()
    verdicts = {comparison.reference: comparison.verdict for comparison in result.reports[0].comparisons}
    assert verdicts["mergeline-demo/compass"] == "no detectable difference"
    assert not result.decision.is_published
    assert "no detectable difference (mergeline-demo/compass)" in result.decision.reason
    assert workplace.models() == before
    made = without("publish")
    assert stages(task_runs(state, sum(made.values()))) == made
    assert result.run is not None
    tags = [run.data.tags for run in workplace.runs("flows") if run.info.run_id == result.run.run_id]
    assert "no detectable difference" in tags[0]["verdict"]


def test_a_model_that_does_not_exist_fails_the_flow_with_one_line(workplace: Workplace) -> None:
    recipe = EXAMPLE_RECIPE.replace("mergeline-demo/clock", "mergeline-demo/sundial")
    started = time.monotonic()
    state = run_pipeline(recipe=recipe, name="broken")
    with pytest.raises(InputError) as error:
        state.result()
    assert state.is_failed()
    assert "mergeline-demo/sundial" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert state.message == f"Flow run encountered an exception: {type(error.value).__name__}: {error.value}"
    runs = task_runs(state, 1)
    assert [(run.task_key.rpartition("-")[0], run.state_name, run.run_count) for run in runs] == [("plan", "Failed", 1)]
    # Trying again three times, as for a Hub that is down, would take half a minute.
    assert time.monotonic() - started < 15
    assert not workplace.runs("broken")


def test_a_merge_that_fails_is_failed_in_prefect_and_in_mlflow(workplace: Workplace, tmp_path: Path) -> None:
    make_mistral(tmp_path / "first", 1, layers=1, dtype=torch.float32)
    weights = make_mistral(tmp_path / "second", 2, layers=1, dtype=torch.float32)
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, tmp_path / "second" / "model.safetensors", metadata={"format": "pt"})
    models = {"mergeline-demo/compass": str(tmp_path / "first"), "mergeline-demo/clock": str(tmp_path / "second")}
    recipe = EXAMPLE_RECIPE
    for name, directory in models.items():
        recipe = recipe.replace(name, directory)
    state = run_pipeline(recipe=recipe, name="not-finite", more=MORE.replace("flows", "not-finite"))
    with pytest.raises(MergeError, match=r"tensor 'model\.norm\.weight': the result holds NaN") as error:
        state.result()
    assert state.is_failed()
    assert len(str(error.value).splitlines()) == 1
    failed = [run.task_key.rpartition("-")[0] for run in task_runs(state, 6) if run.state_name == "Failed"]
    assert failed == ["merge_shard"]
    (run,) = workplace.runs("not-finite")
    assert run.info.status == "FAILED"
    assert "model.norm.weight" in run.data.tags["mergeline.failure"]


def test_the_merge_alone_gives_the_bytes_of_the_command(workplace: Workplace, tmp_path: Path) -> None:
    more = "execute: {max_shard_size: 150kB}"
    state = merge_model(name="alone", more=more, return_state=True)
    merged = state.result()
    made = without("fetch_questions", "evaluate", "open_run", "publish", "record_merge")
    assert stages(task_runs(state, sum(made.values()))) == made
    assert merged.manifest.links == {"prefect_flow_run_id": str(flow_run_id(state))}
    assert verify_directory(merged.directory).plan_digest == merged.manifest.plan_digest
    (tmp_path / "recipe.yaml").write_text(EXAMPLE_RECIPE)
    by_command = merge_recipe(
        tmp_path / "recipe.yaml", tmp_path / "out", hub=Hub(), max_shard_bytes=parse_size("150kB")
    )
    assert by_command.manifest.shards == merged.manifest.shards


def test_an_evaluation_alone_compares_with_the_models_named(
    workplace: Workplace, published: State[PipelineResult]
) -> None:
    state = evaluate_model(limit=LIMIT, return_state=True)
    report = state.result()
    assert report.merge.label == "mergeline-demo/compass"
    assert [comparison.reference for comparison in report.comparisons] == ["mergeline-demo/clock"]
    known = {evaluation.label: evaluation.accuracy for evaluation in published.result().reports[0].evaluations}
    assert {evaluation.label: evaluation.accuracy for evaluation in report.evaluations}.items() <= known.items()
    assert stages(task_runs(state, 4)) == {"fetch_checkpoint": 2, "fetch_questions": 1, "evaluate": 1}
    assert "mergeline-demo/compass" in str(artifacts(state)["evaluation"].data)


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Return what a command answers in JSON."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_model_is_followed_back_from_its_name_alone(
    workplace: Workplace, published: State[PipelineResult], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    api = HfApi(endpoint=workplace.hub.endpoint, token=TOKEN)
    found = asked(capsys, "lineage", "mergeline/flow-slerp")
    # The Hub's commit -> the MLflow run, which names the same commit, -> Prefect's flow run,
    assert found["commit"] == api.model_info("mergeline/flow-slerp").sha
    run = workplace.mlflow.get_run(found["mlflow_run"]["run_id"])
    assert run.data.tags["hf.commit"] == found["commit"]
    assert run.data.tags["mergeline.plan_digest"] == found["plan_digest"]
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(UUID(found["prefect_flow_run"]["id"]))
    assert flow_run.name == "flow-slerp"
    # -> the recipe -> the parents' commits.
    assert found["recipe"] == flow_run.parameters["recipe"] == EXAMPLE_RECIPE
    parents = {parent["repo_id"]: parent["commit"] for parent in found["parents"]}
    assert parents == {name: api.model_info(name).sha for name in ("mergeline-demo/compass", "mergeline-demo/clock")}
    assert found["remarks"] == []

    # The other two ways in lead to the same places.
    links = ("repo_id", "commit", "plan_digest", "recipe", "parents", "prefect_flow_run", "mlflow_run")
    for way in (run.info.run_id, str(published.result().directory)):
        other = asked(capsys, "lineage", way)
        assert {key: other[key] for key in links} == {key: found[key] for key in links}
    main(["lineage", "mergeline/flow-slerp"])
    text = capsys.readouterr().out
    for link in (found["commit"], run.info.run_id, str(flow_run.id), *parents.values(), "merge_method: slerp"):
        assert link in text

    # And from a parent's commit to everything that was made from it.
    for name in ("mergeline-demo/compass", parents["mergeline-demo/compass"]):
        users = asked(capsys, "lineage", name, "--used-by")
        (user,) = [user for user in users if user["mlflow_run"]["commit"] == found["commit"]]
        assert (user["plan_digest"], user["source"]) == (found["plan_digest"], "mergeline-demo/compass")
        assert str(published.result().directory) in user["directories"]
    assert asked(capsys, "lineage", "0" * 40, "--used-by") == []

    # A merge of the merge is followed through it.
    recipe = EXAMPLE_RECIPE.replace("mergeline-demo/clock", "mergeline/flow-slerp")
    (tmp_path / "recipe.yaml").write_text(recipe)
    merge_recipe(tmp_path / "recipe.yaml", tmp_path / "grandchild", hub=Hub())
    grandchild = asked(capsys, "lineage", str(tmp_path / "grandchild"))
    (parent,) = [parent for parent in grandchild["parents"] if parent["origin"]]
    assert {each["repo_id"]: each["commit"] for each in parent["origin"]["parents"]} == parents
    assert "has no run of this plan" in grandchild["remarks"][0]


def test_a_tracking_server_killed_in_mid_run_costs_nothing(
    workplace: Workplace,
    mlflow_server: MlflowServer,
    published: State[PipelineResult],
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = MlflowClient(mlflow_server.url)

    def kill_once_merging() -> None:
        deadline = time.monotonic() + 120
        while not list(workplace.state.glob("merges/*outlived-*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        mlflow_server.stop(signal.SIGKILL)

    killer = threading.Thread(target=kill_once_merging)
    killer.start()
    more = MORE.replace("experiment: flows", f"experiment: outlived, uri: {mlflow_server.url}")
    recipe = EXAMPLE_RECIPE.replace("t: 0.5", "t: 0.45")
    try:
        state = run_pipeline(recipe=recipe, name="outlived", publish="always", repo_id="outlived", more=more)
    finally:
        killer.join()
        mlflow_server.start()
    result = state.result()
    assert state.is_completed()
    assert result.run is None
    assert result.publication is not None
    assert "MLflow run: not recorded yet; `mergeline track --replay` does it" in describe_result(result)
    experiment = client.get_experiment_by_name("outlived")
    assert experiment is not None
    (opened,) = client.search_runs([experiment.experiment_id])
    assert (opened.info.status, opened.data.metrics) == ("RUNNING", {})

    (sent,) = asked(capsys, "track", "--replay")["sent"]
    assert sent == {"name": "outlived slerp t=0.45", "run_id": opened.info.run_id}
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1 + 3
    filled = client.get_run(opened.info.run_id)
    assert filled.info.status == "FINISHED"
    assert filled.data.tags["hf.commit"] == result.publication.commit
    assert filled.data.tags["prefect.flow_run_id"] == str(flow_run_id(state))
    assert filled.data.metrics["spartqa_train/acc"] == result.reports[0].merge.accuracy
    for run in runs:
        assert all(len(client.get_metric_history(run.info.run_id, key)) == 1 for key in run.data.metrics)
    assert asked(capsys, "track", "--replay") == {"sent": [], "waiting": []}
    # The model itself says where its record is.
    assert asked(capsys, "lineage", "mergeline/outlived")["mlflow_run"]["run_id"] == opened.info.run_id


def test_every_command_that_the_document_shows_works(
    workplace: Workplace,
    published: State[PipelineResult],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = published.result()
    assert result.run is not None
    commit = HfApi(endpoint=workplace.hub.endpoint, token=TOKEN).model_info("mergeline-demo/compass").sha
    assert commit is not None
    text = (Path(__file__).parents[2] / "docs" / "lineage.md").read_text()
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    # What the demonstration has made on the reader's machine is here what the flow above has made.
    here = {
        r"mergeline/demo-slerp": "mergeline/flow-slerp",
        r"\.mergeline/merges/demo-slerp-[0-9a-f]{12}": str(result.directory),
        r"\b[0-9a-f]{32}\b": result.run.run_id,
        r"\b[0-9a-f]{40}\b": commit,
    }
    for shown, ours in here.items():
        assert re.search(shown, blocks), shown
        blocks = re.sub(shown, ours, blocks)
    commands = [shlex.split(line) for line in blocks.splitlines()]
    assert {command[0] for command in commands} == {"mergeline"}
    for command in commands:
        assert main(command[1:]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert said.count(f"MLflow run    {result.run.run_id}") == 3
    assert said.count("flow-slerp t=0.5: mergeline/flow-slerp@") == 2
    assert "byte for byte those of mergeline/flow-slerp" in said


def test_no_token_and_no_user_is_anywhere_in_the_store(workplace: Workplace, published: State[PipelineResult]) -> None:
    kept = [path for folder in ("mlflow", "tracking") for path in (workplace.state / folder).rglob("*")]
    files = [path for path in kept if path.is_file()]
    texts = {"README.md", "recipe.yaml", "pipeline.yaml", "plan.json", "report.html", "comparison.json"}
    assert {"mlflow.db"} | texts <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        for private in (TOKEN, USER):
            assert private.encode() not in content, path
