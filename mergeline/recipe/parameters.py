"""Scalar, gradient and filtered settings resolved to one number per tensor and model."""

from __future__ import annotations

from collections.abc import Sequence

from mergeline.recipe.recipe import Conditional, Parameters, Recipe, Scalar


def gradient_position(local_layer: int, layer_count: int) -> float:
    """Return how far along its slice a layer stands, in [0, 1]; the only layer of a slice stands at 1."""
    return local_layer / (layer_count - 1) if layer_count > 1 else 1.0


def interpolate(values: Sequence[Scalar], position: float) -> Scalar:
    """Return the value at ``position`` in [0, 1] of a gradient spread evenly over its slice.

    Numbers are interpolated linearly between neighbours; flags are not, they switch.
    """
    scaled = position * (len(values) - 1)
    lower = int(scaled)
    left = values[lower]
    right = values[min(len(values) - 1, lower + 1)]
    if isinstance(left, bool | str) or isinstance(right, bool | str):
        return left
    fraction = scaled - lower
    return (1 - fraction) * left + fraction * right


def first_match(scopes: Sequence[Parameters], name: str, tensor_name: str) -> Conditional | None:
    """Find what sets parameter ``name`` for a tensor.

    Args:
        scopes: From the most particular (a source's) to the most general (the recipe's).
        name: The parameter.
        tensor_name: Filters are looked for in it. A scope without a matching filter passes on to the next.
    """
    for scope in scopes:
        for conditional in scope.get(name, ()):
            if conditional.matches(tensor_name):
                return conditional
    return None


def flat_parameters(recipe: Recipe) -> dict[str, str | float | bool]:
    """Return a recipe's settings as single values whose names line up between merges of one family.

    ``t`` set once gives ``t``; filtered, ``t.self_attn``, ``t.mlp`` and ``t.others``; per model, ``weight.<n>`` in the
    order of the recipe. A single number stays a number; a gradient becomes text.
    """
    scopes: list[tuple[str, Parameters]] = [("", recipe.parameters)]
    scopes += [(f".{n}", model.parameters) for n, model in enumerate(recipe.models or ())]
    for i, piece in enumerate(recipe.slices or ()):
        prefix = f".slice{i}" if len(recipe.slices or ()) > 1 else ""
        scopes.append((prefix, piece.parameters))
        scopes += [(f"{prefix}.{n}", source.parameters) for n, source in enumerate(piece.sources)]
    flat: dict[str, str | float | bool] = {}
    for suffix, parameters in scopes:
        for name, setting in parameters.items():
            for conditional in setting:
                is_only = len(setting) == 1 and conditional.filter is None
                key = f"{name}{suffix}" if is_only else f"{name}{suffix}.{conditional.filter or 'others'}"
                value = conditional.value
                flat[key] = ", ".join(f"{item}" for item in value) if isinstance(value, tuple) else value
    return flat
