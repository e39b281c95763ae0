"""Results that are weighted sums of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mergeline.methods._kernels.formula import where

if TYPE_CHECKING:
    from mergeline.methods._kernels.tensor_inputs import TensorInputs


def merge_weighted_sum(inputs: TensorInputs[Any], coefficients: Sequence[float]) -> None:
    """Write ``Σ c_i v_i``; an input with coefficient 0 is not looked at, so that t = 0 gives the base exactly."""
    inputs.merge(weighted_sum, coefficients=tuple(coefficients), weights=_used(coefficients))


def merge_around_origin(inputs: TensorInputs[Any], coefficients: Sequence[float]) -> None:
    """Write ``o + Σ c_i (v_i - o)`` with the first input as ``o``.

    In exact arithmetic it is ``Σ c_i v_i`` where the coefficients add up to 1; in float32 small differences keep their
    digits.
    """
    inputs.merge(around_origin, coefficients=tuple(coefficients), weights=_used(coefficients[1:]))


def weighted_sum(x: Sequence[Any], weights: Sequence[Any]) -> Any:
    used = [w * v for w, v in zip(weights, x, strict=True) if w is not None]
    return sum(used) if used else where(x[0] < 0.0, 0.0, 0.0)


def around_origin(x: Sequence[Any], weights: Sequence[Any]) -> Any:
    return weighted_sum([v - x[0] for v in x[1:]], weights) + x[0]


def _used(weights: Sequence[float]) -> tuple[float | None, ...]:
    """Return the weights with None, an option of the recording, for those of 0."""
    return tuple(float(weight) if weight else None for weight in weights)
