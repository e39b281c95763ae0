"""A whole merge: planned, fetched, merged shard by shard, assembled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mergeline.merge.assembly import assemble
from mergeline.merge.job import Executor, MergeJob, merge_here
from mergeline.merge.manifest import Manifest
from mergeline.merge.shard import ONE_WORKER, Progress, Resources, ShardResult
from mergeline.merge.workspace import finished_output, open_workspace
from mergeline.plan.merge_plan import MergePlan
from mergeline.plan.planning import DEFAULT_MAX_SHARD_BYTES, PlannedMerge, plan_recipe
from mergeline.recipe.recipe import Recipe
from mergeline.sources.checkpoint import fetch
from mergeline.sources.hub import Hub
from mergeline.support.calling import Call, call_directly


@dataclass(frozen=True)
class MergedModel:
    """A finished model directory."""

    directory: Path
    plan: MergePlan
    manifest: Manifest
    results: tuple[ShardResult, ...]
    """Empty where the directory was already complete."""


def merge_planned(
    planned: PlannedMerge,
    output: Path,
    fetch_sources: Callable[[], Sequence[Path]] | None = None,
    executor: Executor = merge_here,
    links: Mapping[str, str] = MappingProxyType({}),
    call: Call = call_directly,
) -> MergedModel:
    """Merge what is planned into a local model directory, continuing whatever an earlier run left.

    Args:
        planned: The plan and the recipe it was made from.
        output: Directory to create; appears only when it is complete.
        fetch_sources: Returns the directory of each of the plan's sources; called only if there is something to merge.
            None: they are fetched from the environment's Hub.
        executor: Merges the shards.
        links: Other records of this merge, kept in the manifest of one that is made now.
        call: Calls :func:`assemble`.

    Raises:
        MergelineError: Of the kinds :mod:`mergeline.errors` lists.
    """
    plan = planned.plan
    finished = finished_output(plan, output)
    if finished is not None:
        return MergedModel(output, plan, finished, ())
    with open_workspace(plan, output) as workspace:
        fetched = fetch_sources() if fetch_sources else [fetch(checkpoint, Hub()) for checkpoint in planned.checkpoints]
        sources = tuple(fetched)
        results = executor(MergeJob(plan, workspace.plan_file, sources, plan.shards))
        manifest = call(assemble, plan, results, planned.recipe_text, sources[plan.donor], workspace, links)
    return MergedModel(output, plan, manifest, results)


def merge_recipe(
    recipe: Path | Recipe,
    output: Path,
    *,
    hub: Hub | None = None,
    max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES,
    resources: Resources = ONE_WORKER,
    on_progress: Progress = lambda nbytes: None,
) -> MergedModel:
    """Merge a recipe into a local model directory, continuing whatever an earlier run left.

    Args:
        recipe: YAML file, or the recipe itself.
        output: Directory to create; appears only when it is complete.
        hub: Where Hub ids are looked up; the environment's Hub by default.
        max_shard_bytes: Largest output file.
        resources: Devices, workers and memory.
        on_progress: Called as bytes are written.

    Raises:
        MergelineError: Of the kinds :mod:`mergeline.errors` lists.
    """
    hub = hub or Hub()
    planned = plan_recipe(recipe, hub=hub, max_shard_bytes=max_shard_bytes)
    return merge_planned(
        planned,
        output,
        lambda: [fetch(checkpoint, hub) for checkpoint in planned.checkpoints],
        lambda job: merge_here(job, resources, on_progress),
    )
