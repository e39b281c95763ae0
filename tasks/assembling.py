"""Prefect tasks: complete a model directory around its shards, and check it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from mergeline import verify as verification
from mergeline import workspace as workspaces
from mergeline.execute import ShardResult
from mergeline.lineage import Manifest
from mergeline.merging import PlannedMerge
from mergeline.verify import Verification
from mergeline.workspace import Workspace


@task(name="assemble", tags=["cpu"], cache_policy=NO_CACHE)
def assemble(
    planned: PlannedMerge,
    results: Sequence[ShardResult],
    donor: Path,
    workspace: Workspace,
    links: Mapping[str, str],
) -> Manifest:
    """Write config, tokenizer, index and manifest; see :func:`mergeline.workspace.assemble`."""
    return workspaces.assemble(planned.plan, results, planned.recipe_text, donor, workspace, links)


@task(name="verify", tags=["cpu"], cache_policy=NO_CACHE)
def verify(directory: Path) -> Verification:
    """Hash every file and compare it with the manifest; see :func:`mergeline.verify.verify_directory`."""
    found = verification.verify_directory(directory)
    get_run_logger().info("%s: %d files and %d tensors as planned", directory, found.file_count, found.tensor_count)
    return found
