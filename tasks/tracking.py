"""Prefect tasks: the merge's run in MLflow, which may be away without holding anything up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from mergeline.pipeline import steps
from mergeline.pipeline.preflight import PreparedPipeline
from mergeline.pipeline.record import tracked_name, tracking_settings
from mergeline.tracking.record import MergeRecord
from mergeline.tracking.runs import TrackedRun


@task(name="open-run", tags=["cpu"], cache_policy=NO_CACHE)
def open_run(prepared: PreparedPipeline, tags: Mapping[str, str]) -> TrackedRun | None:
    """Find or create the plan's run; see :func:`mergeline.pipeline.steps.open_run`."""
    return steps.open_run(prepared, tags, get_run_logger().warning)


@task(name="track", tags=["cpu"], cache_policy=NO_CACHE)
def record_merge(prepared: PreparedPipeline, merge_record: MergeRecord) -> TrackedRun | None:
    """Keep everything known of the merge, then send it; see :func:`mergeline.pipeline.steps.record`."""
    return steps.record(prepared, merge_record, get_run_logger().warning)


fail_run = task(steps.fail_run, name="track-failure", tags=["cpu"], cache_policy=NO_CACHE)


def show_run(prepared: PreparedPipeline, run: TrackedRun) -> None:
    """Lead from the flow run to MLflow: by a link, or by the run's id where no server shows it."""
    name = tracked_name(prepared)
    if run.url is not None:
        create_link_artifact(run.url, key="mlflow-run", link_text=f"{name} in MLflow")
    else:
        experiment = tracking_settings(prepared).experiment
        text = f"{name} is run `{run.run_id}` of experiment `{experiment}`: `mergeline lineage {run.run_id}`"
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
