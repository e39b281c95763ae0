"""Prefect task: merge one output shard."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from mergeline.errors import MergeError
from mergeline.merge import shard as shards
from mergeline.merge.shard import Resources, ShardResult
from mergeline.plan.merge_plan import MergePlan
from mergeline.plan.plan_file import read_plan
from mergeline.support.text import size


class MergeProgress:
    """One progress artifact for the shards a flow merges, renewed at most once a second from any thread.

    Used as a context: left by an exception, such as the one that cancelling a flow run raises in its main thread, it
    stops the threads that still merge at their next piece. What they have finished stays.
    """

    def __init__(self, nbytes: int, shard_count: int) -> None:
        """Create the artifact in the running flow, for so many bytes of weights."""
        self._total, self._done = nbytes, 0
        self._lock = threading.Lock()
        self._is_stopped = threading.Event()
        self._told = time.monotonic()
        self._artifact: UUID = create_progress_artifact(  # pyright: ignore[reportAssignmentType]
            0.0, key="merge-progress", description=f"Writing {size(self._total)} in {shard_count} shards"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._is_stopped.set()

    def __call__(self, nbytes: int) -> None:
        if self._is_stopped.is_set():
            raise MergeError("The merge was stopped; started again, it continues from here.")
        with self._lock:
            self._done += nbytes
            is_due = self._done >= self._total or time.monotonic() - self._told > 1.0
            if is_due:
                self._told = time.monotonic()
                # Told under the lock, so that no thread's older figure arrives last.
                update_progress_artifact(self._artifact, 100.0 * self._done / self._total)


def require_shared(paths: Sequence[Path]) -> None:
    """Raise :class:`MergeError` unless this machine sees everything a shard is merged from."""
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise MergeError(
            f"{missing[0]}: is not there on {platform.node()}; sources (HF_HOME) and output (MERGELINE_HOME) must lie "
            "in a folder that every worker sees under the same path."
        )


@lru_cache(maxsize=1)
def _plan_written_at(plan_file: Path, time_ns: int) -> MergePlan:
    """Read a plan, and compute its digest, once for all the shards that this process merges of it."""
    del time_ns
    return read_plan(plan_file)


# NO_CACHE: the shard's own record on disk says what is done, and Prefect is told. No retries: what fails here
# (a full disk, a source that changed, a tensor that is not finite) fails again.
@task(name="merge-shard", task_run_name="merge {filename}", tags=["gpu"], cache_policy=NO_CACHE)
def merge_shard(
    filename: str,
    plan_file: Path,
    sources: Sequence[Path],
    resources: Resources,
    progress: MergeProgress | None,
) -> Any:
    """Merge one shard of the plan kept in ``plan_file``, beside it; see :func:`mergeline.merge.shard.merge_shard`.

    Without ``progress``, whoever waits for the shard counts its bytes.
    """
    require_shared([plan_file, *sources])
    plan = _plan_written_at(plan_file, plan_file.stat().st_mtime_ns)
    shard = next(shard for shard in plan.shards if shard.filename == filename)
    result: ShardResult = shards.merge_shard(
        plan, shard, sources, plan_file.parent, resources, progress or (lambda nbytes: None)
    )
    get_run_logger().info(
        "%s %s (%d tensors, %s, %.1f s)",
        "Found finished" if result.is_reused else "Wrote",
        filename,
        len(shard.tensors),
        size(result.nbytes),
        result.elapsed_seconds,
    )
    return Completed(name="Reused", data=result) if result.is_reused else result
