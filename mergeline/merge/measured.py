"""Norms and distances of a tensor's inputs and result, measured while it is merged."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from math import sqrt

import torch
from torch import Tensor

from mergeline.merge.shard_file import TensorOutcome
from mergeline.methods import Kernel
from mergeline.methods._kernels.distances import DistanceMeter, Distances


class Measurements:
    """Norms and distances of one tensor's inputs and result: from the kernel where it has them, else gathered here."""

    def __init__(self, input_count: int, kernel: Kernel) -> None:
        self._kernel, self._count = kernel, input_count
        self._meter = DistanceMeter(input_count) if kernel.distances is None and input_count > 1 else None
        self.wants_result = kernel.coefficients is None
        """Whether how far the result has moved must be seen, rather than follow from the coefficients."""
        self._moved = [torch.zeros((), dtype=torch.float64)] * input_count

    def step(self, pieces: list[Tensor], result: Tensor) -> None:
        if self._meter is not None:
            self._meter.observe(pieces)
        self._kernel.merge(pieces, result)

    def after(self, pieces: Sequence[Tensor], result: Tensor) -> None:
        for i, piece in enumerate(pieces):
            difference = piece.sub_(result).flatten()
            self._moved[i] = self._moved[i].to(result.device) + torch.dot(difference, difference)

    def outcome(self, name: str) -> TensorOutcome:
        """Say what was done."""
        distances = self._kernel.distances or (self._meter.result() if self._meter is not None else None)
        if distances is None:
            return TensorOutcome(name, self._kernel.branch, self._kernel.coefficients, (), (), ())
        return TensorOutcome(
            name,
            self._kernel.branch,
            self._kernel.coefficients,
            tuple(map(sqrt, distances.squared_norms)),
            tuple(tuple(map(sqrt, row)) for row in distances.squared),
            self._distances_moved(distances),
        )

    def _distances_moved(self, distances: Distances) -> tuple[float, ...]:
        coefficients = self._kernel.coefficients
        if coefficients is None:
            return tuple(sqrt(float(moved)) for moved in self._moved)
        pairs = [(coefficients, j) for j in range(self._count)]
        return tuple(map(sqrt, starmap(distances.squared_distance_of_sum, pairs)))
