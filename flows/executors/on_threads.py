"""Merge shards in this process, several at a time."""

from __future__ import annotations

from collections.abc import Sequence

from mergeline.merge.devices import CORES
from mergeline.merge.job import MergeJob
from mergeline.merge.shard import Resources, ShardResult
from tasks.merging import MergeProgress, merge_shard


def merge_on_threads(job: MergeJob, devices: Sequence[str]) -> tuple[ShardResult, ...]:
    """Merge the job's shards as Prefect tasks on the running flow's own task runner, a thread pool."""
    resources = Resources(tuple(devices), max(1, CORES // len(job.shards)))
    with MergeProgress(job.nbytes, len(job.shards)) as progress:
        futures = {
            shard.filename: merge_shard.submit(shard.filename, job.plan_file, job.sources, resources, progress)
            for shard in job.largest_first
        }
        return tuple(futures[shard.filename].result() for shard in job.shards)
