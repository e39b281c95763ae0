"""Prefect tasks: bring a checkpoint or a set of questions onto this machine."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from mergeline.pipeline import preflight
from mergeline.sources import checkpoint as checkpoints
from mergeline.sources.checkpoint import Checkpoint
from mergeline.sources.hub import Hub, PinnedRepository
from tasks.retrying import HUB_RETRIES


@task(
    name="fetch-checkpoint",
    task_run_name="fetch {checkpoint.label}",
    tags=["cpu"],
    cache_policy=NO_CACHE,
    **HUB_RETRIES,
)
def fetch_checkpoint(checkpoint: Checkpoint) -> Path:
    """Download a checkpoint's files at its pinned commit; see :func:`mergeline.sources.checkpoint.fetch`."""
    return checkpoints.fetch(checkpoint, Hub())


@task(name="fetch-questions", tags=["cpu"], cache_policy=NO_CACHE, **HUB_RETRIES)
def fetch_questions(questions: Path | PinnedRepository | None) -> Path | None:
    """Download a dataset repository; see :func:`mergeline.pipeline.preflight.fetch_questions`."""
    return preflight.fetch_questions(questions, Hub())
