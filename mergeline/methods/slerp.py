"""Spherical linear interpolation of two tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mergeline.methods._kernels.combination import Combination, MeasuredSum, WeightedSum
from mergeline.methods._kernels.distances import DistanceMeter, Distances
from mergeline.methods.method import BaseModelRule, Kernel, MergeMethod, Parameter, TensorSettings

if TYPE_CHECKING:
    from torch import Tensor

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

    def kernel(self, settings: TensorSettings) -> Kernel:
        t = float(settings.shared["t"])
        return _Arc(t) if 0 < t < 1 else WeightedSum(Combination((1.0 - t, t), "endpoint"))

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


class _Arc(MeasuredSum):
    """Writes the chord while it measures the angle: what fine-tunes of one model nearly always take."""

    def __init__(self, t: float) -> None:
        super().__init__(input_count=2)
        self._t = t

    def combine(self, distances: Distances) -> Combination:
        t, cosine = self._t, _cosine(distances)
        if abs(cosine) > COLLINEAR_COSINE:
            return Combination((1.0 - t, t), "lerp")
        omega = math.acos(cosine)
        return Combination(
            (math.sin((1.0 - t) * omega) / math.sin(omega), math.sin(t * omega) / math.sin(omega)), "slerp"
        )

    def anticipates(self, pieces: Sequence[Tensor]) -> bool:
        first = DistanceMeter(len(pieces))
        first.observe(pieces)
        return self.combine(first.result()).branch == "lerp"

    def anticipate(self, pieces: Sequence[Tensor], output: Tensor) -> None:
        self.observe(0, pieces)
        self._chord(pieces, output)

    @property
    def is_as_anticipated(self) -> bool:
        return self.branch == "lerp"

    def merge(self, pieces: Sequence[Tensor], output: Tensor) -> None:
        if self.branch == "lerp":
            self._chord(pieces, output)
        else:
            super().merge(pieces, output)

    def _chord(self, pieces: Sequence[Tensor], output: Tensor) -> None:
        import torch

        if self._t in (0.0, 1.0):
            # A parent bit for bit, the sign of a zero included.
            output.copy_(pieces[int(self._t)])
        else:
            torch.lerp(pieces[0], pieces[1], self._t, out=output)


def _cosine(distances: Distances) -> float:
    """Return the cosine between the two inputs, a vector without length taken as it is."""
    cosine = distances.dot(0, 1)
    for squared in distances.squared_norms:
        norm = math.sqrt(squared)
        cosine /= norm if norm > SMALLEST_NORM else 1.0
    return max(-1.0, min(1.0, cosine))
