"""The value that a setting, which may be a gradient or filtered, has for one tensor."""

from __future__ import annotations

from collections.abc import Sequence

from mergeline.recipe.recipe import Conditional, Parameters, Recipe, Scalar


def gradient_position(local_layer: int, layer_count: int) -> float:
    """Return a layer's position in its slice, in [0, 1]; the only layer of a slice is at 1."""
    return local_layer / (layer_count - 1) if layer_count > 1 else 1.0


def interpolate(values: Sequence[Scalar], position: float) -> Scalar:
    """Return the value at ``position`` in [0, 1] of a gradient whose values are spread evenly over [0, 1].

    Numbers are interpolated linearly; of flags and words the value before the position counts.
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
    """Return the conditional that sets parameter ``name`` for a tensor, or None.

    Args:
        scopes: Settings, from the most specific (a source's) to the most general (the recipe's).
        name: The parameter.
        tensor_name: Filters are substrings of it. Where no filter of a scope matches, the next scope counts.
    """
    for scope in scopes:
        for conditional in scope.get(name, ()):
            if conditional.matches(tensor_name):
                return conditional
    return None


def flat_parameters(recipe: Recipe) -> dict[str, str | float | bool]:
    """Return a recipe's settings as single values, under names that are equal in recipes of the same form.

    ``t`` set once gives ``t``; filtered, ``t.self_attn``, ``t.mlp`` and ``t.others``; per model, ``weight.<n>`` in the
    order of the recipe. A single number stays a number; a gradient becomes text.
    """
    scopes: list[tuple[str, Parameters]] = [("", recipe.parameters)]
    scopes += [(f".{n}", model.parameters) for n, model in enumerate(recipe.models or ())]
    for i, slice_ in enumerate(recipe.slices or ()):
        prefix = f".slice{i}" if len(recipe.slices or ()) > 1 else ""
        scopes.append((prefix, slice_.parameters))
        scopes += [(f"{prefix}.{n}", source.parameters) for n, source in enumerate(slice_.sources)]
    flat: dict[str, str | float | bool] = {}
    for suffix, parameters in scopes:
        for name, setting in parameters.items():
            for conditional in setting:
                is_only = len(setting) == 1 and conditional.filter is None
                key = f"{name}{suffix}" if is_only else f"{name}{suffix}.{conditional.filter or 'others'}"
                value = conditional.value
                flat[key] = ", ".join(f"{item}" for item in value) if isinstance(value, tuple) else value
    return flat
