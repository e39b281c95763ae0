"""Accuracy by groups of questions, and how much of each parent's strengths a merge keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mergeline.evaluation.compare.model_summary import accuracy_interval
from mergeline.evaluation.results import Answer, Breakdown, Evaluation, GroupScore, QuestionGroup, Retention

MOST_GROUPS = 20
"""A column with more values is not broken down by: so small groups would show mostly chance."""


def columns_to_break_down(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the columns with 2 to 20 values, except those that equal the clusters."""
    names = dict.fromkeys(name for answer in evaluation.answers for name in answer.columns)
    chosen: list[str] = []
    for name in names:
        groups = _answers_by_value(evaluation.answers, name)
        is_cluster = all(answer.cluster == value for value, answers in groups.items() for answer in answers)
        if 2 <= len(groups) <= MOST_GROUPS and not is_cluster:
            chosen.append(name)
    return tuple(chosen)


def break_down(evaluations: Sequence[Evaluation], column: str) -> Breakdown:
    """Return the accuracy of each model on each value of ``column``, the most frequent value first.

    The evaluations are of the same questions; questions without the column form a group with an empty value.
    """
    groups = [_answers_by_value(evaluation.answers, column) for evaluation in evaluations]
    by_size = sorted(groups[-1].items(), key=lambda item: (-len(item[1]), item[0]))
    return Breakdown(
        column=column,
        slices=tuple(
            QuestionGroup(
                value=value,
                n_questions=len(answers),
                n_clusters=len({answer.cluster for answer in answers}),
                scores=tuple(
                    _score(evaluation.label, by_value[value])
                    for evaluation, by_value in zip(evaluations, groups, strict=True)
                ),
            )
            for value, answers in by_size
        ),
    )


def retentions(breakdowns: Sequence[Breakdown], merge: str, parents: Sequence[str]) -> tuple[Retention, ...]:
    """Return, for each parent, the groups of questions that it answers best of all parents, with the merge's accuracy.

    Args:
        breakdowns: With the merge and the parents among their scores.
        merge: The merge's label.
        parents: The parents' labels; a single parent gives no result, since there is nothing to be better than.
    """
    if len(parents) < 2:
        return ()
    strengths = [strength for breakdown in breakdowns for strength in _strengths(breakdown, merge, parents)]
    return tuple(sorted(strengths, key=lambda strength: parents.index(strength.parent)))


def _strengths(breakdown: Breakdown, merge: str, parents: Sequence[str]) -> Iterator[Retention]:
    for group in breakdown.slices:
        accuracies = {score.label: score.accuracy for score in group.scores}
        if merge not in accuracies or not all(parent in accuracies for parent in parents):
            continue
        best, second = sorted(parents, key=lambda parent: -accuracies[parent])[:2]
        if accuracies[best] > accuracies[second]:
            yield Retention(best, breakdown.column, group.value, group.n_questions, accuracies[best], accuracies[merge])


def _answers_by_value(answers: Sequence[Answer], column: str) -> dict[str, list[Answer]]:
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.columns.get(column, ""), []).append(answer)
    return groups


def _score(label: str, answers: Sequence[Answer]) -> GroupScore:
    correct = sum(answer.is_correct for answer in answers)
    interval = accuracy_interval(answers)
    return GroupScore(label, correct, correct / len(answers), interval.low, interval.high)
