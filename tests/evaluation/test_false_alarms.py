"""How often two models that are equally good are told apart: never more than one time in twenty."""

from functools import partial

import numpy
import pytest

from mergeline.evaluation.compare import comparison
from mergeline.evaluation.compare.paired_differences import cluster_bootstrap, sign_flip_p_value
from mergeline.evaluation.compare.statistics import mcnemar_p_value
from mergeline.evaluation.results import Answer, Evaluation, EvaluationSettings

compare = partial(comparison.compare, margin=0.02)

COMPARISONS = 2_000
# A true rate of 5 % shows within three standard deviations, 0.5 % each, in so many comparisons.
NOISE = 3 * (0.05 * 0.95 / COMPARISONS) ** 0.5


def equal_models(rng, stories, questions, models=3):
    """Answers of models that know each story or do not, equally often: hits of each, and each question's story.

    A story is known with its own probability for each model; stories have uneven numbers of questions.
    """
    shares = rng.lognormal(0, 0.8, stories)
    sizes = numpy.maximum(1, (shares / shares.sum() * questions).astype(int))
    story = numpy.repeat(numpy.arange(stories), sizes)
    known = rng.beta(0.6, 0.3, (models, stories))[:, story]
    return rng.random(known.shape) < known, story


def evaluation(label, hits, story):
    answers = tuple(
        Answer(str(number), str(cluster), 0, int(not hit), (0.0, 0.0, 0.0, 0.0))
        for number, (hit, cluster) in enumerate(zip(hits.tolist(), story.tolist(), strict=True))
    )
    accuracy = float(hits.mean())
    return Evaluation(label, label, EvaluationSettings("spartqa_train"), accuracy, 0.0, "1.0", "same", "", answers)


@pytest.mark.slow
@pytest.mark.parametrize("stories", [10, 30, 120])
def test_equal_models_on_stories_are_rarely_told_apart(stories, record_property):
    """A merge and two parents, all equal: how often the merge gets any verdict but `no detectable difference`.

    Beside it the naive test, which takes questions on one story for independent, of the merge and one parent.
    """
    rng = numpy.random.default_rng(20240423)
    naive = by_story = alarms = 0
    for _ in range(COMPARISONS):
        hits, story = equal_models(rng, stories, 480)
        differences = [(hits[0].astype(int) - parent).tolist() for parent in hits[1:]]
        p_values = [sign_flip_p_value(difference, story.tolist()) for difference in differences]
        naive += mcnemar_p_value(differences[0].count(1), differences[0].count(-1)) < 0.05
        by_story += p_values[0] < 0.05
        # The verdict takes this and more, so that the costly part is left out where it cannot matter.
        if min(p_values) < 0.05 / 2:
            merge, *parents = (evaluation(str(number), model, story) for number, model in enumerate(hits))
            verdicts = {comparison.verdict for comparison in compare(merge, parents)}
            alarms += verdicts != {"no detectable difference"}
    rates = {"naive": naive / COMPARISONS, "by story": by_story / COMPARISONS, "verdict": alarms / COMPARISONS}
    record_property("false alarm rates", str(rates))
    print(stories, rates)
    assert rates["verdict"] <= 0.05
    assert rates["by story"] <= 0.05 + NOISE
    assert rates["naive"] > 0.2


@pytest.mark.slow
def test_why_the_bootstrap_alone_is_not_enough():
    """On ten uneven stories the interval excludes 0 too often, even where its quantiles are those for few stories."""
    rng = numpy.random.default_rng(1)
    alarms = 0
    for _ in range(500):
        (first, second), story = equal_models(rng, 10, 480, models=2)
        interval = cluster_bootstrap((first.astype(int) - second).tolist(), story.tolist(), draws=1000)
        alarms += interval.low > 0 or interval.high < 0
    assert alarms / 500 > 0.05
