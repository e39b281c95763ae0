from functools import partial

import numpy
import pytest
from lm_eval.api.metrics import brier_score

from mergeline.evaluation.compare import comparison
from mergeline.evaluation.compare.breakdown import break_down
from mergeline.evaluation.compare.model_summary import calibration, choice_probabilities, summarise
from mergeline.evaluation.compare.statistics import wilson_interval
from mergeline.evaluation.questions.question_columns import question_columns
from mergeline.evaluation.results import Answer

compare_with_parents = partial(comparison.compare_with_parents, margin=0.02)


@pytest.fixture
def unsure(made_up):
    """Two hundred answers with drawn log-probabilities."""
    rng = numpy.random.default_rng(3)
    values = rng.normal(size=(200, 4)) * 2 - 5
    return made_up(
        "unsure", rng.integers(0, 4, 200).tolist(), values.argmax(1).tolist(), log_probabilities=values.tolist()
    )


def test_probabilities_are_among_the_choices():
    answer = Answer("q", "s", 0, 0, (-1000.0, -1000.0, -1000.0, -1001.0986122886682))
    assert choice_probabilities(answer) == pytest.approx((0.3, 0.3, 0.3, 0.1))


def test_brier_is_lm_evals(unsure):
    predicted = [choice_probabilities(answer) for answer in unsure.answers]
    targets = numpy.array([answer.target for answer in unsure.answers])
    expected = brier_score(list(zip(targets, predicted, strict=True)))
    assert summarise(unsure).brier == pytest.approx(expected)


def test_numbers_of_a_model(unsure):
    summary = summarise(unsure)
    hits = [answer.is_correct for answer in unsure.answers]
    interval = wilson_interval(sum(hits), 200)
    assert (summary.low, summary.high) == (interval.low, interval.high)
    assert summary.clustered_stderr == pytest.approx(numpy.std(hits, ddof=1) / 200**0.5)
    assert sum(summary.histogram) == sum(summary.target_histogram) == 200
    assert summary.histogram[2] == [answer.prediction for answer in unsure.answers].count(2)
    majority = max(summary.target_histogram) / 200
    assert summary.above_majority == pytest.approx(unsure.accuracy - majority)
    assert 0 < summary.gold_probability < 1


def test_the_interval_of_eightfold_questions_is_that_of_an_eighth(made_up):
    once = made_up("once", [0] * 50, [0] * 30 + [1] * 20)
    clusters = [str(number // 8) for number in range(400)]
    eightfold = made_up("eightfold", [0] * 400, [0] * 240 + [1] * 160, clusters)
    single, copied = summarise(once), summarise(eightfold)
    # 49 degrees of freedom against 399: the design effect is 8.14, not 8.
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high), abs=0.003)


def test_calibration_by_hand():
    sure = Answer("1", "1", 0, 0, (0.0, -50.0, -50.0, -50.0))
    even = Answer("2", "2", 0, 1, (-1.0, -1.0, -50.0, -50.0))
    bins = calibration([sure, sure, even])
    assert [one.count for one in bins] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert (bins[9].confidence, bins[9].accuracy) == pytest.approx((1.0, 1.0))
    assert (bins[5].confidence, bins[5].accuracy) == pytest.approx((0.5, 0.0))


def test_a_perfectly_sure_and_wrong_model_has_the_largest_error(made_up):
    wrong = made_up("wrong", [0] * 4, [1] * 4, log_probabilities=[[-90.0, 0.0, -90.0, -90.0]] * 4)
    assert summarise(wrong).calibration_error == pytest.approx(1.0)
    assert summarise(wrong).brier == pytest.approx(2.0)


def test_breakdown_counts_and_intervals(made_up):
    columns = [{"relation": "left"}] * 6 + [{"relation": "right"}] * 4
    model = made_up("model", [0] * 10, [0] * 3 + [1] * 3 + [0] * 4, columns=columns)
    left, right = break_down([model], "relation").slices
    assert (left.value, left.n_questions, left.scores[0].correct) == ("left", 6, 3)
    assert (right.value, right.n_questions, right.scores[0].accuracy) == ("right", 4, 1.0)
    expected = wilson_interval(3, 6)
    assert (left.scores[0].low, left.scores[0].high) == (expected.low, expected.high)


def test_columns_with_few_values_are_broken_down_unless_others_are_named(made_up):
    columns = [{"kind": "ab"[number % 2], "number": str(number), "same": "x"} for number in range(30)]
    model = made_up("model", [0] * 30, [0] * 30, columns=columns)
    assert [one.column for one in compare_with_parents(model, []).breakdowns] == ["kind"]
    assert [one.column for one in compare_with_parents(model, [], columns=["same"]).breakdowns] == ["same"]
    with pytest.raises(ValueError, match="no column 'colour' to break accuracy down by; they have kind, number, same"):
        compare_with_parents(model, [], columns=["colour"])


def test_a_column_that_is_the_cluster_is_not_broken_down(made_up):
    columns = [{"phrase": "ab"[number % 2]} for number in range(10)]
    model = made_up("model", [0] * 10, [0] * 10, clusters=["ab"[number % 2] for number in range(10)], columns=columns)
    assert compare_with_parents(model, []).breakdowns == ()


def test_question_columns_are_short_shared_and_plain():
    rows = [
        {"id": str(number), "story": "s", "kind": ["a", "b"], "level": number % 3, "text": "x" * 90, "unique": number}
        for number in range(60)
    ]
    assert question_columns(rows)[4] == {"kind": "a, b", "level": "1"}


def test_retention_is_measured_where_one_parent_is_best(made_up):
    columns = [{"family": family} for family in ("compass", "clock", "plain") for _ in range(4)]
    right, wrong = [0] * 4, [1] * 4
    compass = made_up("a", [0] * 12, right + wrong + right, columns=columns)
    clock = made_up("b", [0] * 12, wrong + right + right, columns=columns)
    merge = made_up("m", [0] * 12, [0, 0, 0, 1, *right, *right], columns=columns)
    result = compare_with_parents(merge, [compass, clock])
    assert [(one.parent, one.value, one.share) for one in result.retentions] == [
        ("a", "compass", 0.75),
        ("b", "clock", 1.0),
    ]
    assert result.oracle_accuracy == 1.0
    (pair,) = result.parent_comparisons
    assert (pair.label, pair.reference, pair.wins, pair.losses, pair.both_right) == ("a", "b", 4, 4, 4)
