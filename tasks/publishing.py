"""Prefect task: put a finished merge on the Hub."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from mergeline.evaluation.results import EvaluationReport, Sample
from mergeline.merge.merging import MergedModel
from mergeline.pipeline import steps
from mergeline.pipeline.preflight import PreparedPipeline
from mergeline.publish.publication import Publication
from mergeline.sources.hub import Hub
from tasks.retrying import HUB_RETRIES


@task(name="publish", task_run_name="publish {prepared.repo_id}", tags=["cpu"], cache_policy=NO_CACHE, **HUB_RETRIES)
def publish(
    prepared: PreparedPipeline,
    merged: MergedModel,
    reports: Sequence[EvaluationReport],
    samples: Sequence[Sample],
    is_private: bool,
    hub: Hub,
) -> Publication:
    """Commit the merge, once; see :func:`mergeline.pipeline.steps.publish`."""
    published = steps.publish(prepared, merged, reports, samples, is_private, hub)
    create_link_artifact(published.url, key="hub-commit", link_text=f"{published.repo_id} on the Hub")
    return published
