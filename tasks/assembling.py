"""Prefect tasks: complete a model directory around its shards, and check it."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from mergeline.merge import assembly
from mergeline.merge.geometry import angle_table, read_geometry, summarize
from mergeline.merge.merging import MergedModel
from mergeline.merge.verification import Verification
from mergeline.pipeline import steps

assemble = task(assembly.assemble, name="assemble", tags=["cpu"], cache_policy=NO_CACHE)


@task(name="verify", tags=["cpu"], cache_policy=NO_CACHE)
def verify(merged: MergedModel) -> Verification:
    """Compare every file with the manifest and show the geometry; see :func:`mergeline.pipeline.steps.verify`."""
    verification = steps.verify(merged)
    get_run_logger().info(
        "%s: %d files and %d tensors as planned", merged.directory, verification.file_count, verification.tensor_count
    )
    _show_geometry(merged)
    return verification


def _show_geometry(merged: MergedModel) -> None:
    """Show norms, angles and distances between inputs and result on the run's page, as measured while merging."""
    geometry = read_geometry(merged.directory)
    sentences = summarize(merged.plan, geometry)
    if sentences:
        create_markdown_artifact(
            # Fenced: the page lets a wide table run into what stands beside it.
            "\n\n".join([*sentences, "Angles in degrees:", f"```\n{angle_table(geometry)}\n```"]),
            key="geometry",
            description="How the models lie to each other",
        )
