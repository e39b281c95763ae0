"""Who becomes champion: of two models, the exact McNemar test with n questions won and none lost has p = 2 / 2^n."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mergeline.evaluation.compare.comparison import compare_with_parents
from mergeline.evaluation.results import Evaluation, EvaluationReport
from mergeline.publish.gate import takes_title
from tests.builders.tracking_records import answering, of_task


def report(right: int, *parents: Evaluation) -> EvaluationReport:
    return compare_with_parents(answering("merge", right), parents, margin=0.02)


@pytest.mark.parametrize(
    ("right", "champion_right", "expected"),
    [
        (76, None, True),
        (75, 70, False),  # p = 2/32
        (76, 70, True),  # p = 2/64
        (76, 76, False),
        (76, 90, False),
    ],
)
def test_a_champion_is_replaced_only_by_a_merge_shown_better(
    right: int, champion_right: int | None, expected: bool
) -> None:
    champion = None if champion_right is None else [answering("champion", champion_right)]
    assert takes_title([report(right, answering("parent", 40))], champion) is expected


def test_better_than_the_champion_is_not_enough() -> None:
    champion = [answering("champion", 40)]
    assert not takes_title([report(76, answering("weak", 40), answering("twin", 76))], champion)
    assert not takes_title([report(76)], champion)
    assert not takes_title([], [])


def test_every_task_counts() -> None:
    first = report(76, answering("parent", 40))
    second = compare_with_parents(
        of_task(answering("merge", 76), "other"), [of_task(answering("parent", 40), "other")], margin=0.02
    )
    weak, equal = answering("champion", 40), of_task(answering("champion", 76), "other")
    assert takes_title([first, second], [weak, of_task(weak, "other")])
    assert not takes_title([first, second], [weak, equal])
    with pytest.raises(ValueError, match="shorter"):
        takes_title([first, second], [weak])


def test_answers_to_other_questions_take_no_title() -> None:
    champion = replace(answering("champion", 40), task_hash="e6" * 32)
    assert not takes_title([report(76, answering("parent", 40))], [champion])
