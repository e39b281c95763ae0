import math
from itertools import product

import numpy
import pytest
import scipy.optimize
import scipy.stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint

from mergeline.evaluation.compare.paired_differences import (
    cluster_bootstrap,
    paired_interval,
    sign_flip_p_value,
    tango_interval,
)
from mergeline.evaluation.compare.statistics import (
    Interval,
    clustered_stderr,
    design_effect,
    detectable_difference,
    holm,
    mcnemar_p_value,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (317, 1000), (1, 1)])
def test_wilson_interval_matches_scipy(successes, trials):
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    interval = wilson_interval(successes, trials)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_of_the_missions_score():
    # 0.317 of 1,000: the interval published with the task's research, [0.289, 0.346].
    interval = wilson_interval(317, 1000)
    assert (round(interval.low, 3), round(interval.high, 3)) == (0.289, 0.346)


def test_wilson_interval_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="11 successes in 10 trials"):
        wilson_interval(11, 10)


@pytest.mark.parametrize(
    ("wins", "losses"), [(0, 0), (1, 0), (5, 5), (3, 12), (92, 80), (254, 0), (900, 1100), (1000, 1200), (5000, 5200)]
)
def test_mcnemar_matches_scipys_binomial_test(wins, losses):
    expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    # The incomplete beta function keeps about 12 digits.
    assert mcnemar_p_value(wins, losses) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p_value(losses, wins) == mcnemar_p_value(wins, losses)


@pytest.mark.parametrize(("wins", "losses"), [(3, 12), (254, 0), (1000, 1100)])
def test_mcnemar_is_the_sum_of_binomial_terms(wins, losses):
    total = wins + losses
    exact = 2 * sum(math.comb(total, k) for k in range(min(wins, losses) + 1)) / 2**total
    assert mcnemar_p_value(wins, losses) == pytest.approx(exact, rel=1e-9)


def test_mcnemar_of_very_many_questions_underflows_to_zero():
    assert mcnemar_p_value(100_000, 0) == 0.0


def test_holm_on_a_worked_example():
    # Ordered 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, each at least as large as the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_holm_leaves_one_p_value_alone_and_never_exceeds_one():
    assert holm([0.04]) == (0.04,)
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([]) == ()


@pytest.fixture
def differences():
    return numpy.random.default_rng(7).choice([-1, 0, 1], 400, p=[0.15, 0.6, 0.25]).tolist()


def test_bootstrap_without_clusters_matches_the_normal_approximation(differences):
    interval = cluster_bootstrap(differences, range(400))
    mean, stderr = numpy.mean(differences), numpy.std(differences) / 20
    # 5,000 draws place a 2.5 % quantile to about 3 % of the standard error.
    assert interval.low == pytest.approx(mean - 1.96 * stderr, abs=0.1 * stderr)
    assert interval.high == pytest.approx(mean + 1.96 * stderr, abs=0.1 * stderr)


def test_bootstrap_matches_scipys(differences):
    theirs = scipy.stats.bootstrap(
        (differences,), numpy.mean, n_resamples=5000, method="percentile", rng=numpy.random.default_rng(1)
    ).confidence_interval
    interval = cluster_bootstrap(differences, range(400))
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_a_cluster_of_eight_copies_counts_as_one_question(differences):
    eightfold = [difference for difference in differences for _ in range(8)]
    clusters = [number for number in range(400) for _ in range(8)]
    assert cluster_bootstrap(eightfold, clusters) == cluster_bootstrap(differences, range(400))
    unclustered = cluster_bootstrap(eightfold, range(3200))
    clustered = cluster_bootstrap(eightfold, clusters)
    ratio = (clustered.high - clustered.low) / (unclustered.high - unclustered.low)
    assert ratio == pytest.approx(math.sqrt(8), rel=0.05)


def test_the_bootstrap_repeats_itself_and_its_seed_matters(differences):
    assert cluster_bootstrap(differences, range(400)) == cluster_bootstrap(differences, range(400))
    assert cluster_bootstrap(differences, range(400), seed=1) != cluster_bootstrap(differences, range(400))


def test_drawing_in_portions_changes_nothing_but_memory(differences, monkeypatch):
    whole = cluster_bootstrap(differences, range(400))
    monkeypatch.setattr("mergeline.evaluation.compare.paired_differences._BATCH_INDICES", 4_000)
    portions = cluster_bootstrap(differences, range(400))
    assert (portions.low, portions.high) == (whole.low, whole.high)


def test_one_cluster_says_nothing():
    interval = cluster_bootstrap([1, 1, 1], ["story", "story", "story"])
    assert (interval.low, interval.high) == (-1.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(3, 10), (317, 1000)])
def test_wilson_interval_matches_statsmodels(successes, trials):
    interval = wilson_interval(successes, trials)
    assert (interval.low, interval.high) == pytest.approx(proportion_confint(successes, trials, method="wilson"))


@pytest.mark.parametrize(("wins", "losses"), [(254, 0), (245, 0), (92, 80), (165, 162)])
def test_mcnemar_matches_statsmodels(wins, losses):
    expected = mcnemar([[500, wins], [losses, 100]], exact=True).pvalue
    assert mcnemar_p_value(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_holm_matches_statsmodels():
    p_values = numpy.random.default_rng(3).random(20) ** 3
    assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_clustered_stderr_matches_statsmodels():
    rng = numpy.random.default_rng(5)
    clusters = rng.integers(0, 40, 300)
    values = (rng.normal(size=40)[clusters] + rng.normal(size=300) > 0).astype(float)
    fit = OLS(values, numpy.ones(300)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    assert clustered_stderr(values.tolist(), clusters.tolist()) == pytest.approx(fit.bse[0])


def test_clustered_stderr_without_clusters_is_lm_evals(differences):
    assert clustered_stderr(differences, range(400)) == pytest.approx(scipy.stats.sem(differences))
    assert clustered_stderr(differences, ["story"] * 400) is None


def test_design_effect_of_copies_is_their_number():
    values = numpy.random.default_rng(5).integers(0, 2, 500).astype(float).tolist()
    copied = [value for value in values for _ in range(4)]
    clusters = [number for number in range(500) for _ in range(4)]
    # Not 4 exactly: each standard error divides by its own number less one.
    assert design_effect(copied, clusters) == pytest.approx(4, rel=0.01)
    assert design_effect(values, range(500)) == 1.0
    assert design_effect([1.0] * 10, range(10)) == 1.0


def test_values_that_never_differ_are_worth_one_a_cluster():
    """A model that is always right on 1,000 questions in 30 clusters has been right 30 times."""
    clusters = [number % 30 for number in range(1000)]
    assert design_effect([1.0] * 1000, clusters) == pytest.approx(1000 / 30)
    interval = paired_interval([0] * 1000, clusters)
    alone = paired_interval([0] * 30, range(30))
    assert (interval.low, interval.high) == pytest.approx((alone.low, alone.high))
    assert design_effect([1.0, 0.0], ["story", "story"]) == 2.0


def test_detectable_difference_matches_statsmodels_and_the_research():
    # 1,000 questions of which 5 % differ: 2.0 points at 80 % power.
    stderr = math.sqrt(0.05 / 1000)
    expected = NormalIndPower().solve_power(nobs1=1000, alpha=0.05, power=0.8, ratio=0) * math.sqrt(0.05)
    assert detectable_difference(stderr, 1000) == pytest.approx(expected, rel=1e-4)
    assert round(detectable_difference(stderr, 1000), 3) == 0.020


def test_nothing_below_six_questions_is_detectable():
    assert detectable_difference(0.0, 1000) == 0.006
    assert mcnemar_p_value(5, 0) > 0.05 > mcnemar_p_value(6, 0)


@pytest.mark.parametrize(
    ("clusters", "confidence", "t"),
    # Student's quantiles: tan(π (p - 1/2)) for one degree of freedom, closed form for two, from a table for nine.
    [
        (2, 0.6, math.tan(math.pi * 0.3)),
        (3, 0.6, 0.6 * math.sqrt(2 / (1 - 0.6**2))),
        (3, 0.95, 0.95 * math.sqrt(2 / (1 - 0.95**2))),
        (10, 0.95, 2.2621571628),
    ],
)
def test_the_bootstraps_quantiles_are_students(clusters, confidence, t, monkeypatch):
    """Of means drawn as 0, 1 / draws, ..., the ends of the interval are the shares at which they are taken."""
    monkeypatch.setattr(
        "mergeline.evaluation.compare.paired_differences._bootstrap_means",
        lambda sums, sizes, draws, seed: numpy.linspace(0, 1, draws),
    )
    interval = cluster_bootstrap([1, -1] * clusters, [n // 2 for n in range(2 * clusters)], confidence=confidence)
    share = scipy.stats.norm.cdf(-math.sqrt(clusters / (clusters - 1)) * t)
    assert (interval.low, interval.high) == pytest.approx((share, 1 - share), rel=1e-6)


def test_sign_flips_match_all_patterns_counted_one_by_one():
    rng = numpy.random.default_rng(11)
    for _ in range(20):
        clusters = rng.integers(0, 9, 40).tolist()
        differences = rng.choice([-1, 0, 1], 40, p=[0.2, 0.4, 0.4]).tolist()
        totals = [sum(d for d, c in zip(differences, clusters, strict=True) if c == k) for k in set(clusters)]
        sums = [
            abs(sum(s * t for s, t in zip(signs, totals, strict=True)))
            for signs in product((1, -1), repeat=len(totals))
        ]
        expected = sum(value >= abs(sum(totals)) for value in sums) / len(sums)
        assert sign_flip_p_value(differences, clusters) == pytest.approx(expected, rel=1e-12)


def test_sign_flips_of_single_questions_are_mcnemars_test(differences):
    wins, losses = differences.count(1), differences.count(-1)
    assert sign_flip_p_value(differences, range(400)) == mcnemar_p_value(wins, losses)
    assert sign_flip_p_value([0, 0], [1, 2]) == 1.0


def test_sign_flips_of_very_many_clusters_are_nearly_normal(monkeypatch):
    rng = numpy.random.default_rng(2)
    differences = rng.choice([-1, 0, 1], 6000, p=[0.2, 0.58, 0.22]).tolist()
    clusters = [number // 3 for number in range(6000)]
    exact = sign_flip_p_value(differences, clusters)
    monkeypatch.setattr("mergeline.evaluation.compare.paired_differences._EXACT_SIGN_FLIPS", 0)
    assert 0.0001 < exact < 0.05
    assert sign_flip_p_value(differences, clusters) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize(("wins", "losses", "questions"), [(92, 80, 1000), (254, 0, 1000), (0, 0, 20), (1, 6, 50)])
def test_tango_interval_ends_where_the_score_statistic_is_z(wins, losses, questions):
    """The likeliest share of losses is found by scipy here, by formula there."""

    def statistic(delta):
        def surprise(share):
            cells = ((wins, share + delta), (losses, share), (questions - wins - losses, 1 - 2 * share - delta))
            return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

        low, high = max(0.0, -delta), (1 - delta) / 2
        share = scipy.optimize.minimize_scalar(surprise, bounds=(low, high), options={"xatol": 1e-12}).x
        variance = questions * (2 * share + delta * (1 - delta))
        return (wins - losses - questions * delta) / math.sqrt(variance)

    interval = tango_interval(wins, losses, questions)
    z = scipy.stats.norm.ppf(0.975)
    assert (statistic(interval.low), statistic(interval.high)) == pytest.approx((z, -z), rel=1e-3)


def test_tango_interval_of_models_that_never_differ():
    # z² / (n + z²) by hand.
    interval = tango_interval(0, 0, 10)
    assert (interval.low, interval.high) == pytest.approx((-0.27753, 0.27753), abs=1e-5)


def test_tango_interval_of_a_model_that_wins_everything():
    """At an observed difference of 1, n(1 - δ)² ≤ z²(1 - δ)(1 + δ) leaves δ ≥ (n - z²) / (n + z²)."""
    z = scipy.stats.norm.ppf(0.975)
    interval = tango_interval(20, 0, 20)
    assert (interval.low, interval.high) == pytest.approx(((20 - z**2) / (20 + z**2), 1.0), abs=1e-9)
    mirrored = tango_interval(0, 20, 20)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low), abs=1e-9)


def test_paired_interval_holds_both_its_parts(differences):
    interval = paired_interval([1] * 3 + [0] * 997, list(range(1000)))
    assert interval.low < 0 < 0.003 < interval.high
    assert paired_interval([1, 1, 1], ["story"] * 3) == Interval(-1.0, 1.0)
