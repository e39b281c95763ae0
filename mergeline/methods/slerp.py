"""Spherical linear interpolation of two tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mergeline.methods._kernels.distances import Distances
from mergeline.methods._kernels.weighted_sum import merge_weighted_sum
from mergeline.methods.method import BaseModelRule, MergeMethod, Parameter, TensorSettings

if TYPE_CHECKING:
    from mergeline.methods._kernels.tensor_inputs import TensorInputs

COLLINEAR_COSINE = 0.9995
"""Above this ``|cos Ω|`` the arc is numerically flat and the chord is taken instead."""

SMALLEST_NORM = 1e-8
"""A shorter vector has no direction and is not scaled to length 1 before the cosine is taken."""


class Slerp(MergeMethod):
    """Interpolate from the base model to the other along the great circle between them.

    Each tensor is one flat vector. With Ω the angle between the two,

        slerp(base, other; t) = (sin((1 - t) Ω) base + sin(t Ω) other) / sin Ω

    and ``(1 - t) base + t other`` where the vectors are nearly collinear. ``t = 0`` gives the base model's weights,
    ``t = 1`` the other's, exactly.

    References:
        Shoemake, "Animating Rotation with Quaternion Curves", SIGGRAPH 1985, section 3.3.
        Flattening, threshold and smallest norm are mergekit's, so that its recipes give the same weights. Unlike
        mergekit, inner products are accumulated in float64: in float32 their error exceeds ``1 - 0.9995`` for large
        tensors and the wrong branch may be taken.
    """

    name = "slerp"
    parameters = (Parameter("t", low=0.0, high=1.0),)
    base_model = BaseModelRule.FIRST_INPUT
    min_models = 2
    max_models = 2

    def merge(self, inputs: TensorInputs[Any], settings: TensorSettings) -> str:
        t = float(settings.shared["t"])
        if not 0 < t < 1:
            merge_weighted_sum(inputs, (1.0 - t, t))
            return "endpoint"
        cosine = _cosine(inputs.distances())
        if abs(cosine) > COLLINEAR_COSINE:
            inputs.merge(chord, coefficients=(1.0 - t, t), part=min(t, 1.0 - t), is_nearer_first=t < 0.5)
            return "lerp"
        omega = math.acos(cosine)
        merge_weighted_sum(inputs, [math.sin(part * omega) / math.sin(omega) for part in (1.0 - t, t)])
        return "slerp"

    def describe_branches(self, branches: Sequence[str]) -> str | None:
        chords, arcs = branches.count("lerp"), branches.count("slerp")
        if not chords + arcs:
            return None
        return (
            f"SLERP took the chord, a plain weighted average, for {chords} of {chords + arcs} tensors "
            f"(|cosine| above {COLLINEAR_COSINE}), the arc for {arcs}."
        )

    def branch_metrics(self, branches: Sequence[str]) -> dict[str, float]:
        chords, arcs = branches.count("lerp"), branches.count("slerp")
        return {"chord_share": chords / (chords + arcs)} if chords + arcs else {}


def chord(x: Sequence[Any], part: Any, is_nearer_first: bool) -> Any:
    """``(1 - t) base + t other``, from the nearer of the two so that the smaller number is rounded."""
    difference = x[1] - x[0]
    return x[0] + part * difference if is_nearer_first else x[1] - part * difference


def _cosine(distances: Distances) -> float:
    """Return the cosine between the two inputs, a vector without length taken as it is."""
    cosine = distances.dot(0, 1)
    for squared in distances.squared_norms:
        norm = math.sqrt(squared)
        cosine /= norm if norm > SMALLEST_NORM else 1.0
    return max(-1.0, min(1.0, cosine))
