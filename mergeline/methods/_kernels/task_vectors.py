"""Merging by differences from a base model: thinned out, weighted, put to a vote on signs, and added.

The methods ``ties``, ``dare_*`` and ``breadcrumbs*`` differ only in how a difference is thinned and whether signs are
voted on:

    result = base + λ Σ w_i m_i δ_i / D,    δ_i = thinned(v_i - base)

where ``m_i`` is 1, or 1 only where ``w_i δ_i`` has the sign of ``Σ w_i δ_i`` (with a vote), and ``D`` is 1, or
``Σ w_i m_i`` (with ``normalize``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergeline.methods._kernels.formula import Keep, Value, where
from mergeline.methods.method import Parameter, TensorSettings

if TYPE_CHECKING:
    from mergeline.methods._kernels.selection import Cut
    from mergeline.methods._kernels.tensor_inputs import TensorInputs

WEIGHT = Parameter("weight", per_model=True)
DENSITY = Parameter("density", per_model=True, default=1.0, low=0.0, high=1.0)
LAMBDA = Parameter("lambda", default=1.0)
INT8_MASK = Parameter("int8_mask", default=False)
"""Accepted for the sake of mergekit's recipes, where it saves memory; here there are no masks of whole tensors."""


@dataclass(frozen=True)
class Between:
    """Keeps the elements whose rank by magnitude is neither among the largest nor among the smallest."""

    down_to: Cut
    """Everything from the largest down to the last one kept."""
    above: Cut | None = None
    """The largest, which are dropped; None: none are."""


Thinning = Keep | Between | None
"""Which elements of one model's difference are kept: each with the same probability, by magnitude, or all."""


def random_keep(density: float, seed: int, model: int, tensor: str) -> Keep | None:
    """Keep each element with probability ``density``; element k is kept or not wherever it is asked for.

    Args:
        density: At least 1 keeps all.
        seed: The recipe's.
        model: Index of the model among the models merged.
        tensor: Name of the output tensor.

    References:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox-4x64, numpy's).
    """
    if density >= 1:
        return None
    name = hashlib.sha256(f"{seed}/{model}/{tensor}".encode()).digest()
    return Keep((int.from_bytes(name[:8], "little"), int.from_bytes(name[8:16], "little")), density)


def keep_between(inputs: TensorInputs[Any], ranks: Sequence[tuple[int, int] | None]) -> list[Between | None]:
    """Find the cuts that keep, of each model's difference, the elements between two ranks by magnitude.

    Args:
        inputs: The base model first.
        ranks: For each model, how many of the largest are dropped, and the rank of the last one kept. None: all are.
    """
    wanted = [[] if rank is None else [rank[1], *([rank[0]] if rank[0] else [])] for rank in ranks]
    if not any(wanted):
        return [None] * len(ranks)
    return [Between(*cuts) if cuts else None for cuts in inputs.largest(magnitudes, wanted)]


def merge_task_vectors(
    inputs: TensorInputs[Any], settings: TensorSettings, thinnings: Sequence[Thinning], *, has_vote: bool
) -> str:
    """Write the result; weights, λ, ``normalize`` and ``rescale`` come from the settings.

    Returns:
        The branch: ``vote`` or ``sum``.
    """
    weights, scale = settings.numbers("weight"), float(settings.shared["lambda"])
    is_normalized = bool(settings.shared.get("normalize", False))
    factors, kept = list(weights), tuple(thinnings)
    if settings.shared.get("rescale", False):
        # What is left stands for all there was: the sum of magnitudes is kept, as in mergekit (the paper divides by
        # the density instead).
        sums = inputs.sums(magnitudes_before_and_after, thinnings=kept)
        before, after = sums[: len(kept)], sums[len(kept) :]
        factors = [w * b / a if a > 0 else w for w, b, a in zip(weights, before, after, strict=True)]
    if has_vote:
        divisors = tuple(weights) if is_normalized else None
        inputs.merge(vote, factors=tuple(factors), thinnings=kept, scale=scale, divisors=divisors)
        return "vote"
    if is_normalized:
        scale /= sum(weights)
    inputs.merge(thinned_sum, factors=tuple(factors), thinnings=kept, scale=scale)
    return "sum"


def magnitudes(x: Sequence[Any]) -> list[Any]:
    return [abs(v - x[0]) for v in x[1:]]


def magnitudes_before_and_after(x: Sequence[Any], thinnings: Sequence[Any]) -> list[Any]:
    whole = magnitudes(x)
    return whole + [_thinned(v, v, 1.0, thinning) for v, thinning in zip(whole, thinnings, strict=True)]


def thinned_sum(x: Sequence[Any], factors: Sequence[Any], thinnings: Sequence[Any], scale: Any) -> Any:
    """``base + λ Σ w_i δ_i``."""
    return x[0] + scale * sum(_terms(x, factors, thinnings))


def vote(x: Sequence[Any], factors: Sequence[Any], thinnings: Sequence[Any], scale: Any, divisors: Any) -> Any:
    """``base + λ Σ w_i m_i δ_i / D``: only what has the sign of the sum counts; a sum of 0 is positive."""
    terms = _terms(x, factors, thinnings)
    elected: Any = sum(terms)
    sign = where(elected >= 0.0, 1.0, -1.0)
    aligned = [term * sign for term in terms]
    # Not `maximum`: NaN must stay NaN.
    agreeing = [where(value < 0.0, 0.0, value) for value in aligned]
    total = sum(agreeing) * sign
    if divisors is not None:
        divisor: Any = sum(where(value > 0.0, w, 0.0) for value, w in zip(agreeing, divisors, strict=True))
        # Where no one agrees there is nothing to divide.
        total = total / where(divisor == 0.0, 1.0, divisor)
    return x[0] + scale * total


def _terms(x: Sequence[Any], factors: Sequence[Any], thinnings: Sequence[Any]) -> list[Any]:
    differences = [v - x[0] for v in x[1:]]
    each = zip(differences, factors, thinnings, strict=True)
    return [_thinned(difference, abs(difference), factor, thinning) for difference, factor, thinning in each]


def _thinned(value: Any, magnitude: Any, factor: Any, thinning: Any) -> Any:
    """Return ``factor * value`` where it is kept, else 0; what is dropped is multiplied by 0, so that NaN stays NaN."""
    if thinning is None:
        return factor * value
    return where(_is_kept(magnitude, thinning), factor, 0.0) * value


def _is_kept(magnitude: Any, thinning: Any) -> Any:
    if isinstance(thinning, Value):
        # What a recording makes of `Keep`.
        return thinning
    kept = thinning.down_to.keeps(magnitude)
    return kept if thinning.above is None else kept & ~thinning.above.keeps(magnitude)


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
