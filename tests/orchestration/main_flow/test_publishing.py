"""When the main flow publishes a merge, what Prefect and MLflow show of it, and that running again adds nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from prefect.client.schemas.objects import State

from flows.form import EXAMPLE_RECIPE
from mergeline.merge.manifest import read_manifest
from mergeline.pipeline.run import PipelineResult, describe_result, result_json
from tests.builders.flow_runs import (
    FLOW_MARKS,
    MORE,
    TASK_RUNS_OF_A_MERGE,
    Workplace,
    artifacts,
    flow_run_id,
    records,
    run_pipeline,
    stages,
    task_runs,
    without,
)

pytestmark = FLOW_MARKS


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
    more = MORE.replace("flows", "compass-again")
    state = run_pipeline(
        recipe=recipe, name="compass-again", publish="better_than_parents", repo_id="compass-again", more=more
    )
    result = state.result()
    verdicts = {comparison.reference: comparison.verdict for comparison in result.reports[0].comparisons}
    assert verdicts["mergeline-demo/compass"] == "no detectable difference"
    assert not result.decision.is_published
    assert "no detectable difference (mergeline-demo/compass)" in result.decision.reason
    assert workplace.models() == before
    made = without("publish")
    assert stages(task_runs(state, sum(made.values()))) == made
    assert result.run is not None
    tags = [run.data.tags for run in workplace.runs("compass-again") if run.info.run_id == result.run.run_id]
    assert "no detectable difference" in tags[0]["verdict"]
