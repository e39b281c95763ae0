"""Scalar, gradient and filtered settings resolved to one number per tensor and model."""

from __future__ import annotations

from collections.abc import Sequence

from mergeline.methods.method import Number, Parameter
from mergeline.recipe import Conditional, Parameters, Recipe, Scalar


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


def resolve(parameter: Parameter, scopes: Sequence[Parameters], tensor_name: str, position: float) -> Number:
    """Return the number a tensor gets for ``parameter``.

    Args:
        parameter: Says default and range.
        scopes: As in :func:`first_match`.
        tensor_name: Output name for shared parameters, the model's own name for per-model ones.
        position: Place in the slice's gradient, in [0, 1]; tensors outside the layers stand at 0.

    Raises:
        ValueError: If the value is missing, no number, or out of range; the text says which.
    """
    conditional = first_match(scopes, parameter.name, tensor_name)
    if conditional is None:
        if parameter.default is None:
            raise ValueError(f"`{parameter.name}` is required and nothing sets it for {tensor_name!r}")
        return parameter.default
    raw = conditional.value
    values = tuple(_number(parameter, value) for value in (raw if isinstance(raw, tuple) else (raw,)))
    return _number(parameter, interpolate(values, position))


def _number(parameter: Parameter, raw: Scalar) -> Number:
    """Check one value against the parameter's kind and range."""
    if isinstance(parameter.default, bool):
        if not isinstance(raw, bool):
            raise ValueError(f"`{parameter.name}` is true or false, found {raw!r}")
        return raw
    try:
        # YAML 1.1 reads 1e-5 (without a dot) as text; mergekit accepts it, and so do we.
        value = float(raw)
    except ValueError:
        raise ValueError(f"`{parameter.name}` must be a number, found {raw!r}") from None
    if isinstance(raw, bool) or value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"`{parameter.name}` must be a finite number, found {raw!r}")
    low, high = parameter.low, parameter.high
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"`{parameter.name}` must lie in [{low:g}, {high:g}], found {raw!r}")
    return value


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
