"""Prefect tasks: bring checkpoints or a set of questions onto this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from mergeline.pipeline import preflight, steps
from mergeline.pipeline.preflight import Questions
from mergeline.sources.checkpoint import Checkpoint
from mergeline.sources.hub import Hub
from tasks.retrying import HUB_RETRIES


@task(
    name="fetch-checkpoint",
    task_run_name="fetch {checkpoint.label}",
    tags=["cpu"],
    cache_policy=NO_CACHE,
    **HUB_RETRIES,
)
def fetch_checkpoint(checkpoint: Checkpoint, hub: Hub) -> Path:
    """Download a checkpoint's files at its pinned commit; see :func:`mergeline.pipeline.steps.fetch_checkpoint`."""
    return steps.fetch_checkpoint(checkpoint, hub)


def fetch_checkpoints(checkpoints: Sequence[Checkpoint], hub: Hub) -> tuple[Path, ...]:
    """Download checkpoints side by side, one Prefect task each; the directories are in their order."""
    futures = [fetch_checkpoint.submit(checkpoint, hub) for checkpoint in checkpoints]
    return tuple(future.result() for future in futures)


@task(name="fetch-questions", tags=["cpu"], cache_policy=NO_CACHE, **HUB_RETRIES)
def fetch_questions(questions: Questions, hub: Hub) -> Path | None:
    """Download a dataset repository; see :func:`mergeline.pipeline.preflight.fetch_questions`."""
    return preflight.fetch_questions(questions, hub)
