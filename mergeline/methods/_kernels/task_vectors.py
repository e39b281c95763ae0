"""Merging by differences from a base model: thinned out, weighted, put to a vote on signs, and added.

The methods ``task_arithmetic``, ``ties``, ``dare_*`` and ``breadcrumbs*`` differ only in how a difference is thinned
and whether signs are voted on:

    result = base + λ Σ w_i m_i δ_i / D,    δ_i = thinned(v_i - base)

where ``m_i`` is 1, or 1 only where ``w_i δ_i`` has the sign of ``Σ w_i δ_i`` (with a vote), and ``D`` is 1, or
``Σ w_i m_i`` (with ``normalize``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mergeline.methods._kernels.random_stream import RandomStream
from mergeline.methods._kernels.selection import PASSES, Largest
from mergeline.methods.method import Kernel, Parameter, TensorSettings

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT = Parameter("weight", per_model=True)
DENSITY = Parameter("density", per_model=True, default=1.0, low=0.0, high=1.0)
LAMBDA = Parameter("lambda", default=1.0)
INT8_MASK = Parameter("int8_mask", default=False)
"""Accepted for the sake of mergekit's recipes, where it saves memory; here masks are bytes in any case."""


class Thinning(ABC):
    """Which elements of one model's difference are kept."""

    passes = 0

    def observe(self, number: int, difference: Tensor) -> None:
        """See one piece in pass ``number``."""
        raise NotImplementedError(f"{type(self).__name__} announces {self.passes} passes and observes none")

    def end_pass(self, number: int) -> None:
        """Draw the conclusions of a pass."""
        del number

    @abstractmethod
    def apply(self, start: int, difference: Tensor) -> None:
        """Zero the elements that are not kept; pieces come in order."""

    def restart(self) -> None:
        """Begin another round over the pieces."""
        return


class KeepAll(Thinning):
    """Nothing is thinned out."""

    def apply(self, start: int, difference: Tensor) -> None:
        return


class KeepMiddle(Thinning):
    """Keep the elements whose rank by magnitude is neither among the largest nor among the smallest."""

    passes = PASSES

    def __init__(self, kept: int, largest_dropped: int = 0) -> None:
        """Drop so many of the largest, then keep so many, then drop the rest."""
        self._above = Largest(largest_dropped) if largest_dropped else None
        self._down_to = Largest(largest_dropped + kept)

    def observe(self, number: int, difference: Tensor) -> None:
        for selection in self._selections():
            selection.observe(number, difference)

    def end_pass(self, number: int) -> None:
        for selection in self._selections():
            selection.end_pass(number)

    def apply(self, start: int, difference: Tensor) -> None:
        kept = self._down_to.mask(difference)
        if self._above is not None:
            kept.sub_(self._above.mask(difference))
        difference.mul_(kept.view_as(difference))

    def restart(self) -> None:
        for selection in self._selections():
            selection.restart()

    def _selections(self) -> list[Largest]:
        return [self._down_to] if self._above is None else [self._down_to, self._above]


class KeepRandom(Thinning):
    """Keep each element with the same probability."""

    def __init__(self, density: float, stream: RandomStream) -> None:
        self._density, self._stream = density, stream

    def apply(self, start: int, difference: Tensor) -> None:
        import torch

        kept = self._stream.keep(self._density, start, difference)
        difference.mul_(kept.view(torch.uint8).to(difference.dtype))


class TaskVectors(Kernel):
    """The arithmetic all methods of the family share."""

    def __init__(self, settings: TensorSettings, thinnings: Sequence[Thinning], *, has_vote: bool) -> None:
        """Take one thinning per model; weights, λ, ``normalize`` and ``rescale`` come from the settings."""
        self._thinnings = thinnings
        self._weights = settings.numbers("weight")
        self._scale = float(settings.shared["lambda"])
        self._has_vote = has_vote
        self._is_normalized = bool(settings.shared.get("normalize", False))
        self._is_rescaled = bool(settings.shared.get("rescale", False))
        self._selection_passes = max(thinning.passes for thinning in thinnings)
        # Rescaling needs to know what thinning leaves, so one more look after it is decided.
        self.passes = self._selection_passes + self._is_rescaled
        self._sums: Tensor | None = None
        self._rescale = [1.0] * len(thinnings)
        self._position = 0

    def observe(self, number: int, pieces: Sequence[Tensor]) -> None:
        differences = _differences(pieces)
        if number < self._selection_passes:
            for thinning, difference in zip(self._thinnings, differences, strict=True):
                if number < thinning.passes:
                    thinning.observe(number, difference)
            return
        self._measure(differences)

    def end_pass(self, number: int) -> None:
        if number < self._selection_passes:
            for thinning in self._thinnings:
                if number < thinning.passes:
                    thinning.end_pass(number)
            return
        assert self._sums is not None
        # What is left stands for all there was: the sum of magnitudes is kept, as in mergekit (the paper divides by
        # the density instead).
        self._rescale = [before / after if after > 0 else 1.0 for before, after in self._sums.tolist()]
        self._position = 0
        for thinning in self._thinnings:
            thinning.restart()

    def merge(self, pieces: Sequence[Tensor], output: Tensor) -> None:
        differences = _differences(pieces)
        factors = [weight * scale for weight, scale in zip(self._weights, self._rescale, strict=True)]
        for thinning, difference, factor in zip(self._thinnings, differences, factors, strict=True):
            thinning.apply(self._position, difference)
            difference.mul_(factor)
        self._position += output.numel()
        if self._has_vote:
            self._vote(differences, output)
        else:
            _add_up(differences, output)
            if self._is_normalized:
                output.div_(sum(self._weights))
        output.mul_(self._scale).add_(pieces[0])

    def _vote(self, differences: Sequence[Tensor], output: Tensor) -> None:
        """Write the sum of the elements that have the sign of the sum of all, normalized if that is wanted."""
        import torch

        # Arithmetic with signs and in-place comparisons, several times faster than choosing by boolean masks.
        _add_up(differences, output)
        sign = output.clone().ge_(0.0).mul_(2.0).sub_(1.0)
        for difference in differences:
            difference.mul_(sign).clamp_min_(0.0)
        _add_up(differences, output)
        output.mul_(sign)
        if not self._is_normalized:
            return
        divisor = torch.zeros_like(output)
        for difference, weight in zip(differences, self._weights, strict=True):
            divisor.add_(difference.gt_(0.0), alpha=weight)
        # Where no one agrees there is nothing to divide.
        output.div_(divisor.add_(sign.copy_(divisor).eq_(0.0)))

    @property
    def branch(self) -> str:
        return "vote" if self._has_vote else "sum"

    def _measure(self, differences: Sequence[Tensor]) -> None:
        """Add up each difference's magnitudes before and after thinning."""
        import torch

        if self._sums is None:
            self._sums = torch.zeros(len(differences), 2, dtype=torch.float64, device=differences[0].device)
        for i, (thinning, difference) in enumerate(zip(self._thinnings, differences, strict=True)):
            self._sums[i, 0] += difference.abs().sum()
            thinning.apply(self._position, difference)
            self._sums[i, 1] += difference.abs().sum()
        self._position += differences[0].numel()


def weights_that_cancel(settings: TensorSettings, *, has_vote: bool) -> str | None:
    """Say why ``normalize`` is impossible with these weights; None if it is not."""
    weights = settings.numbers("weight")
    if settings.shared.get("normalize") and not has_vote and abs(sum(weights)) < 1e-8:
        return f"the weights {weights} add up to 0 and cannot be normalized; change one or set `normalize: false`"
    return None


def element_count(settings: TensorSettings) -> int:
    """Return how many elements the tensor has."""
    count = 1
    for size in settings.shape:
        count *= size
    return count


def _differences(pieces: Sequence[Tensor]) -> list[Tensor]:
    return [piece.sub_(pieces[0]) for piece in pieces[1:]]


def _add_up(differences: Sequence[Tensor], output: Tensor) -> None:
    output.copy_(differences[0])
    for difference in differences[1:]:
        output.add_(difference)
