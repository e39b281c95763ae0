"""Formulas like those of the merge methods, for tests of what runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mergeline.methods._kernels.formula import maximum, minimum, sqrt, where


def products(x: Sequence[Any]) -> list[Any]:
    """Squares, squared differences and products of two inputs."""
    return [x[0] * x[0], x[1] * x[1], (x[1] - x[0]) * (x[1] - x[0]), x[0] * x[1]]


def chord(x: Sequence[Any], t: Any) -> Any:
    return x[0] + t * (x[1] - x[0])


def first(x: Sequence[Any]) -> Any:
    return x[0]


def scaled(x: Sequence[Any], scale: Any) -> Any:
    return scale * x[0]


def magnitudes(x: Sequence[Any]) -> list[Any]:
    return [abs(v - x[0]) for v in x[1:]]


def moved(x: Sequence[Any]) -> list[Any]:
    *inputs, result = x
    return [(result - v) * (result - v) for v in inputs]


def vote(x: Sequence[Any], weights: Sequence[Any], cuts: Sequence[Any], scale: Any, normalize: bool) -> Any:
    """TIES with thresholds known."""
    terms = [where(c.keeps(abs(v - x[0])), w * (v - x[0]), 0.0) for v, w, c in zip(x[1:], weights, cuts, strict=True)]
    sign = where(sum(terms) >= 0.0, 1.0, -1.0)
    agreeing = [maximum(term * sign, 0.0) for term in terms]
    total = sum(agreeing) * sign
    if normalize:
        divisor = sum(where(term > 0.0, w, 0.0) for term, w in zip(agreeing, weights, strict=True))
        total = total / where(divisor == 0.0, 1.0, divisor)
    return x[0] + scale * total


def everything(x: Sequence[Any], numbers: Sequence[Any], kept: Any, edge: Any) -> Any:
    """Every operation there is."""
    a, b = x[0] * numbers[0], x[1] / numbers[1] - 0.1
    position = a.recording.leaf("position")
    inside = ((a < b) | (a >= 2.0 * b)) & ~(position > edge) & (a != b) | (abs(b) <= 1e-3) & (a == a)
    chosen = where(inside, sqrt(abs(a)), -minimum(a, maximum(b, -0.25)))
    return where(kept, chosen + numbers[2], 1.0 - chosen)
