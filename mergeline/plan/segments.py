"""The recipe's slices, checked against method and checkpoints, with the base model first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mergeline.methods import BaseModelRule, MergeMethod
from mergeline.plan.problems import Problems
from mergeline.recipe.recipe import Parameters, Recipe, Slice, Source
from mergeline.sources.architecture import layer_count, place_of
from mergeline.sources.checkpoint import Checkpoint
from mergeline.support.yaml_document import did_you_mean


@dataclass(frozen=True)
class Segment:
    """Consecutive output layers that are merged from the same sources."""

    sources: tuple[Source, ...]
    """The base model first, otherwise in the recipe's order; the output's shapes are the first source's."""
    parameters: Parameters
    layers: int
    """How many."""
    has_origin: bool
    """Whether the method takes differences of the other sources from the first."""


def models_as_slice(recipe: Recipe, checkpoints: Mapping[str, Checkpoint], problems: Problems) -> tuple[Slice, ...]:
    """Return the ``models:`` of a recipe as a slice over all layers, an unlisted base model as its first source."""
    listed = {model.model: model.parameters for model in recipe.models or ()}
    if recipe.base_model and recipe.base_model not in listed:
        listed = {recipe.base_model: {}} | listed
    counts = {name: _layers_of(checkpoints[name]) for name in listed}
    if 0 in counts.values():
        layerless = min(counts, key=lambda name: counts[name])
        problems.add(f"{layerless}: no tensor name shows a numbered layer; such models are not supported yet.")
        return ()
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        problems.add(f"models: all models need equally many layers, found {shown}; use `slices` to pick layers.")
        return ()
    sources = tuple(
        Source(model=name, layer_range=(0, counts[name]), parameters=parameters) for name, parameters in listed.items()
    )
    return (Slice(sources=sources),)


def _layers_of(checkpoint: Checkpoint) -> int:
    """Return how many layers a checkpoint has: as its config states, or as its tensor names show."""
    stated = layer_count(checkpoint.config)
    if stated is not None:
        return stated
    layers = [place.layer for place in map(place_of, checkpoint.tensors) if place.layer is not None]
    return max(layers, default=-1) + 1


def checked_segment(
    recipe: Recipe, method: MergeMethod, slice_: Slice, where: str, checkpoints: Mapping[str, Checkpoint],
    problems: Problems,
) -> Segment | None:  # fmt: skip
    """Check a slice against the method and its models; None, with problems added, if it does not fit."""
    models = [source.model for source in slice_.sources]
    base = slice_.base_model or recipe.base_model
    if len(set(models)) < len(models):
        problems.add(f"{where}: {max(models, key=models.count)!r} is listed twice; list every model once.")
    low, high = method.min_models, method.max_models
    has_origin = base is not None and method.base_model in (BaseModelRule.ORIGIN, BaseModelRule.OPTIONAL_ORIGIN)
    merged = [model for model in models if not (has_origin and model == base)]
    if len(merged) < low or (high is not None and len(merged) > high):
        expected = f"exactly {low}" if low == high else f"at least {low}" if high is None else f"{low} to {high}"
        plural = "" if expected in ("exactly 1", "at least 1") else "s"
        beside = " beside the base model" if has_origin else ""
        found = f"{len(merged)}: {', '.join(merged)}" if merged else "none"
        problems.add(f"{where}: {method.name} merges {expected} model{plural}{beside}, found {found}.")
    if base is None and method.base_model in (BaseModelRule.FIRST_INPUT, BaseModelRule.ORIGIN):
        problems.add(f"base_model: {method.name} needs to know where it starts from; add `base_model: {models[0]}`.")
    # A method that does no arithmetic with the base model may take its config from another slice's model.
    is_elsewhere = method.base_model is BaseModelRule.DONOR and _is_named(recipe, base)
    if base is not None and base not in models and not is_elsewhere:
        problems.add(f"{where}: base_model {base!r} is not among its models ({', '.join(models)}); name one of them.")
    for index, source in enumerate(slice_.sources):
        count = _layers_of(checkpoints[source.model])
        if source.layer_range[1] > count:
            problems.add(
                f"{where}.sources[{index}].layer_range: {list(source.layer_range)} reaches beyond {source.model}, "
                f"which has {count} layers; end at {count} or before."
            )
    if problems:
        return None
    sources = sorted(slice_.sources, key=lambda source: source.model != base)
    first, end = slice_.sources[0].layer_range
    return Segment(tuple(sources), slice_.parameters, end - first, has_origin)


def _is_named(recipe: Recipe, base: str | None) -> bool:
    """Whether some slice of the recipe takes layers from ``base``."""
    return any(source.model == base for slice_ in recipe.slices or () for source in slice_.sources)


def check_parameter_names(recipe: Recipe, method: MergeMethod, problems: Problems) -> None:
    """Add a problem for each parameter that the method does not read, which would be ignored silently."""
    known = {parameter.name: parameter for parameter in method.parameters}

    def check(where: str, parameters: Parameters, in_model: bool) -> None:
        for name in parameters:
            if name not in known:
                problems.add(f"{where}.{name}: {method.name} has no such parameter.{did_you_mean(name, known)}")
            elif in_model and not known[name].per_model:
                problems.add(f"{where}.{name}: one value for all models is needed; move it to `parameters` at the top.")

    check("parameters", recipe.parameters, False)
    for i, model in enumerate(recipe.models or ()):
        check(f"models[{i}].parameters", model.parameters, True)
    for i, slice_ in enumerate(recipe.slices or ()):
        check(f"slices[{i}].parameters", slice_.parameters, False)
        for j, source in enumerate(slice_.sources):
            check(f"slices[{i}].sources[{j}].parameters", source.parameters, True)
