"""What a number of right answers says, and what the difference between two models' answers says."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

SIGNIFICANCE = 0.05
"""A difference counts where its corrected p values are below this and its interval, of level 1 - this, excludes 0."""

POWER = 0.8
"""Chance of finding a difference as large as the smallest that is called detectable."""

# Terms of at most this many bits are added as exact integers, which takes milliseconds.
_EXACT_BINOMIAL_LIMIT = 2_000
# Fewer questions that only one model answers rightly never give an exact two-sided p value below 0.05.
_FEWEST_TO_DETECT = 6


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def wilson_interval(successes: float, trials: float, confidence: float = 1 - SIGNIFICANCE) -> Interval:
    """Return Wilson's score interval for a proportion, in [0, 1].

    With p the proportion, n the trials and z the normal quantile of the confidence,

        (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n)

    Unlike p ± z·stderr it stays within [0, 1] and holds for few trials. The trials are taken as independent; for
    questions in clusters, divide both numbers by their :func:`design_effect`.

    References:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials is no proportion")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / trials
    scale = 1 + z**2 / trials
    centre = (p + z**2 / (2 * trials)) / scale
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / scale
    # At the ends the bound is 0 or 1 exactly; rounding would leave it a hair inside or outside.
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half)


def mcnemar_p_value(wins: int, losses: int) -> float:
    """Return the exact two-sided p value of McNemar's test, in [0, 1].

    Under the null hypothesis each question that only one of two models answers rightly is as likely to be either's:
    wins follow a binomial distribution with probability 1/2. Twice its smaller tail, at most 1.

    References:
        McNemar, Psychometrika 1947; recommended for two classifiers on one test set by Dietterich, Neural
        Computation 1998.
    """
    n, fewer = wins + losses, min(wins, losses)
    if n <= _EXACT_BINOMIAL_LIMIT:
        return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    largest = max(logs)
    tail = math.log(math.fsum(math.exp(value - largest) for value in logs)) + largest - n * math.log(2)
    return min(1.0, 2 * math.exp(tail))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p values corrected for being several, in the order given.

    References:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 1979.
    """
    corrected = [0.0] * len(p_values)
    reached = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = reached
    return tuple(corrected)


def clustered_stderr(values: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """Return the standard error of a mean of values that come in clusters.

    With n values of mean m, and cluster g of G holding n_g of them that add up to s_g,

        √(G / (G - 1) · Σ_g (s_g - m n_g)²) / n

    Where every cluster is a single value this is the sample standard deviation over √n, lm-eval's own stderr.

    Returns:
        None for a single cluster, from which nothing can be said.

    References:
        Liang and Zeger, Biometrika 1986; for evaluations Miller, "Adding Error Bars to Evals", arXiv 2411.00640.
    """
    members = grouped(values, clusters)
    if len(members) < 2:
        return None
    mean = math.fsum(values) / len(values)
    squares = math.fsum((math.fsum(member) - mean * len(member)) ** 2 for member in members)
    return math.sqrt(len(members) / (len(members) - 1) * squares) / len(values)


def design_effect(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Return how many clustered values say as much about the mean as one independent value would; at least 1.

    Values that are all the same, or of a single cluster, do not show how alike a cluster's values are: each cluster
    then counts as one value.
    """
    clustered = clustered_stderr(values, clusters)
    independent = clustered_stderr(values, range(len(values)))
    if clustered is None or not independent:
        return len(values) / len(set(clusters))
    return max(1.0, (clustered / independent) ** 2)


def detectable_difference(stderr: float, questions: int) -> float:
    """Return the smallest true difference that a comparison with this standard error finds four times in five.

        (z(1 - 0.05/2) + z(0.8)) · stderr

    never below six questions: the exact test finds nothing in fewer.
    """
    normal = NormalDist()
    return max(
        (normal.inv_cdf(1 - SIGNIFICANCE / 2) + normal.inv_cdf(POWER)) * stderr,
        min(1.0, _FEWEST_TO_DETECT / questions),
    )


def grouped(values: Sequence[float], clusters: Sequence[Hashable]) -> list[list[float]]:
    """Return the values of each cluster, clusters in the order of their first value."""
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(value)
    return list(members.values())
