"""Some shards of a plan -> their files: what a Prefect worker does of a merge."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, runtime
from prefect.task_runners import ThreadPoolTaskRunner

from flows.executors.on_threads import merge_on_threads
from flows.executors.on_workers import alive_path
from mergeline.merge.devices import CORES, choose_devices
from mergeline.merge.job import MergeJob
from mergeline.plan.plan_file import read_plan
from mergeline.support.durable import exclusive
from tasks.merging import require_shared


@flow(name="merge-shards", task_runner=ThreadPoolTaskRunner(max_workers=CORES))
def merge_shards(plan_file: Path, sources: list[Path], filenames: list[str], device: str = "auto") -> None:
    """Merge some shards of a plan, largest first; the record beside each file is what the caller goes by.

    Args:
        plan_file: The plan in its workspace, in a folder that all workers share.
        sources: Directory of each of the plan's sources.
        filenames: The shards.
        device: Where the arithmetic runs; cuda takes every GPU this worker sees.
    """
    require_shared([plan_file, *sources])
    with exclusive(alive_path(plan_file.parent, runtime.flow_run.id), "merging these shards", is_waiting=True):
        plan = read_plan(plan_file)
        shards = tuple(shard for shard in plan.shards if shard.filename in filenames)
        merge_on_threads(MergeJob(plan, plan_file, tuple(sources), shards), choose_devices(device))
