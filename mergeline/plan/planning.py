"""From a recipe to the plan of its merge, read from the headers of the sources alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mergeline.errors import InputError, MissingTensorError, PlanError, ShapeMismatchError
from mergeline.methods import METHODS
from mergeline.plan.inputs import TensorDraft, draft_tensors
from mergeline.plan.merge_plan import MergePlan, ShardPlan, TensorInput, TensorPlan
from mergeline.plan.output_config import output_config
from mergeline.plan.problems import Problems
from mergeline.plan.shard_layout import pack, shard_filename
from mergeline.recipe.recipe import Recipe, read_recipe
from mergeline.sources.checkpoint import Checkpoint, open_checkpoint
from mergeline.sources.hub import Hub
from mergeline.support.dtypes import BITS, SAFETENSORS_NAMES, RecipeDtype
from mergeline.support.text import read_text
from mergeline.support.yaml_document import did_you_mean

DEFAULT_MAX_SHARD_BYTES = 5 * 10**9


def plan_merge(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], *, max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES
) -> MergePlan:
    """Decide everything about a merge from the recipe and the checkpoints' headers.

    Args:
        recipe: What to merge.
        checkpoints: One per entry of ``recipe.references()``.
        max_shard_bytes: Largest output file, in bytes; a single larger tensor still gets a file of its own.

    Raises:
        PlanError: With one line per problem; :class:`MissingTensorError` or :class:`ShapeMismatchError` where all
            problems are of that kind.
    """
    method = METHODS.get(recipe.merge_method)
    if method is None:
        raise PlanError(
            f"merge_method: unknown method {recipe.merge_method!r}.{did_you_mean(recipe.merge_method, METHODS)}"
        )
    order = recipe.references()
    problems = Problems()
    draft = draft_tensors(recipe, method, checkpoints, problems)
    if draft is not None and not problems:
        config = output_config(recipe, [checkpoints[name] for name in order], draft, problems)
        if not problems:
            donor = checkpoints[draft.donor]
            return MergePlan(
                merge_method=recipe.merge_method,
                recipe=recipe.model_dump(mode="json", exclude_defaults=True),
                sources=tuple(checkpoints[name].identity for name in order),
                donor=order.index(draft.donor),
                shards=_shards(draft.tensors, order, recipe.output_dtype, max_shard_bytes),
                config=config,
                copied_files=tuple(name for name in donor.auxiliary_files if name != "config.json"),
                notes=tuple(problems.notes),
            )
    raise _error(problems)


def _shards(
    drafts: list[TensorDraft], order: tuple[str, ...], output_dtype: RecipeDtype | None, max_shard_bytes: int
) -> tuple[ShardPlan, ...]:
    """Give every tensor its dtype, size, shard and offset."""
    sized = [_tensor(draft, order, output_dtype) for draft in drafts]
    shards = pack(sized, max_shard_bytes)
    return tuple(
        ShardPlan(shard_filename(index, len(shards)), _placed(tensors)) for index, tensors in enumerate(shards)
    )


def _tensor(draft: TensorDraft, order: tuple[str, ...], output_dtype: RecipeDtype | None) -> TensorPlan:
    first = draft.inputs[0].spec
    dtype = first.dtype if draft.is_copied or output_dtype is None else SAFETENSORS_NAMES[output_dtype]
    return TensorPlan(
        name=draft.name,
        dtype=dtype,
        shape=first.shape,
        offset=0,
        nbytes=math.prod(first.shape) * BITS[dtype] // 8,
        inputs=tuple(TensorInput(order.index(item.source), item.spec, item.settings) for item in draft.inputs),
        settings=draft.settings,
        has_origin=draft.has_origin,
        common_rows=draft.common_rows,
        is_copied=draft.is_copied,
    )


def _placed(tensors: list[TensorPlan]) -> tuple[TensorPlan, ...]:
    """Lay tensors end to end; wider dtypes first, so that every tensor is aligned to its own element size."""
    placed: list[TensorPlan] = []
    offset = 0
    for tensor in sorted(tensors, key=lambda tensor: -BITS[tensor.dtype]):
        placed.append(replace(tensor, offset=offset))
        offset += tensor.nbytes
    return tuple(placed)


def _error(problems: Problems) -> PlanError:
    kinds, lines = set(problems.kinds.values()), list(problems.kinds)
    if kinds == {"shape"}:
        return ShapeMismatchError(lines)
    if kinds == {"missing"}:
        return MissingTensorError(lines)
    return PlanError(lines)


@dataclass(frozen=True)
class PlannedMerge:
    """A recipe, its sources pinned to a commit, and the plan of their merge."""

    recipe_text: str
    plan: MergePlan
    checkpoints: tuple[Checkpoint, ...]
    """In the order of ``plan.sources``."""


def resolve_sources(recipe: Recipe, hub: Hub) -> dict[str, Checkpoint]:
    """Pin every model a recipe names and read its headers; what cannot be read is reported together."""
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
    recipe: str | Path | Recipe,
    origin: str = "recipe",
    hub: Hub | None = None,
    max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES,
) -> PlannedMerge:
    """Read a recipe, pin its sources and plan the merge, without moving a weight.

    Args:
        recipe: Its YAML text, the path of a YAML file, or the recipe itself.
        origin: What messages call a text.
        hub: Where Hub ids are looked up; the environment's Hub by default.
        max_shard_bytes: Largest output file, in bytes.

    Raises:
        InputError: With one line per problem.
    """
    if isinstance(recipe, Path):
        recipe, origin = read_text(recipe, InputError, "recipe"), str(recipe)
    text = recipe if isinstance(recipe, str) else recipe.as_yaml()
    read = read_recipe(text, origin)
    checkpoints = resolve_sources(read, hub or Hub())
    plan = plan_merge(read, checkpoints, max_shard_bytes=max_shard_bytes)
    return PlannedMerge(text, plan, tuple(checkpoints[name] for name in read.references()))
