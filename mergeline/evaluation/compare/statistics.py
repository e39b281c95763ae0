"""Intervals, standard errors and tests for accuracies and for differences between two models."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

SIGNIFICANCE = 0.05
"""A difference is detected if its corrected p values are below this and its 95 % interval excludes 0."""

POWER = 0.8
"""Probability of detecting the smallest difference that is called detectable."""

# With fewer questions that only one model answers correctly, the exact two-sided p value is never below 0.05.
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

    Unlike p ± z·stderr it stays within [0, 1] and holds for few trials. It assumes independent trials; for questions
    in clusters, divide both counts by their :func:`design_effect`.

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
    # 0 and 1 exactly: rounding would give a bound just inside or outside.
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half)


def mcnemar_p_value(wins: int, losses: int) -> float:
    """Return the exact two-sided p value of McNemar's test, in [0, 1].

    Under the null hypothesis, a question that only one of two models answers correctly is equally likely to be either
    model's: the wins follow a binomial distribution with probability 1/2. Twice its smaller tail, at most 1.

    References:
        McNemar, Psychometrika 1947; recommended for two classifiers on one test set by Dietterich, Neural
        Computation 1998.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p values with Holm's correction for multiple tests, in the order given.

    References:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 1979.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return tuple(corrected)


def clustered_stderr(values: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """Return the standard error of a mean of values that come in clusters.

    With n values of mean m in G clusters, where cluster g has n_g values with sum s_g,

        √(G / (G - 1) · Σ_g (s_g - m n_g)²) / n

    If every cluster is a single value, this is the sample standard deviation over √n, lm-eval's own stderr.

    Returns:
        None for a single cluster, which allows no estimate.

    References:
        Liang and Zeger, Biometrika 1986; for evaluations Miller, "Adding Error Bars to Evals", arXiv 2411.00640.
    """
    groups = grouped(values, clusters)
    if len(groups) < 2:
        return None
    mean = math.fsum(values) / len(values)
    squares = math.fsum((math.fsum(group) - mean * len(group)) ** 2 for group in groups)
    return math.sqrt(len(groups) / (len(groups) - 1) * squares) / len(values)


def design_effect(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Return the variance of the mean of clustered values over that of independent values; at least 1.

    Values that are all equal, or of a single cluster, do not show the correlation within clusters: each cluster then
    counts as one value.
    """
    clustered = clustered_stderr(values, clusters)
    independent = clustered_stderr(values, range(len(values)))
    if clustered is None or not independent:
        return len(values) / len(set(clusters))
    return max(1.0, (clustered / independent) ** 2)


def detectable_difference(stderr: float, questions: int) -> float:
    """Return the smallest true difference that a comparison with this standard error detects with 80 % power.

        (z(1 - 0.05/2) + z(0.8)) · stderr

    but at least six questions: the exact test is never significant with fewer.
    """
    normal = NormalDist()
    return max(
        (normal.inv_cdf(1 - SIGNIFICANCE / 2) + normal.inv_cdf(POWER)) * stderr,
        min(1.0, _FEWEST_TO_DETECT / questions),
    )


def grouped(values: Sequence[float], clusters: Sequence[Hashable]) -> list[list[float]]:
    """Return the values of each cluster; clusters are in the order of their first value."""
    groups: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    return list(groups.values())
