"""SLERP by weights instead of a fraction, of whole tensors or of their rows or columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mergeline.methods._kernels.combination import Combination, MeasuredSum
from mergeline.methods._kernels.distances import Distances
from mergeline.methods.method import BaseModelRule, Kernel, MergeMethod, Parameter, TensorSettings

if TYPE_CHECKING:
    from torch import Tensor

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

    def kernel(self, settings: TensorSettings) -> Kernel:
        first, second = settings.numbers("weight")
        t = second / (first + second) if abs(first + second) >= 1e-6 else 0.5
        if settings.shared["nuslerp_flatten"] or len(settings.shape) < 2:
            return _Arc(t, settings.has_origin)
        return (_Columns if settings.shared["nuslerp_row_wise"] else _Rows)(t, settings.has_origin)


class _Arc(MeasuredSum):
    def __init__(self, t: float, has_origin: bool) -> None:
        super().__init__(input_count=3 if has_origin else 2)
        self._t, self._has_origin = t, has_origin

    def combine(self, distances: Distances) -> Combination:
        if not self._has_origin:
            a, b, branch = self._weights(distances.squared_norms[0], distances.squared_norms[1], distances.dot(0, 1))
            return Combination((a, b), branch)
        squared = distances.squared[0]
        a, b, branch = self._weights(squared[1], squared[2], distances.dot_of_differences(1, 2))
        return Combination((1.0 - a - b, a, b), branch, is_around_origin=True)

    def _weights(self, first: float, second: float, dot: float) -> tuple[float, float, str]:
        norms = max(math.sqrt(first), SMALLEST_NORM) * max(math.sqrt(second), SMALLEST_NORM)
        omega = math.acos(max(-1.0, min(1.0, dot / norms)))
        if math.sin(omega) == 0.0:
            return 1.0 - self._t, self._t, "lerp"
        a, b = (math.sin(part * omega) / math.sin(omega) for part in (1.0 - self._t, self._t))
        return a, b, "slerp"


class _Rows(Kernel):
    """Every row is a vector of its own, and whole in its piece."""

    by_rows = True

    def __init__(self, t: float, has_origin: bool) -> None:
        self._t, self._has_origin = t, has_origin

    def merge(self, pieces: Sequence[Tensor], output: Tensor) -> None:
        first, second = _taken_from_origin(pieces, self._has_origin)
        sums = (first.square().sum(-1), second.square().sum(-1), (first * second).sum(-1))
        a, b = _weights(*sums, self._t)
        _add(pieces, first, second, a[..., None], b[..., None], self._has_origin, output)


class _Columns(Kernel):
    """Every column is a vector of its own: one pass adds up norms and inner products over all rows."""

    by_rows = True
    passes = 1

    def __init__(self, t: float, has_origin: bool) -> None:
        self._t, self._has_origin = t, has_origin
        self._sums: list[Tensor] | None = None
        self._ab: tuple[Tensor, Tensor] | None = None

    def observe(self, number: int, pieces: Sequence[Tensor]) -> None:
        first, second = _taken_from_origin(pieces, self._has_origin)
        sums = [product.sum(0).double() for product in (first.square(), second.square(), first * second)]
        self._sums = sums if self._sums is None else [a + b for a, b in zip(self._sums, sums, strict=True)]

    def end_pass(self, number: int) -> None:
        assert self._sums is not None
        first, second, dot = self._sums
        self._ab = _weights(first, second, dot, self._t)

    def merge(self, pieces: Sequence[Tensor], output: Tensor) -> None:
        assert self._ab is not None
        first, second = _taken_from_origin(pieces, self._has_origin)
        a, b = (weights.to(output.dtype) for weights in self._ab)
        _add(pieces, first, second, a, b, self._has_origin, output)


def _taken_from_origin(pieces: Sequence[Tensor], has_origin: bool) -> tuple[Tensor, Tensor]:
    if not has_origin:
        return pieces[0], pieces[1]
    return pieces[1].sub_(pieces[0]), pieces[2].sub_(pieces[0])


def _weights(first: Tensor, second: Tensor, dot: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Return each vector pair's two coefficients, from squared norms and inner product."""
    import torch

    norms = first.double().sqrt().clamp_min(SMALLEST_NORM) * second.double().sqrt().clamp_min(SMALLEST_NORM)
    omega = (dot.double() / norms).clamp(-1.0, 1.0).arccos()
    sine = omega.sin()
    is_arc = sine != 0
    safe = torch.where(is_arc, sine, 1.0)
    a = torch.where(is_arc, ((1.0 - t) * omega).sin() / safe, 1.0 - t)
    b = torch.where(is_arc, (t * omega).sin() / safe, t)
    return a.to(first.dtype), b.to(first.dtype)


def _add(
    pieces: Sequence[Tensor], first: Tensor, second: Tensor, a: Tensor, b: Tensor, has_origin: bool, output: Tensor
) -> None:
    import torch

    torch.mul(first, a, out=output).addcmul_(second, b)
    if has_origin:
        output.add_(pieces[0])
