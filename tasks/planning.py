"""Prefect task: look up everything a pipeline names and plan its merge."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from mergeline.pipeline import steps
from mergeline.pipeline.language import LoadedPipeline
from mergeline.pipeline.preflight import PreparedPipeline
from mergeline.plan.text import describe_plan
from mergeline.sources.hub import Hub
from tasks.retrying import HUB_RETRIES


@task(name="plan", tags=["cpu"], cache_policy=NO_CACHE, **HUB_RETRIES)
def plan(pipeline: LoadedPipeline, hub: Hub) -> PreparedPipeline:
    """Pin the sources and plan the merge; see :func:`mergeline.pipeline.steps.prepare`."""
    prepared = steps.prepare(pipeline, hub)
    create_markdown_artifact(
        f"```\n{describe_plan(prepared.planned.plan)}\n```", key="merge-plan", description=pipeline.settings.name
    )
    return prepared
