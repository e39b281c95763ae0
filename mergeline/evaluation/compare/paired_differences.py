"""Intervals and tests for the paired difference between two models on questions that come in clusters.

McNemar's test and a percentile bootstrap are not enough: in 2,000 simulated comparisons of equal models on 30 uneven
clusters, McNemar's test reports a difference in one of three to three of four, the bootstrap in 8 %, and with ten
clusters in 12 % (``tests/evaluation/test_false_alarms.py``). The sign-flip test keeps to 5 % for any number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from mergeline.evaluation.compare.statistics import SIGNIFICANCE, Interval, design_effect, grouped, mcnemar_p_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BOOTSTRAP_DRAWS = 5_000
BOOTSTRAP_SEED = 0

# Bootstrap indices per batch: 32 MB.
_BATCH_INDICES = 4_000_000
# Most additions for the exact distribution of sign flips: about a second.
_EXACT_SIGN_FLIPS = 1_000_000_000


def sign_flip_p_value(differences: Sequence[int], clusters: Sequence[Hashable]) -> float:
    """Return the exact two-sided p value of the test that swaps two models' answers cluster by cluster, in [0, 1].

    Under the null hypothesis that the models are interchangeable, the sum s_g of a cluster's differences is as
    likely to be -s_g. The p value is the share of all 2^G sign patterns whose |Σ ±s_g| reaches |Σ s_g|. If every
    cluster is a single question, this is McNemar's exact test. With fewer than six clusters that differ, it is never
    below 0.05.

    Args:
        differences: Per question: -1, 0 or 1.
        clusters: The cluster of each question, in the same order.
    """
    totals = [abs(round(math.fsum(values))) for values in grouped(differences, clusters)]
    totals = sorted(total for total in totals if total)
    observed = abs(sum(differences))
    if not totals:
        return 1.0
    if totals[-1] == 1:
        fewer = (len(totals) - observed) // 2
        return mcnemar_p_value(len(totals) - fewer, fewer)
    if len(totals) * sum(totals) > _EXACT_SIGN_FLIPS:
        # With so many clusters the sum is close to normal, with variance Σ s_g².
        return math.erfc(observed / math.sqrt(2 * sum(total**2 for total in totals)))
    return _exact_sign_flip_p_value(totals, observed)


def _exact_sign_flip_p_value(totals: Sequence[int], observed: int) -> float:
    import numpy as np

    # shares[k]: share of sign patterns whose negative totals add up to k, so that the sum is sum(totals) - 2k.
    shares = np.zeros(sum(totals) + 1)
    shares[0] = 1.0
    reached = 0
    for total in totals:
        reached += total
        shares[: reached + 1] *= 0.5
        shares[total : reached + 1] += shares[: reached + 1 - total].copy()
    furthest = (reached - observed) // 2
    return min(1.0, 2 * math.fsum(shares[: furthest + 1])) if observed else 1.0


def paired_interval(differences: Sequence[int], clusters: Sequence[Hashable]) -> Interval:
    """Return a 95 % interval for the mean of paired differences, within [-1, 1].

    The hull of :func:`cluster_bootstrap` and of :func:`tango_interval` on the effective number of questions. The
    bootstrap alone would be too sure: for two models that never differ on ten questions its interval is [0, 0].
    """
    bootstrap = cluster_bootstrap(differences, clusters)
    effect = design_effect(differences, clusters)
    wins, losses = differences.count(1), differences.count(-1)
    score = tango_interval(wins / effect, losses / effect, len(differences) / effect)
    return Interval(min(bootstrap.low, score.low), max(bootstrap.high, score.high))


def cluster_bootstrap(
    differences: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    draws: int = BOOTSTRAP_DRAWS,
    seed: int = BOOTSTRAP_SEED,
    confidence: float = 1 - SIGNIFICANCE,
) -> Interval:
    """Return an expanded percentile bootstrap interval for the mean of paired differences.

    Whole clusters are drawn with replacement, since questions on one story are not independent. If every cluster is a
    single question, this is the plain paired bootstrap. Plain percentiles are too narrow for few clusters, so the
    quantiles are expanded: for G clusters to Φ(-√(G / (G - 1)) t), with t Student's quantile for G - 1 degrees of
    freedom.

    Args:
        differences: Per question, in [-1, 1], e.g. -1, 0 or 1.
        clusters: The cluster of each question, in the same order.
        draws: Number of bootstrap samples.
        seed: The same seed gives the same interval.
        confidence: Coverage of the true mean, in (0, 1).

    Returns:
        [-1, 1] for a single cluster, which allows no estimate.

    References:
        Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015.
    """
    import numpy as np
    from scipy.special import stdtrit

    groups = grouped(differences, clusters)
    count = len(groups)
    if count < 2:
        return Interval(-1.0, 1.0)
    sums = np.array([math.fsum(values) for values in groups])
    sizes = np.array([len(values) for values in groups])
    means = _bootstrap_means(sums, sizes, draws, seed)
    t = float(stdtrit(count - 1, (1 + confidence) / 2))
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * t)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _bootstrap_means(sums: NDArray[np.float64], sizes: NDArray[np.int64], draws: int, seed: int) -> NDArray[np.float64]:
    import numpy as np

    rng = np.random.default_rng(seed)
    count = len(sums)
    batch_draws = max(1, _BATCH_INDICES // count)
    means = np.empty(draws)
    for start in range(0, draws, batch_draws):
        indices = rng.integers(0, count, (min(batch_draws, draws - start), count))
        means[start : start + len(indices)] = sums[indices].sum(axis=1) / sizes[indices].sum(axis=1)
    return means


def tango_interval(wins: float, losses: float, questions: float, confidence: float = 1 - SIGNIFICANCE) -> Interval:
    """Return Tango's score interval for the difference of two paired proportions, within [-1, 1].

    All differences δ for which |wins - losses - nδ| ≤ z √(n (2q + δ(1 - δ))), where q is the maximum likelihood
    estimate of the share of losses given δ. Like Wilson's interval it holds for few questions, even if none differ.

    References:
        Tango, "Equivalence Test and Confidence Interval for the Difference in Proportions for the Paired-Sample
        Design", Statistics in Medicine 1998.
    """
    z, n = NormalDist().inv_cdf((1 + confidence) / 2), questions

    def excess(delta: float) -> float:
        b = -wins - losses + (2 * n - wins + losses) * delta
        share = (math.sqrt(max(0.0, b**2 + 8 * n * losses * delta * (1 - delta))) - b) / (4 * n)
        variance = max(0.0, n * (2 * share + delta * (1 - delta)))
        return abs(wins - losses - n * delta) - z * math.sqrt(variance)

    observed = (wins - losses) / n
    return Interval(_end(excess, observed, -1.0), _end(excess, observed, 1.0))


def _end(excess: Callable[[float], float], observed: float, limit: float) -> float:
    """Return where ``excess`` changes sign between the observed difference, inside the interval, and ``limit``."""
    from scipy.optimize import brentq

    if excess(limit) <= 0:
        return limit
    # At an observed difference of ±1 the excess is 0, although the interval continues from there.
    inside = observed + 1e-9 * (limit - observed)
    root: Any = brentq(excess, inside, limit, xtol=1e-12)
    return float(root)
