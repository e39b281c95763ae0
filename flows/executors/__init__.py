"""Where a merge's shards are merged: in this process's threads, on Ray, or by Prefect workers."""

from __future__ import annotations

import importlib.util

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from flows.executors.on_ray import merge_on_ray, require_answer
from flows.executors.on_threads import merge_on_threads
from flows.executors.on_workers import DEPLOYMENT, merge_on_workers
from mergeline.errors import InputError
from mergeline.merge.job import MergeJob
from mergeline.merge.shard import Progress, ShardResult
from mergeline.pipeline.language import Execute
from mergeline.pipeline.preflight import PreparedPipeline

__all__ = ["merge_shards", "require_executor"]


def merge_shards(prepared: PreparedPipeline, job: MergeJob, on_progress: Progress) -> tuple[ShardResult, ...]:
    """Have every shard of a merge written, in the running flow; see :func:`mergeline.pipeline.steps.merge_shards`.

    Progress is an artifact on the run's page instead of ``on_progress``.

    Raises:
        MergelineError: What a shard fails with; finished shards stay.
    """
    del on_progress
    execute = prepared.pipeline.settings.execute
    if execute.engine == "ray":
        return merge_on_ray(job, execute.device, execute.resolved_ray_address)
    if execute.engine == "workers":
        return merge_on_workers(job, execute.device)
    return merge_on_threads(job, prepared.devices)


def require_executor(execute: Execute) -> None:
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
