"""A plan as text to read: plain, and at the same time Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from mergeline.methods import METHODS
from mergeline.plan.licences import result_licence
from mergeline.plan.memory import working_set_nbytes
from mergeline.plan.merge_plan import MergePlan, TensorPlan
from mergeline.recipe.parameters import first_match
from mergeline.recipe.recipe import Conditional, Parameters, Recipe
from mergeline.sources.architecture import place_of
from mergeline.support.text import count, size, table


def describe_plan(plan: MergePlan, workers: int = 1) -> str:
    """Describe a plan: sources, output, numbers per layer and filter, memory, licence, notes."""
    licence = result_licence([source.license for source in plan.sources])
    lines = [
        f"Merge       {plan.merge_method} of {len(plan.sources)} models, "
        f"{count(plan.parameter_count)} parameters in {plan.tensor_count} tensors",
        f"Plan        {plan.digest}",
        f"Reads       {size(plan.read_nbytes)} of weights",
        f"Writes      {size(plan.output_nbytes)} in {len(plan.shards)} shard{'s' if len(plan.shards) > 1 else ''}",
        f"Memory      about {size(working_set_nbytes(plan, workers))} at the most ({workers} "
        f"worker{'s' if workers > 1 else ''})",
        f"Licence     {licence.identifier}" + "".join(f"; {reason}" for reason in licence.reasons),
        "",
        *_sources(plan),
        "",
        *table(
            ("shard", "tensors", "bytes"),
            [(s.filename, str(len(s.tensors)), f"{plan.shard_nbytes(s):,}") for s in plan.shards],
        ),
        *_numbers(plan),
    ]
    if plan.notes:
        lines += ["", "Notes", *(f"- {note}" for note in plan.notes)]
    return "\n".join(lines)


def _sources(plan: MergePlan) -> list[str]:
    rows = [
        (
            source.label + (" (base)" if index == plan.donor else ""),
            source.commit[:12] if source.commit else "local",
            source.license or "not stated",
            size(sum(file.nbytes for file in source.files)),
        )
        for index, source in enumerate(plan.sources)
    ]
    return table(("source", "commit", "licence", "weights"), rows)


def _numbers(plan: MergePlan) -> list[str]:
    """Tabulate the value of each of the method's parameters, a row per layer and a column per model and filter."""
    recipe = Recipe.model_validate(plan.recipe)
    lines: list[str] = []
    for parameter in METHODS[plan.merge_method].parameters:
        scopes = _scopes(recipe)
        if not any(parameter.name in scope for scope in scopes):
            continue
        models = range(len(plan.sources)) if parameter.per_model else (None,)
        columns = [(model, condition) for model in models for condition in _filters(scopes, parameter.name)]
        rows: dict[str, dict[tuple[int | None, str | None], str]] = {}
        for tensor in (tensor for shard in plan.shards for tensor in shard.tensors if not tensor.is_copied):
            place = place_of(tensor.name)
            row = tensor.name if place.layer is None else f"layer {place.layer}"
            for model in models:
                number, name = _number(tensor, parameter.name, model)
                if number is not None:
                    condition = first_match(scopes, parameter.name, name)
                    rows.setdefault(row, {})[model, _key(condition)] = f"{number:.4g}"
        used = [column for column in columns if any(column in row for row in rows.values())]
        heads = [_heading(plan, model, condition) for model, condition in used]
        body = [(row, *(cells.get(column, "-") for column in used)) for row, cells in rows.items()]
        lines += ["", *table((f"`{parameter.name}`", *heads), body)]
    return lines


def _number(tensor: TensorPlan, name: str, model: int | None) -> tuple[float | bool | None, str]:
    """Return a tensor's value of a parameter (for one model), and the tensor name its filters were matched with."""
    if model is None:
        return tensor.settings.get(name), tensor.name
    for item in tensor.inputs:
        if item.source == model:
            return item.settings.get(name), item.spec.name
    return None, tensor.name


def _scopes(recipe: Recipe) -> list[Parameters]:
    """Return all parameter settings of a recipe, the most specific first."""
    slices = recipe.slices or ()
    specific = [source.parameters for slice_ in slices for source in slice_.sources]
    specific += [model.parameters for model in recipe.models or ()]
    return [*specific, *(slice_.parameters for slice_ in slices), recipe.parameters]


def _filters(scopes: Sequence[Parameters], name: str) -> list[str | None]:
    """Return the filters under which a parameter is set, in the order written."""
    return list(dict.fromkeys(_key(conditional) for scope in scopes for conditional in scope.get(name, ())))


def _key(conditional: Conditional | None) -> str | None:
    return None if conditional is None or conditional.filter == "*" else conditional.filter


def _heading(plan: MergePlan, model: int | None, condition: str | None) -> str:
    words = [] if model is None else [plan.sources[model].label]
    return ", ".join([*words, condition or "others"])
