"""Prefect tasks: the merge's run in MLflow, which may be away without holding anything up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from mergeline import tracking
from mergeline.errors import MergelineError, TrackingError
from mergeline.tracking.record import MergeRecord
from mergeline.tracking.runs import TrackedRun
from mergeline.tracking.store import TrackingSettings


@task(name="open-run", tags=["cpu"], cache_policy=NO_CACHE)
def open_run(settings: TrackingSettings, plan_digest: str, name: str, tags: Mapping[str, str]) -> TrackedRun | None:
    """Find or create the plan's run; see :func:`mergeline.tracking.runs.open_run`. None: MLflow does not answer."""
    try:
        run = tracking.open_run(settings, plan_digest=plan_digest, name=name, tags=tags)
    except TrackingError as error:
        get_run_logger().warning("%s The merge goes on and is recorded later.", error)
        return None
    _show(run, settings, name)
    return run


@task(name="track", tags=["cpu"], cache_policy=NO_CACHE)
def record_merge(settings: TrackingSettings, record: MergeRecord, is_shown: bool) -> TrackedRun | None:
    """Keep everything that is known of the merge, then send it; see :mod:`mergeline.tracking.outbox`.

    Args:
        settings: Where to.
        record: What is known.
        is_shown: Whether the flow run's page leads to the run already.
    """
    path = tracking.keep_record(settings, record)
    try:
        run = tracking.send_record(path, settings)
    except MergelineError as error:
        get_run_logger().warning("%s The record waits in %s; `mergeline track --replay` sends it.", error, path)
        return None
    if not is_shown:
        _show(run, settings, record.name)
    return run


@task(name="track-failure", tags=["cpu"], cache_policy=NO_CACHE)
def fail_run(run: TrackedRun | None, settings: TrackingSettings, reason: str) -> None:
    """End the run, if there is one, as failed; see :func:`mergeline.tracking.runs.fail_run`."""
    if run is not None:
        tracking.fail_run(run, settings, reason)


def _show(run: TrackedRun, settings: TrackingSettings, name: str) -> None:
    """Lead from the flow run to MLflow: by a link, or by the run's id where no server shows it."""
    if run.url is not None:
        create_link_artifact(run.url, key="mlflow-run", link_text=f"{name} in MLflow")
    else:
        text = f"{name} is run `{run.run_id}` of experiment `{settings.experiment}`: `mergeline lineage {run.run_id}`"
        create_markdown_artifact(text, key="mlflow-run")


def show_report_pages(run: TrackedRun | None, pages: Sequence[Path]) -> None:
    """Lead from the flow run to its evaluations as pages: in MLflow where a server shows them, else to the files."""
    for page in pages:
        task = page.parent.name
        key = f"report-{re.sub('[^a-z0-9]+', '-', task.lower()).strip('-')}"
        if run is not None and run.url is not None:
            address, _, query = run.url.partition("?")
            url = f"{address}/artifacts/evaluation/{task}/{page.name}?{query}"
            create_link_artifact(url, key=key, link_text=f"The evaluation on {task} as a page")
        else:
            create_markdown_artifact(f"The evaluation on {task} as a page: `{page}`", key=key)
