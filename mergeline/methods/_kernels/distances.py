"""Norms of a tensor's inputs and distances between them, gathered piece by piece."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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


_RUN = 1024
"""Squares added up in float32 at once. Over a whole piece such sums are off by a few parts in a million, enough to move
the coefficients of an arc by more than a bfloat16 rounding now and then; runs this short are 50 times closer."""


class DistanceMeter:
    """Adds up :class:`Distances` over pieces: float32 within a short run, float64 across runs."""

    def __init__(self, count: int) -> None:
        """Begin with nothing seen of ``count`` inputs."""
        self._count = count
        # A number for every piece, added up at the end: one call for a tensor instead of three for every piece.
        self._squares: dict[tuple[int, int], list[Tensor]] = {(i, j): [] for i in range(count) for j in range(i + 1)}
        self._scratch: Tensor | None = None

    def observe(self, pieces: Sequence[Tensor]) -> None:
        """Add one piece of every input; the pieces are left as they are."""
        import torch

        vectors = [piece.flatten() for piece in pieces]
        if self._scratch is None:
            self._scratch = torch.empty_like(vectors[0])
        # The first piece is the largest: its scratch serves all others.
        difference = self._scratch[: vectors[0].numel()]
        for i, left in enumerate(vectors):
            self._squares[i, i].append(_squared_norm(left))
            for j in range(i):
                torch.sub(left, vectors[j], out=difference)
                self._squares[i, j].append(_squared_norm(difference))

    def result(self) -> Distances:
        """Return what was measured."""
        import torch

        # On a GPU every look waits for it, so there is one for all pairs.
        totals = [torch.stack(of_pieces).sum(dtype=torch.float64) for of_pieces in self._squares.values() if of_pieces]
        values = torch.stack(totals).tolist() if totals else [0.0] * len(self._squares)
        sums = dict(zip(self._squares, values, strict=True))
        n = range(self._count)
        squared = tuple(tuple(0.0 if i == j else sums[max(i, j), min(i, j)] for j in n) for i in n)
        return Distances(tuple(sums[i, i] for i in n), squared)


def _squared_norm(vector: Tensor) -> Tensor:
    """Return ``|v|²`` of a flat float32 or float64 vector, in its dtype."""
    import torch

    if vector.numel() % _RUN:
        whole = vector.numel() // _RUN * _RUN
        rest = vector[whole:]
        return torch.dot(rest, rest) if whole == 0 else _squared_norm(vector[:whole]) + torch.dot(rest, rest)
    norms = torch.linalg.vector_norm(vector.view(-1, _RUN), dim=1)
    return torch.dot(norms, norms)
