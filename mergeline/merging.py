"""A whole merge on this machine in one call: the steps that the flow runs as Prefect tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mergeline.checkpoint import Checkpoint, fetch, open_checkpoint
from mergeline.errors import InputError
from mergeline.execute import Progress, ShardResult, merge_shard
from mergeline.hub import Hub
from mergeline.lineage import Manifest
from mergeline.plan import DEFAULT_MAX_SHARD_BYTES, MergePlan, plan_merge
from mergeline.recipe import Recipe, read_recipe, read_text
from mergeline.workspace import assemble, finished_output, open_workspace


@dataclass(frozen=True)
class PlannedMerge:
    """A recipe with everything it refers to pinned, and the plan made of it."""

    recipe_text: str
    plan: MergePlan
    checkpoints: tuple[Checkpoint, ...]
    """In the order of ``plan.sources``."""


@dataclass(frozen=True)
class MergedModel:
    """A finished model directory."""

    directory: Path
    plan: MergePlan
    manifest: Manifest
    results: tuple[ShardResult, ...]
    """Empty where the directory was already complete."""


def resolve_sources(recipe: Recipe, hub: Hub) -> dict[str, Checkpoint]:
    """Pin every model a recipe names and read its headers; all that cannot be read is reported at once."""
    checkpoints: dict[str, Checkpoint] = {}
    problems: list[InputError] = []
    for reference in recipe.references():
        try:
            checkpoints[reference] = open_checkpoint(reference, hub)
        except InputError as problem:
            problems.append(problem)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InputError([line for problem in problems for line in problem.problems])
    return checkpoints


def plan_recipe(
    recipe_text: str, origin: str, hub: Hub, max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES
) -> PlannedMerge:
    """Read a recipe, pin its sources and plan the merge, without moving a weight.

    Raises:
        InputError: With one line per problem.
    """
    recipe = read_recipe(recipe_text, origin)
    checkpoints = resolve_sources(recipe, hub)
    plan = plan_merge(recipe, checkpoints, max_shard_bytes=max_shard_bytes)
    return PlannedMerge(recipe_text, plan, tuple(checkpoints[name] for name in recipe.references()))


def merge_recipe(
    recipe: Path,
    output: Path,
    *,
    hub: Hub,
    max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES,
    devices: Sequence[str] = ("cpu",),
    workers: int = 1,
    on_planned: Callable[[MergePlan], Progress] = lambda plan: lambda nbytes: None,
) -> MergedModel:
    """Merge a recipe into a local model directory, continuing whatever an earlier run left.

    Args:
        recipe: YAML file.
        output: Directory to create; appears only when it is complete.
        hub: Where Hub ids are looked up.
        max_shard_bytes: Largest output file.
        devices: Where the arithmetic runs, ``cpu`` or ``cuda:n`` each.
        workers: Threads that merge tensors.
        on_planned: Given the plan before the first weight is read; returns what is told of progress.

    Raises:
        MergelineError: Of the kinds :mod:`mergeline.errors` lists.
    """
    planned = plan_recipe(read_text(recipe, InputError, "recipe"), str(recipe), hub, max_shard_bytes)
    plan = planned.plan
    finished = finished_output(plan, output)
    progress = on_planned(plan)
    if finished is not None:
        return MergedModel(output, plan, finished, ())
    with open_workspace(plan, output) as workspace:
        sources = [fetch(checkpoint, hub) for checkpoint in planned.checkpoints]
        results = tuple(
            merge_shard(plan, shard, sources, workspace.partial, devices=devices, workers=workers, on_progress=progress)
            for shard in plan.shards
        )
        manifest = assemble(plan, results, planned.recipe_text, sources[plan.donor], workspace)
    return MergedModel(output, plan, manifest, results)
