"""What merging shards takes, on whichever machine it is done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mergeline.execute import ShardResult, finished_shard
from mergeline.placement import largest_first
from mergeline.plan import MergePlan, ShardPlan

CORES = min(len(os.sched_getaffinity(0)), 8)


@dataclass(frozen=True)
class MergeJob:
    """Shards of one plan to be merged; holds paths, never a tensor.

    Paths are the same wherever a shard is merged: sources and output lie in a folder that all machines share.
    """

    plan: MergePlan
    plan_file: Path
    """The plan on disk; shards are written beside it."""
    sources: list[Path]
    """Directory of each of the plan's sources."""
    device: str
    """As the pipeline says: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    shards: tuple[ShardPlan, ...]

    @classmethod
    def of_plan(cls, plan: MergePlan, plan_file: Path, sources: list[Path], device: str) -> MergeJob:
        """Return the job of merging everything in a plan."""
        return cls(plan, plan_file, sources, device, plan.shards)

    @property
    def nbytes(self) -> int:
        return sum(shard.data_nbytes for shard in self.shards)

    @cached_property
    def largest_first(self) -> list[ShardPlan]:
        """The shards in the order they are handed out."""
        return [self.shards[index] for index in largest_first([shard.data_nbytes for shard in self.shards])]

    def finished(self, shard: ShardPlan) -> ShardResult | None:
        """Return the result of a shard that lies finished on disk, whoever wrote it."""
        return finished_shard(self.plan, shard, self.plan_file.parent)
