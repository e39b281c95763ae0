"""Kernels whose result is a weighted sum of the inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergeline.methods._kernels.distances import DistanceMeter, Distances
from mergeline.methods.method import Kernel

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Combination:
    """A weighted sum."""

    coefficients: tuple[float, ...]
    """One per input, dimensionless."""
    branch: str = ""
    """Which case of the formula was taken."""
    is_around_origin: bool = False
    """Whether the sum is taken as ``o + Σ c_i (v_i - o)`` with the first input as ``o``. In exact arithmetic it makes
    no difference where the coefficients add up to 1; in float32 small differences keep their digits."""


def merge_pieces(combination: Combination, pieces: Sequence[Tensor], output: Tensor) -> None:
    """Write the weighted sum of ``pieces`` into ``output``; pieces may be overwritten."""
    if not combination.is_around_origin:
        weighted_sum(pieces, combination.coefficients, output)
        return
    differences = [piece.sub_(pieces[0]) for piece in pieces[1:]]
    weighted_sum(differences, combination.coefficients[1:], output)
    output.add_(pieces[0])


def weighted_sum(pieces: Sequence[Tensor], coefficients: Sequence[float], output: Tensor) -> None:
    """Write ``Σ c_i piece_i``; a piece with coefficient 0 is not looked at, so that t = 0 gives the base exactly."""
    import torch

    used = [(piece, c) for piece, c in zip(pieces, coefficients, strict=True) if c != 0.0]
    if not used:
        output.zero_()
        return
    torch.mul(used[0][0], used[0][1], out=output)
    for piece, c in used[1:]:
        output.add_(piece, alpha=c)


class WeightedSum(Kernel):
    """A weighted sum whose coefficients follow from the recipe alone."""

    def __init__(self, combination: Combination) -> None:
        """Take the coefficients as they are."""
        self._combination = combination

    def merge(self, pieces: Sequence[Tensor], output: Tensor) -> None:
        merge_pieces(self._combination, pieces, output)

    @property
    def coefficients(self) -> tuple[float, ...]:
        return self._combination.coefficients

    @property
    def branch(self) -> str:
        return self._combination.branch


class MeasuredSum(WeightedSum):
    """A weighted sum whose coefficients depend on the angles and distances between the inputs."""

    passes = 1

    def __init__(self, input_count: int) -> None:
        """Begin with nothing measured."""
        super().__init__(Combination((0.0,) * input_count))
        self._meter = DistanceMeter(input_count)
        self._distances: Distances | None = None

    @abstractmethod
    def combine(self, distances: Distances) -> Combination:
        """Choose the coefficients."""

    def observe(self, number: int, pieces: Sequence[Tensor]) -> None:
        self._meter.observe(pieces)

    def end_pass(self, number: int) -> None:
        self._distances = self._meter.result()
        self._combination = self.combine(self._distances)

    @property
    def distances(self) -> Distances | None:
        return self._distances
