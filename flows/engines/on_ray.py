"""Merge shards on a Ray cluster: one Ray task, and one GPU where there are any, per shard."""

from __future__ import annotations

from typing import Any

from prefect.exceptions import CrashedRun
from prefect.futures import as_completed

from flows.engines.job import MergeJob
from mergeline.errors import MergeError
from mergeline.execute import ShardResult
from tasks.merging import MergeProgress, merge_shard

LOST_WORKER_RETRIES = 3
"""How often Ray starts a shard again whose worker died; what the dead one had finished of it is kept on its machine."""


def merge_on_ray(job: MergeJob, address: str | None) -> tuple[ShardResult, ...]:
    """Merge the job's shards as Prefect tasks on Ray.

    Args:
        job: What to merge.
        address: Of the cluster; None: the one that runs on this machine, or a new one that ends with the merge.

    Raises:
        MergeError: Ray cannot be reached, has no GPU where one is asked for, or lost a shard's workers too often.
    """
    # An optional dependency, and seconds to import.
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    progress = MergeProgress(job.nbytes, len(job.shards))
    runner: Any = RayTaskRunner(address, init_kwargs={"log_to_driver": False})
    try:
        runner.__enter__()
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise MergeError(f"Ray at {address or 'this machine'}: {' '.join(str(error).split())}") from error
    try:
        devices = ["cuda:0"] if _has_gpu(job.device) else ["cpu"]
        needed = {"num_cpus": 1, "num_gpus": int(devices != ["cpu"]), "max_retries": LOST_WORKER_RETRIES}
        with remote_options(**needed):
            futures = {
                runner.submit(merge_shard, _arguments(job, shard.filename, devices)): shard
                for shard in job.largest_first
            }
        results: dict[str, ShardResult] = {}
        for future in as_completed(list(futures)):
            shard = futures[future]
            try:
                results[shard.filename] = future.result()
            except CrashedRun as error:
                raise MergeError(
                    f"{shard.filename}: Ray lost {LOST_WORKER_RETRIES + 1} workers that merged it ({error}); see the "
                    "cluster's logs. Finished shards are kept: run again."
                ) from error
            progress(shard.data_nbytes)
    finally:
        runner.__exit__(None, None, None)
    return tuple(results[shard.filename] for shard in job.shards)


def _arguments(job: MergeJob, filename: str, devices: list[str]) -> dict[str, Any]:
    return {
        "filename": filename,
        "plan_file": job.plan_file,
        "sources": job.sources,
        "devices": devices,
        "workers": 1,
        # Bytes are counted where the flow runs, a whole shard at a time.
        "progress": None,
    }


def _has_gpu(device: str) -> bool:
    """Decide whether shards are merged on GPUs, of which Ray shows each task its own as the first."""
    import ray

    count = ray.cluster_resources().get("GPU", 0)
    if device == "cuda" and not count:
        raise MergeError("execute.device: cuda, but no node of the Ray cluster has a GPU; write auto or cpu.")
    return device != "cpu" and count > 0
