"""The flows that only merge or only evaluate."""

from __future__ import annotations

from pathlib import Path

from prefect.client.schemas.objects import State

from flows.evaluate_model import evaluate_model
from flows.form import EXAMPLE_RECIPE
from flows.merge_model import merge_model
from mergeline.merge.merging import merge_recipe
from mergeline.merge.verification import verify_directory
from mergeline.pipeline.run import PipelineResult
from mergeline.sources.hub import Hub
from mergeline.support.text import parse_size
from tests.builders.flow_runs import (
    FLOW_MARKS,
    LIMIT,
    Workplace,
    artifacts,
    flow_run_id,
    stages,
    task_runs,
    without,
)

pytestmark = FLOW_MARKS


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
