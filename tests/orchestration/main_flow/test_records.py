"""How a model that the main flow made is followed back to its parents, and what of it MLflow may not hold."""

from __future__ import annotations

import re
import shlex
import signal
import threading
import time
from pathlib import Path
from uuid import UUID

import pytest
from huggingface_hub import HfApi
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

from deployments.local.demo import TOKEN
from flows.form import EXAMPLE_RECIPE
from mergeline.cli.command_line import main
from mergeline.merge.merging import merge_recipe
from mergeline.pipeline.run import PipelineResult, describe_result
from mergeline.sources.hub import Hub
from tests.builders.flow_runs import (
    FLOW_MARKS,
    MORE,
    USER,
    Workplace,
    asked,
    flow_run_id,
    run_pipeline,
)
from tests.servers.mlflow_server import MlflowServer

pytestmark = FLOW_MARKS


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
    text = (Path(__file__).parents[3] / "docs" / "lineage.md").read_text()
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
