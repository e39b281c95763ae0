"""Norms of a tensor's inputs and distances between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Distances:
    """Squared Euclidean norms and distances of n inputs, each seen as one flat vector; float64.

    Distances are summed from the differences themselves: taken from inner products they would drown in rounding for
    fine-tunes of one model, which lie close together.
    """

    squared_norms: tuple[float, ...]
    squared: tuple[tuple[float, ...], ...]
    """``squared[i][j] = |v_i - v_j|²``."""

    def dot(self, i: int, j: int) -> float:
        """Return ``<v_i, v_j>``."""
        return 0.5 * (self.squared_norms[i] + self.squared_norms[j] - self.squared[i][j])

    def dot_of_differences(self, i: int, j: int, origin: int = 0) -> float:
        """Return ``<v_i - o, v_j - o>`` for the origin ``o``."""
        return 0.5 * (self.squared[i][origin] + self.squared[j][origin] - self.squared[i][j])

    def cosine(self, i: int, j: int) -> float | None:
        """Return the cosine of the angle between two inputs, in [-1, 1]; None if one of them is zero."""
        product = math.sqrt(self.squared_norms[i]) * math.sqrt(self.squared_norms[j])
        return max(-1.0, min(1.0, self.dot(i, j) / product)) if product > 0 else None

    def squared_distance_of_sum(self, coefficients: Sequence[float], j: int) -> float:
        """Return ``|Σ c_i v_i - v_j|²``, at least 0.

        With s = Σ c_i the vector is ``Σ c_i (v_i - v_j) + (s - 1) v_j``, whose first part is small for near inputs.
        """
        excess = sum(coefficients) - 1.0
        n = range(len(coefficients))
        near = sum(coefficients[i] * coefficients[k] * self.dot_of_differences(i, k, j) for i in n for k in n)
        mixed = sum(coefficients[i] * (self.dot(i, j) - self.squared_norms[j]) for i in n)
        return max(0.0, near + 2 * excess * mixed + excess**2 * self.squared_norms[j])


def squares(x: Sequence[Any]) -> list[Any]:
    """Formula of everything :func:`measured` needs, one value after another."""
    return [v * v for v in x] + [(a - b) * (a - b) for i, a in enumerate(x) for b in x[:i]]


def measured(sums: Sequence[float], count: int) -> Distances:
    """Arrange the sums of :func:`squares` of ``count`` inputs."""
    n = range(count)
    pairs = dict(zip([(i, j) for i in n for j in range(i)], sums[count:], strict=True))
    squared = tuple(tuple(0.0 if i == j else pairs[max(i, j), min(i, j)] for j in n) for i in n)
    return Distances(tuple(sums[:count]), squared)
