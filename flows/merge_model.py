"""Recipe -> verified model directory."""

from __future__ import annotations

from prefect import flow, runtime
from prefect.task_runners import ThreadPoolTaskRunner

from flows.executors import require_executor
from flows.form import EXAMPLE_RECIPE, DeviceChoice, YamlBox
from flows.steps import as_task
from mergeline.merge.devices import CORES
from mergeline.merge.merging import MergedModel
from mergeline.pipeline import steps
from mergeline.pipeline.form import read_form
from mergeline.sources.hub import Hub


@flow(name="merge-model", flow_run_name="{name}", task_runner=ThreadPoolTaskRunner(max_workers=CORES))
def merge_model(
    recipe: YamlBox = EXAMPLE_RECIPE, name: str = "demo-slerp", device: DeviceChoice = "auto",
    more: YamlBox = "",
) -> MergedModel:  # fmt: skip
    """Merge checkpoints into a verified model directory.

    Args:
        recipe: What to merge, in mergekit's YAML.
        name: Names the run and the directory.
        device: Where the arithmetic runs.
        more: Further settings of the pipeline language, in YAML.
    """
    only_merge = {"tasks": [], "limit": None, "publish": "never", "repo_id": "", "private": True}
    pipeline = read_form({"recipe": recipe, "name": name, "device": device, "more": more, **only_merge})
    require_executor(pipeline.settings.execute)
    hub = Hub()
    prepared = as_task(steps.prepare, pipeline, hub)
    sources = as_task(steps.fetch_checkpoints, prepared.planned.checkpoints, hub)
    return steps.merge(prepared, sources, {"prefect_flow_run_id": str(runtime.flow_run.id)}, call=as_task)
