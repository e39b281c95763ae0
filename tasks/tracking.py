"""Prefect tasks: the merge's run in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from mergeline import tracking
from mergeline.tracking import TrackedRun, TrackingSettings


@task(name="open-run", tags=["cpu"], cache_policy=NO_CACHE)
def open_run(settings: TrackingSettings, plan_digest: str, name: str, tags: Mapping[str, str]) -> TrackedRun:
    """Find or create the plan's run, so that the model card can name it; see :func:`mergeline.tracking.open_run`."""
    run = tracking.open_run(settings, plan_digest=plan_digest, name=name, tags=tags)
    if run.url is not None:
        create_link_artifact(run.url, key="mlflow-run", link_text=f"{name} in MLflow")
    return run


@task(name="track", tags=["cpu"], cache_policy=NO_CACHE)
def record_merge(run: TrackedRun, settings: TrackingSettings, records: Mapping[str, Any]) -> None:
    """Record everything that is known of the merge; see :func:`mergeline.tracking.record_merge`."""
    tracking.record_merge(run, settings, **records)


@task(name="track-failure", tags=["cpu"], cache_policy=NO_CACHE)
def fail_run(run: TrackedRun, settings: TrackingSettings, reason: str) -> None:
    """End the run as failed; see :func:`mergeline.tracking.fail_run`."""
    tracking.fail_run(run, settings, reason)
