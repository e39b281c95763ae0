"""The shards of one merge as work that can be handed out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mergeline.merge.placement import largest_first
from mergeline.merge.shard import ONE_WORKER, Progress, Resources, ShardResult, finished_shard, merge_shard
from mergeline.plan.merge_plan import MergePlan, ShardPlan


@dataclass(frozen=True)
class MergeJob:
    """Shards to be merged beside the plan that names them."""

    plan: MergePlan
    plan_file: Path
    """The same plan on disk; shards are written in its directory."""
    sources: tuple[Path, ...]
    """Directory of each source, in the order of ``plan.sources``."""
    shards: tuple[ShardPlan, ...]

    @property
    def directory(self) -> Path:
        return self.plan_file.parent

    @property
    def nbytes(self) -> int:
        return sum(shard.data_nbytes for shard in self.shards)

    @cached_property
    def largest_first(self) -> list[ShardPlan]:
        """The shards in the order they are handed out."""
        return [self.shards[index] for index in largest_first([shard.data_nbytes for shard in self.shards])]

    def finished(self, shard: ShardPlan) -> ShardResult | None:
        """Return the result of a shard that lies finished on disk, whoever wrote it."""
        return finished_shard(self.plan, shard, self.directory)


Executor = Callable[[MergeJob], tuple[ShardResult, ...]]
"""Merges a job's shards, wherever that is; returns their results in the job's order."""


def merge_here(
    job: MergeJob, resources: Resources = ONE_WORKER, on_progress: Progress = lambda nbytes: None
) -> tuple[ShardResult, ...]:
    """Merge a job's shards in this process, one after another."""
    return tuple(
        merge_shard(job.plan, shard, job.sources, job.directory, resources, on_progress) for shard in job.shards
    )
