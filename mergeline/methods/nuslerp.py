"""SLERP by weights instead of a fraction, of whole tensors or of their rows or columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mergeline.methods._kernels.weighted_sum import merge_around_origin, merge_weighted_sum
from mergeline.methods.method import BaseModelRule, MergeMethod, Parameter, TensorSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mergeline.methods._kernels.tensor_inputs import TensorInputs

SMALLEST_NORM = 1e-7
"""Norms are taken to be at least this, so that a zero vector has a direction."""


class NuSlerp(MergeMethod):
    """Interpolate along the great circle between two models, or between their differences from a base model.

    With ``t = w_1 / (w_0 + w_1)`` (0.5 if the weights add up to less than 1e-6) and Ω the angle between u and v,

        nuslerp(u, v) = (sin((1 - t) Ω) u + sin(t Ω) v) / sin Ω

    and the chord only where the two are exactly collinear. ``nuslerp_flatten`` takes each tensor as one vector; without
    it every row (the last axis) is a vector of its own, or with ``nuslerp_row_wise`` every column (the first axis).

    References:
        Shoemake, "Animating Rotation with Quaternion Curves", SIGGRAPH 1985, section 3.3. The conventions are
        mergekit's.
    """

    name = "nuslerp"
    parameters = (
        Parameter("weight", per_model=True),
        Parameter("nuslerp_flatten", default=True),
        Parameter("nuslerp_row_wise", default=False),
    )
    base_model = BaseModelRule.OPTIONAL_ORIGIN
    min_models = 2
    max_models = 2

    def merge(self, inputs: TensorInputs[Any], settings: TensorSettings) -> str:
        first, second = settings.numbers("weight")
        t = second / (first + second) if abs(first + second) >= 1e-6 else 0.5
        has_origin = settings.has_origin
        if settings.shared["nuslerp_flatten"] or len(settings.shape) < 2:
            return _merge_flat(inputs, t, has_origin=has_origin)
        if settings.shared["nuslerp_row_wise"]:
            a, b = _weights_of_each(inputs.column_sums(products, has_origin=has_origin), t)
            inputs.merge(arc, columns=(a, b), has_origin=has_origin)
        else:
            a, b = _weights_of_each(inputs.row_sums(products, has_origin=has_origin).T, t)
            inputs.merge(arc, weights=(a, b), has_origin=has_origin)
        return ""


def products(x: Sequence[Any], has_origin: bool) -> list[Any]:
    """Squares of the two and their product."""
    u, v = _pair(x, has_origin)
    return [u * u, v * v, u * v]


def arc(x: Sequence[Any], has_origin: bool, weights: Sequence[Any] = (), columns: Sequence[Any] = ()) -> Any:
    """``a u + b v``, with the origin added back."""
    u, v = _pair(x, has_origin)
    a, b = weights or columns
    total = a * u + b * v
    return total + x[0] if has_origin else total


def _pair(x: Sequence[Any], has_origin: bool) -> tuple[Any, Any]:
    return (x[1] - x[0], x[2] - x[0]) if has_origin else (x[0], x[1])


def _merge_flat(inputs: TensorInputs[Any], t: float, *, has_origin: bool) -> str:
    distances = inputs.distances()
    if has_origin:
        squared = distances.squared[0]
        a, b, branch = _weights(squared[1], squared[2], distances.dot_of_differences(1, 2), t)
        merge_around_origin(inputs, (1.0 - a - b, a, b))
    else:
        norms = distances.squared_norms
        a, b, branch = _weights(norms[0], norms[1], distances.dot(0, 1), t)
        merge_weighted_sum(inputs, (a, b))
    return branch


def _weights(first: float, second: float, dot: float, t: float) -> tuple[float, float, str]:
    """Return the coefficients of u and v and the case taken, from squared norms and inner product."""
    norms = max(math.sqrt(first), SMALLEST_NORM) * max(math.sqrt(second), SMALLEST_NORM)
    omega = math.acos(max(-1.0, min(1.0, dot / norms)))
    if math.sin(omega) == 0.0:
        return 1.0 - t, t, "lerp"
    a, b = (math.sin(part * omega) / math.sin(omega) for part in (1.0 - t, t))
    return a, b, "slerp"


def _weights_of_each(sums: NDArray[np.float64], t: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coefficients of many pairs of vectors; ``sums`` holds their products, of shape (3, vectors).

    By the standard library's functions, as numpy's may differ in the last bit from one processor to another.
    """
    import numpy as np

    a, b = np.empty(sums.shape[1]), np.empty(sums.shape[1])
    for index in range(sums.shape[1]):
        a[index], b[index], _ = _weights(*map(float, sums[:, index]), t=t)
    return a, b
