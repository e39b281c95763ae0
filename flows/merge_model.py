"""Recipe -> verified model directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from prefect import flow, get_run_logger, runtime
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.executors import CORES, MergeJob, merge_shards, require_engine
from mergeline.merge.devices import choose_devices
from mergeline.merge.merging import MergedModel
from mergeline.merge.shard import ShardResult
from mergeline.merge.workspace import finished_output, open_workspace
from mergeline.pipeline.language import read_form
from mergeline.pipeline.preflight import PreparedPipeline
from mergeline.support.state import state_directory
from tasks.assembling import assemble, show_geometry, verify
from tasks.fetching import fetch_checkpoint
from tasks.planning import plan

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
    require_engine(pipeline.settings.execute)
    prepared = plan(pipeline)
    return merge(prepared, fetch_sources(prepared))


def fetch_sources(prepared: PreparedPipeline) -> list[Path]:
    """Bring the checkpoints onto this machine, side by side; in the order of the plan's sources."""
    fetched = [fetch_checkpoint.submit(checkpoint) for checkpoint in prepared.planned.checkpoints]
    return [future.result() for future in fetched]


def merge(
    prepared: PreparedPipeline, sources: list[Path], links: Mapping[str, str] = MappingProxyType({})
) -> MergedModel:
    """Merge shard by shard on the pipeline's engine, assemble and verify; what an earlier run finished is kept.

    Args:
        prepared: The pipeline.
        sources: From :func:`fetch_sources`.
        links: Other records of this merge, for the manifest of one that is made now.
    """
    planned = prepared.planned
    output = output_directory(prepared)
    manifest = finished_output(planned.plan, output)
    results: tuple[ShardResult, ...] = ()
    if manifest is None:
        execute = prepared.pipeline.settings.execute
        with open_workspace(planned.plan, output) as workspace:
            job = MergeJob.of_plan(planned.plan, workspace.plan_file, sources, execute.device)
            results = merge_shards(execute, job)
            made_by = {"prefect_flow_run_id": str(runtime.flow_run.id)}
            manifest = assemble(planned, results, sources[planned.plan.donor], workspace, made_by | dict(links))
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
