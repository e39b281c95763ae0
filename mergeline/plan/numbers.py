"""The value of a merge method's parameter for one tensor, checked."""

from __future__ import annotations

from collections.abc import Sequence

from mergeline.methods.method import Number, Parameter
from mergeline.recipe.parameters import first_match, interpolate
from mergeline.recipe.recipe import Parameters, Scalar


def resolve(parameter: Parameter, scopes: Sequence[Parameters], tensor_name: str, position: float) -> Number:
    """Return the value of ``parameter`` for a tensor.

    Args:
        parameter: Gives default and range.
        scopes: As in :func:`first_match`.
        tensor_name: The output's name for shared parameters, the model's own name for per-model ones.
        position: Position in a gradient, in [0, 1]; 0 for tensors outside the layers.

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
    except (ValueError, OverflowError):
        raise ValueError(f"`{parameter.name}` must be a number, found {raw!r}") from None
    if isinstance(raw, bool) or value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"`{parameter.name}` must be a finite number, found {raw!r}")
    low, high = parameter.low, parameter.high
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"`{parameter.name}` must lie in [{low:g}, {high:g}], found {raw!r}")
    return value
