"""Recipe -> verified model directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger, runtime
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from mergeline.execute import ShardResult, choose_devices
from mergeline.merging import MergedModel
from mergeline.pipeline import read_form
from mergeline.preflight import PreparedPipeline
from mergeline.state import state_directory
from mergeline.workspace import finished_output, open_workspace
from tasks.assembling import assemble, show_geometry, verify
from tasks.fetching import fetch_checkpoint
from tasks.merging import MergeProgress, merge_shard
from tasks.planning import plan

CORES = min(len(os.sched_getaffinity(0)), 8)

YamlBox = Annotated[str, Field(json_schema_extra={"format": "json-string"})]
"""Shown by Prefect's form as a code editor; the text is not asked to be JSON."""

# Offered by the form, judged by the pipeline language: a Literal would refuse a file's `cuda:1`, in Prefect's words.
DeviceChoice = Annotated[str, Field(json_schema_extra={"enum": ["auto", "cpu", "cuda"]})]

EXAMPLE_RECIPE = """\
merge_method: slerp
base_model: mergeline-demo/compass
models:
  - model: mergeline-demo/compass
  - model: mergeline-demo/clock
parameters:
  t: 0.5
dtype: float32
"""


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
    pipeline = read_form(
        recipe=recipe, name=name, tasks=[], limit=None, publish="never", repo_id="", private=True, device=device,
        more=more,
    )  # fmt: skip
    prepared = plan(pipeline)
    return merge(prepared, fetch_sources(prepared))


def fetch_sources(prepared: PreparedPipeline) -> list[Path]:
    """Bring the checkpoints onto this machine, side by side; in the order of the plan's sources."""
    fetched = [fetch_checkpoint.submit(checkpoint) for checkpoint in prepared.planned.checkpoints]
    return [future.result() for future in fetched]


def merge(prepared: PreparedPipeline, sources: list[Path]) -> MergedModel:
    """Merge shard by shard, assemble and verify; what an earlier run finished is found and kept."""
    planned = prepared.planned
    output = output_directory(prepared)
    manifest = finished_output(planned.plan, output)
    results: tuple[ShardResult, ...] = ()
    if manifest is None:
        devices = chosen_devices(prepared)
        shards = planned.plan.shards
        with open_workspace(planned.plan, output) as workspace, MergeProgress(planned.plan) as progress:
            workers = max(1, CORES // len(shards))
            merged = [
                merge_shard.submit(shard.filename, workspace.plan_file, sources, devices, workers, progress)
                for shard in shards
            ]
            results = tuple(future.result() for future in merged)
            links = {"prefect_flow_run_id": str(runtime.flow_run.id)}
            manifest = assemble(planned, results, sources[planned.plan.donor], workspace, links)
    verify(output)
    show_geometry(planned.plan, output)
    return MergedModel(output, planned.plan, manifest, results)


def output_directory(prepared: PreparedPipeline) -> Path:
    """Return where a pipeline's merge lies: named for people, told apart by its plan."""
    return state_directory() / "merges" / f"{prepared.pipeline.settings.name}-{prepared.planned.plan.digest[:12]}"


def chosen_devices(prepared: PreparedPipeline) -> list[str]:
    """Return the devices that exist, telling the run's log where they are not those asked for."""
    devices, remark = choose_devices(prepared.pipeline.settings.execute.device)
    if remark is not None:
        get_run_logger().warning(remark)
    return devices
