"""Where a merge's shards are merged: in this process's threads, on Ray, or by Prefect workers."""

from __future__ import annotations

import importlib.util

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from flows.engines.job import CORES, MergeJob
from flows.engines.on_ray import merge_on_ray, require_answer
from flows.engines.on_threads import merge_on_threads
from flows.engines.on_workers import DEPLOYMENT, merge_on_workers
from mergeline.errors import InputError
from mergeline.execute import ShardResult
from mergeline.pipeline import Execute

__all__ = ["CORES", "MergeJob", "merge_shards", "require_engine"]


def merge_shards(execute: Execute, job: MergeJob) -> tuple[ShardResult, ...]:
    """Have every shard of a merge written, in the running flow; the results are in the job's order.

    Raises:
        MergelineError: What a shard fails with; finished shards stay.
    """
    if execute.engine == "ray":
        return merge_on_ray(job, execute.resolved_ray_address)
    if execute.engine == "workers":
        return merge_on_workers(job)
    return merge_on_threads(job)


def require_engine(execute: Execute) -> None:
    """Find out whether the engine can start, before anything is moved.

    Raises:
        InputError: It lacks a package, a Prefect server that other processes reach, its cluster or its deployment.
    """
    if execute.engine == "threads":
        return
    if execute.engine == "ray" and not importlib.util.find_spec("prefect_ray"):
        raise InputError("execute.engine: ray needs prefect-ray, which is not installed: pip install 'mergeline[ray]'.")
    if not get_current_settings().api.url:
        raise InputError(
            f"execute.engine: {execute.engine} needs a Prefect server that its workers reach: start one with "
            "`python -m deployments.prefect_server` and set PREFECT_API_URL, or use threads."
        )
    if execute.engine == "ray" and execute.resolved_ray_address is not None:
        require_answer(execute.resolved_ray_address)
    if execute.engine == "workers":
        with get_client(sync_client=True) as client:
            try:
                client.read_deployment_by_name(DEPLOYMENT)
            except ObjectNotFound:
                raise InputError(
                    f"execute.engine: workers needs the deployment {DEPLOYMENT}, which this Prefect server does not "
                    "have: deploy it to the workers' pool first."
                ) from None
