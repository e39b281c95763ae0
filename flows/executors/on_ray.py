"""Merge shards on a Ray cluster: one Ray task, and one GPU where there are any, per shard."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from prefect.futures import as_completed

from mergeline.errors import InputError, MergeError
from mergeline.merge.job import MergeJob
from mergeline.merge.shard import Resources, ShardResult
from tasks.merging import MergeProgress, merge_shard

LOST_WORKER_RETRIES = 3
"""How often Ray starts a shard again whose worker died."""

CONNECT_SECONDS = 10.0
"""How long a cluster may take to accept a connection."""


def merge_on_ray(job: MergeJob, device: str, address: str | None) -> tuple[ShardResult, ...]:
    """Merge the job's shards as Prefect tasks on Ray.

    Args:
        job: What to merge.
        device: As the pipeline says; ``auto`` takes the GPUs there are.
        address: Of the cluster; None: the one that runs on this machine, or a new one that ends with the merge.

    Raises:
        MergeError: Ray cannot be reached, has no GPU where one is asked for, or lost a shard's workers too often.
    """
    # An optional dependency, and seconds to import.
    from prefect_ray.context import remote_options

    progress = MergeProgress(job.nbytes, len(job.shards))
    results: dict[str, ShardResult] = {}
    with _cluster(address) as runner:
        is_on_gpu = _has_gpu(device)
        # Ray shows each task its own GPU as the first.
        resources = Resources(("cuda:0",) if is_on_gpu else ("cpu",))
        needed = {"num_cpus": 1, "num_gpus": int(is_on_gpu), "max_retries": LOST_WORKER_RETRIES}
        with remote_options(**needed):
            futures = {
                runner.submit(merge_shard, _arguments(job, shard.filename, resources)): shard
                for shard in job.largest_first
            }
        for future in as_completed(list(futures)):
            shard = futures[future]
            # Unlike result(), wait() turns whatever Ray raises about a worker into a state.
            future.wait()
            if future.state.is_crashed():
                raise MergeError(
                    f"{shard.filename}: Ray lost {LOST_WORKER_RETRIES + 1} workers while they merged it: "
                    f"{' '.join(str(future.state.message).split())} Finished shards are kept: run again."
                )
            results[shard.filename] = future.result()
            progress(shard.data_nbytes)
    return tuple(results[shard.filename] for shard in job.shards)


def require_answer(address: str) -> None:
    """Raise :class:`InputError` unless somebody listens at a cluster's address; Ray itself tries for ten minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        # Ray's own words, such as `auto`.
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as problem:
        raise InputError(
            f"execute.ray_address: {address} does not answer ({problem.strerror or problem}); start the cluster with "
            "`ray start --head`, or correct RAY_ADDRESS."
        ) from None


@contextmanager
def _cluster(address: str | None) -> Generator[Any]:
    """Give a task runner that is connected to Ray."""
    from prefect_ray import RayTaskRunner

    with ExitStack() as stack:
        try:
            runner = stack.enter_context(RayTaskRunner(address, init_kwargs={"log_to_driver": False}))
        except (ConnectionError, RuntimeError, ValueError) as error:
            place = address or "this machine"
            raise MergeError(f"execute.ray_address: no Ray at {place}: {' '.join(str(error).split())}") from error
        yield runner


def _arguments(job: MergeJob, filename: str, resources: Resources) -> dict[str, Any]:
    return {
        "filename": filename,
        "plan_file": job.plan_file,
        "sources": job.sources,
        "resources": resources,
        # Bytes are counted where the flow runs, a whole shard at a time.
        "progress": None,
    }


def _has_gpu(device: str) -> bool:
    """Decide whether shards are merged on GPUs."""
    import ray

    count = ray.cluster_resources().get("GPU", 0)
    if device == "cuda" and not count:
        raise MergeError("execute.device: cuda, but no node of the Ray cluster has a GPU; write auto or cpu.")
    return device != "cpu" and count > 0
