from dataclasses import replace
from functools import partial

import pytest
import scipy.stats

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.compare import comparison
from mergeline.evaluation.compare.comparison import verdict
from mergeline.evaluation.compare.statistics import Interval

compare = partial(comparison.compare, margin=0.02)
compare_with_parents = partial(comparison.compare_with_parents, margin=0.02)

RIGHT, WRONG = 1, 0


def targets(count):
    return [RIGHT] * count


def predictions(*runs):
    """``(RIGHT, 30), (WRONG, 10)`` -> thirty right answers, then ten wrong ones."""
    return [prediction for prediction, count in runs for _ in range(count)]


@pytest.fixture
def merge(made_up):
    return made_up("merge", targets(100), predictions((RIGHT, 80), (WRONG, 20)))


@pytest.fixture
def weak_parent(made_up):
    return made_up("weak", targets(100), predictions((RIGHT, 50), (WRONG, 50)))


@pytest.fixture
def equal_parent(made_up):
    return made_up("equal", targets(100), predictions((WRONG, 15), (RIGHT, 78), (WRONG, 7)))


def test_wins_losses_difference_and_p_value(merge, equal_parent):
    (comparison,) = compare(merge, [equal_parent])
    assert (comparison.wins, comparison.losses) == (15, 13)
    assert comparison.difference == pytest.approx(0.02)
    assert comparison.p_value == pytest.approx(scipy.stats.binomtest(15, 28).pvalue)
    assert comparison.verdict == "no detectable difference"


def test_a_clear_win_is_better_and_its_mirror_is_worse(merge, weak_parent):
    (won,), (lost,) = compare(merge, [weak_parent]), compare(weak_parent, [merge])
    assert (won.verdict, lost.verdict) == ("better", "worse")
    assert (won.low, won.high) == pytest.approx((-lost.high, -lost.low), abs=0.02)


def test_p_values_are_corrected_over_the_comparisons_made_together(merge, weak_parent, equal_parent):
    alone = [compare(merge, [parent])[0].p_value for parent in (weak_parent, equal_parent)]
    together = [comparison.p_value for comparison in compare(merge, [weak_parent, equal_parent])]
    assert together == pytest.approx([2 * alone[0], alone[1]])


def test_a_verdict_needs_both_the_p_value_and_the_interval():
    assert verdict((0.01, 0.01), Interval(0.1, 0.2)) == "better"
    assert verdict((0.01, 0.01), Interval(-0.2, -0.1)) == "worse"
    assert verdict((0.01, 0.01), Interval(-0.01, 0.2)) == "no detectable difference"
    assert verdict((0.05, 0.01), Interval(0.1, 0.2)) == "no detectable difference"


def test_questions_that_all_share_a_story_prove_nothing(made_up):
    clusters = ["one story"] * 100
    merge = made_up("merge", targets(100), predictions((RIGHT, 100)), clusters)
    parent = made_up("parent", targets(100), predictions((RIGHT, 50), (WRONG, 50)), clusters)
    (comparison,) = compare(merge, [parent])
    assert comparison.p_value < 1e-10
    assert comparison.verdict == "no detectable difference"


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"batch_size": 16}, {"limit": 100}, {"engine": "fast"}])
def test_other_settings_are_not_comparable(merge, weak_parent, change):
    other = replace(weak_parent, settings=replace(weak_parent.settings, **change))
    (comparison,) = compare(merge, [other])
    assert comparison.verdict == "not comparable"
    assert (comparison.low, comparison.high, comparison.wins, comparison.losses, comparison.p_value) == (-1, 1, 0, 0, 1)
    assert comparison.difference == pytest.approx(0.3)


def test_other_prompts_are_not_comparable_and_take_no_part_in_the_correction(merge, weak_parent, equal_parent):
    foreign = replace(equal_parent, task_hash="other")
    first, second = compare(merge, [weak_parent, foreign])
    assert second.verdict == "not comparable"
    assert first == compare(merge, [weak_parent])[0]


def test_report_compares_with_parents_and_shows_the_base_first(merge, weak_parent, equal_parent, made_up):
    base = made_up("base", targets(100), predictions((WRONG, 100)))
    result = compare_with_parents(merge, [weak_parent, equal_parent], base)
    assert [evaluation.label for evaluation in result.evaluations] == ["base", "weak", "equal", "merge"]
    assert [comparison.reference for comparison in result.comparisons] == ["weak", "equal"]
    assert [evaluation.label for evaluation in compare_with_parents(merge, [weak_parent]).references] == ["weak"]


def test_baselines_and_flags_of_a_model_that_always_says_a(made_up):
    # The letters of the thousand SpartQA questions: C 478, B 247, A 244, D 31.
    right = [2] * 478 + [1] * 247 + [0] * 244 + [3] * 31
    result = compare_with_parents(made_up("parrot", right, [0] * 1000), [])
    assert (result.majority_accuracy, result.chance_accuracy) == (0.478, 0.25)
    assert result.flags == (
        "parrot: below majority baseline (0.244 < 0.478)",
        "parrot: single-letter predictor (A on 1000 of 1000)",
    )


def test_one_letter_on_95_of_100_is_not_yet_a_single_letter_predictor(made_up):
    right = [0] * 50 + [1] * 50
    at_the_limit = made_up("model", right, [0] * 95 + [1] * 5)
    above_it = made_up("model", right, [0] * 96 + [1] * 4)
    assert compare_with_parents(at_the_limit, []).flags == ()
    assert compare_with_parents(above_it, []).flags == ("model: single-letter predictor (A on 96 of 100)",)


def test_a_limit_and_a_train_split_are_flagged(made_up):
    evaluation = made_up("model", [0, 1], [0, 1], split="train", limit=2)
    assert compare_with_parents(evaluation, []).flags == (
        "limit in use: the first 2 questions only",
        "evaluated on train split",
    )


def test_report_refuses_an_evaluation_without_answers(merge, made_up):
    with pytest.raises(EvaluationInputError, match="empty: its evaluation holds no answers"):
        compare_with_parents(merge, [made_up("empty", [], [])])


def test_other_dtypes_under_auto_are_compared_and_flagged(merge, equal_parent, weak_parent):
    mine = replace(merge, loaded_dtype="bfloat16")
    theirs = [replace(equal_parent, loaded_dtype="float32"), replace(weak_parent, loaded_dtype="bfloat16")]
    result = compare_with_parents(mine, theirs)
    assert [comparison.verdict for comparison in result.comparisons] == ["no detectable difference", "better"]
    assert [flag for flag in result.flags if "bfloat16" in flag] == [
        "equal: evaluated in float32, merge in bfloat16; rounding is part of their difference, set `dtype` to evaluate "
        "both alike"
    ]


def test_the_same_dtype_by_name_and_by_auto_is_the_same(merge, weak_parent):
    named = replace(weak_parent, settings=replace(weak_parent.settings, dtype="float32"), loaded_dtype="float32")
    assert compare(replace(merge, loaded_dtype="float32"), [named])[0].verdict == "better"
    assert compare(replace(merge, loaded_dtype="bfloat16"), [named])[0].reason == "dtype auto against float32"


def test_counts_oracle_and_margin(merge, equal_parent):
    (comparison,) = compare(merge, [equal_parent], margin=0.2)
    assert (comparison.both_right, comparison.both_wrong) == (65, 7)
    assert comparison.discordance == pytest.approx(0.28)
    assert comparison.oracle_accuracy == pytest.approx(0.93)
    # One standard error is 0.053: two of them are less than 0.2, and more than 0.02.
    assert comparison.is_not_inferior
    assert not compare(merge, [equal_parent])[0].is_not_inferior
    assert comparison.detectable == pytest.approx(2.8016 * comparison.stderr, rel=1e-4)


def test_two_models_that_never_differ_on_ten_questions_are_not_proven_alike(made_up):
    merge, parent = (made_up(label, targets(10), targets(10)) for label in ("merge", "parent"))
    (comparison,) = compare(merge, [parent])
    assert (comparison.verdict, comparison.is_not_inferior) == ("no detectable difference", False)
    many, other = (made_up(label, targets(1000), targets(1000)) for label in ("merge", "parent"))
    assert compare(many, [other])[0].is_not_inferior
