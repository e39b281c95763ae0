"""The difference between two models question by question: intervals and tests that know of clusters.

Why not simply McNemar's test and a percentile bootstrap: in 2,000 simulated comparisons of equal models on 30 uneven
clusters the first calls one in three to three in four a difference, the second 8 %, and with ten clusters 12 %
(``tests/evaluation/test_false_alarms.py``). The test by sign flips holds its 5 % for any number of clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from mergeline.evaluation.compare.statistics import SIGNIFICANCE, Interval, design_effect, grouped, mcnemar_p_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BOOTSTRAP_DRAWS = 5_000
BOOTSTRAP_SEED = 0

# Clusters drawn at a time: 32 MB of indices.
_DRAWN_AT_ONCE = 4_000_000
# Additions that the exact distribution of sign flips may cost: about a second.
_EXACT_SIGN_FLIPS = 1_000_000_000


def sign_flip_p_value(differences: Sequence[int], clusters: Sequence[Hashable]) -> float:
    """Return the exact two-sided p value of the test that swaps two models' answers cluster by cluster, in [0, 1].

    Under the null hypothesis that the models are interchangeable, the sum s_g of a cluster's differences is as
    likely to be -s_g. The p value is the share of all 2^G sign patterns whose |Σ ±s_g| reaches |Σ s_g|. Where every
    cluster is a single question this is McNemar's exact test. Fewer than six clusters that differ never reach 0.05.

    Args:
        differences: One a question: -1, 0 or 1.
        clusters: The cluster of each, in the same order.
    """
    totals = [abs(round(math.fsum(member))) for member in grouped(differences, clusters)]
    totals = sorted(total for total in totals if total)
    observed = abs(sum(differences))
    if not totals:
        return 1.0
    if totals[-1] == 1:
        fewer = (len(totals) - observed) // 2
        return mcnemar_p_value(len(totals) - fewer, fewer)
    if len(totals) * sum(totals) > _EXACT_SIGN_FLIPS:
        # So many clusters make the sum normal; its variance is Σ s_g².
        return math.erfc(observed / math.sqrt(2 * sum(total**2 for total in totals)))
    return _exact_sign_flip_p_value(totals, observed)


def _exact_sign_flip_p_value(totals: Sequence[int], observed: int) -> float:
    import numpy as np

    # shares[k]: share of sign patterns whose negative totals add up to k, hence whose sum is sum(totals) - 2k.
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

    The hull of :func:`cluster_bootstrap` and of :func:`tango_interval` on the effective number of questions: the
    bootstrap cannot see further than the differences at hand, so that two models that never differ on ten questions
    would be equal beyond doubt.
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

    Whole clusters are drawn with replacement, so that questions on one story count as the one piece of evidence
    that they are. Where every cluster is a single question this is the plain paired bootstrap. The quantiles lie
    further out than the confidence says, since plain percentiles are too narrow for few clusters: for G of them at
    Φ(-√(G / (G - 1)) t), with t Student's quantile for G - 1 degrees of freedom.

    Args:
        differences: One a question, e.g. -1, 0 or 1, in [-1, 1].
        clusters: The cluster of each, in the same order.
        draws: Bootstrap samples.
        seed: The same seed gives the same interval.
        confidence: How often the interval holds the true mean, in (0, 1).

    Returns:
        [-1, 1] for a single cluster, from which nothing can be said.

    References:
        Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015.
    """
    import numpy as np

    members = grouped(differences, clusters)
    count = len(members)
    if count < 2:
        return Interval(-1.0, 1.0)
    sums = np.array([math.fsum(values) for values in members])
    sizes = np.array([len(values) for values in members])
    means = _drawn_means(sums, sizes, draws, seed)
    t = student_quantile((1 + confidence) / 2, count - 1)
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * t)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _drawn_means(sums: NDArray[np.float64], sizes: NDArray[np.int64], draws: int, seed: int) -> NDArray[np.float64]:
    import numpy as np

    rng = np.random.default_rng(seed)
    count = len(sums)
    at_once = max(1, _DRAWN_AT_ONCE // count)
    means = np.empty(draws)
    for start in range(0, draws, at_once):
        drawn = rng.integers(0, count, (min(at_once, draws - start), count))
        means[start : start + len(drawn)] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def student_quantile(probability: float, degrees_of_freedom: int) -> float:
    """Return Student's t quantile, within 1 % of it from two degrees of freedom on, for ``probability`` up to 0.99.

    References:
        Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z, v = NormalDist().inv_cdf(probability), degrees_of_freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92_160 * v**4)
    )


def tango_interval(wins: float, losses: float, questions: float, confidence: float = 1 - SIGNIFICANCE) -> Interval:
    """Return Tango's score interval for the difference of two paired proportions, within [-1, 1].

    All differences δ for which |wins - losses - nδ| ≤ z √(n (2q + δ(1 - δ))), where q is the likeliest share of
    losses given δ. Like Wilson's interval it holds for few questions and for none that differ.

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
    return Interval(_root(excess, observed, -1.0), _root(excess, observed, 1.0))


def _root(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Bisect for the end of the interval, from a point of it towards the end of the range."""
    if excess(outside) <= 0:
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        if excess(middle) <= 0:
            inside = middle
        else:
            outside = middle
    return inside
