"""Prefect tasks: complete a model directory around its shards, and check it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from mergeline.merge import verification
from mergeline.merge import workspace as workspaces
from mergeline.merge.geometry import heat_map, read_geometry, summarize
from mergeline.merge.manifest import Manifest
from mergeline.merge.shard import ShardResult
from mergeline.merge.verification import Verification
from mergeline.merge.workspace import Workspace
from mergeline.plan.merge_plan import MergePlan
from mergeline.plan.planning import PlannedMerge


@task(name="assemble", tags=["cpu"], cache_policy=NO_CACHE)
def assemble(
    planned: PlannedMerge,
    results: Sequence[ShardResult],
    donor: Path,
    workspace: Workspace,
    links: Mapping[str, str],
) -> Manifest:
    """Write config, tokenizer, index and manifest; see :func:`mergeline.merge.assembly.assemble`."""
    return workspaces.assemble(planned.plan, results, planned.recipe_text, donor, workspace, links)


@task(name="verify", tags=["cpu"], cache_policy=NO_CACHE)
def verify(directory: Path) -> Verification:
    """Hash every file and compare it with the manifest; see :func:`mergeline.merge.verification.verify_directory`."""
    found = verification.verify_directory(directory)
    get_run_logger().info("%s: %d files and %d tensors as planned", directory, found.file_count, found.tensor_count)
    return found


def show_geometry(plan: MergePlan, directory: Path) -> None:
    """Show on the run's page how the models lie to each other, as measured while merging."""
    geometry = read_geometry(directory)
    sentences = summarize(plan, geometry)
    if sentences:
        create_markdown_artifact(
            # Fenced: the page lets a wide table run into what stands beside it.
            "\n\n".join([*sentences, "Angles in degrees:", f"```\n{heat_map(geometry)}\n```"]),
            key="geometry",
            description="How the models lie to each other",
        )
