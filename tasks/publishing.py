"""Prefect task: put a finished merge on the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from mergeline.publish.publication import Publication, publish_directory
from mergeline.sources.hub import Hub
from tasks.retrying import HUB_RETRIES


@task(name="publish", task_run_name="publish {repo_id}", tags=["cpu"], cache_policy=NO_CACHE, **HUB_RETRIES)
def publish(
    directory: Path, repo_id: str, plan_digest: str, private: bool, extra_files: Mapping[str, bytes]
) -> Publication:
    """Commit the directory, once; see :func:`mergeline.publish.publication.publish_directory`."""
    published = publish_directory(
        directory, repo_id, hub=Hub(), plan_digest=plan_digest, private=private, extra_files=extra_files
    )
    create_link_artifact(published.url, key="hub-commit", link_text=f"{published.repo_id} on the Hub")
    return published
