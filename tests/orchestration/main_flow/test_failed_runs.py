"""Runs of the main flow that fail: one line in Prefect, the same in MLflow."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flows.form import EXAMPLE_RECIPE
from mergeline.errors import InputError, MergeError
from tests.builders.flow_runs import (
    FLOW_MARKS,
    MORE,
    Workplace,
    run_pipeline,
    task_runs,
)
from tests.builders.tiny_checkpoints import make_mistral

pytestmark = FLOW_MARKS


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
