"""Merge shards in this process, several at a time."""

from __future__ import annotations

from prefect import get_run_logger

from flows.executors.on_threads import CORES
from mergeline.merge.devices import choose_devices
from mergeline.merge.job import MergeJob
from mergeline.merge.shard import ShardResult
from tasks.merging import MergeProgress, merge_shard


def merge_on_threads(job: MergeJob) -> tuple[ShardResult, ...]:
    """Merge the job's shards as Prefect tasks on the running flow's own task runner, a thread pool."""
    devices, remark = choose_devices(job.device)
    if remark is not None:
        get_run_logger().warning(remark)
    workers = max(1, CORES // len(job.shards))
    with MergeProgress(job.nbytes, len(job.shards)) as progress:
        futures = {
            shard.filename: merge_shard.submit(shard.filename, job.plan_file, job.sources, devices, workers, progress)
            for shard in job.largest_first
        }
        return tuple(futures[shard.filename].result() for shard in job.shards)
