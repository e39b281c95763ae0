"""Accuracy by kind of question, and what a merge keeps of what each parent is good at."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.compare.model_summary import accuracy_interval
from mergeline.evaluation.results import Answer, Evaluation
from mergeline.evaluation.summaries import Breakdown, Retention, Slice, SliceScore

MOST_SLICES = 20
"""A column with more values than this is not broken down by; it would say more of chance than of the models."""

MOST_VALUES = 50
_LONGEST_VALUE = 80
# The question itself and its identity; whatever else a row holds may tell kinds of questions apart.
_NOT_KINDS = {"id", "story_id", "story", "question", "candidate_answers", "answer"}


def question_columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return, for each question, what its other columns say, of those columns that many questions share.

    Columns of numbers, words and lists of them, with at most 50 different values of at most 80 characters each.
    """
    texts = [{name: _text(value) for name, value in row.items() if name not in _NOT_KINDS} for row in rows]
    values: defaultdict[str, set[str | None]] = defaultdict(set)
    for text in texts:
        for name, value in text.items():
            values[name].add(value)
    kept = {name for name, found in values.items() if None not in found and len(found) <= MOST_VALUES}
    return [{name: value for name, value in text.items() if name in kept and value is not None} for text in texts]


def check_columns(known: Set[str], columns: Sequence[str]) -> None:
    """Raise :class:`EvaluationInputError` unless :func:`question_columns` kept every one of ``columns``."""
    if absent := [column for column in columns if column not in known]:
        raise EvaluationInputError(
            f"The questions have no column {absent[0]!r} to break accuracy down by; they have "
            f"{', '.join(sorted(known)) or 'none'} (with at most {MOST_VALUES} short values)."
        )


def _text(value: object) -> str | None:
    if isinstance(value, (list, tuple)):
        items: list[str | None] = [_text(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        text = ", ".join(item for item in items if item is not None) if None not in items else None
    elif isinstance(value, (str, bool, int)):
        text = value.strip() if isinstance(value, str) else json.dumps(value)
    else:
        return None
    return text if text is not None and len(text) <= _LONGEST_VALUE else None


def columns_to_break_down(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the columns that split the questions into 2 to 20 kinds and are not the clusters themselves."""
    names = dict.fromkeys(name for answer in evaluation.answers for name in answer.columns)
    chosen: list[str] = []
    for name in names:
        slices = _members(evaluation.answers, name)
        is_cluster = all(answer.cluster == value for value, answers in slices.items() for answer in answers)
        if 2 <= len(slices) <= MOST_SLICES and not is_cluster:
            chosen.append(name)
    return tuple(chosen)


def break_down(evaluations: Sequence[Evaluation], column: str) -> Breakdown:
    """Return the accuracy of each model on each value of ``column``, the most frequent value first.

    The evaluations are of the same questions; questions without the column form a slice with an empty value.
    """
    members = [_members(evaluation.answers, column) for evaluation in evaluations]
    by_size = sorted(members[-1].items(), key=lambda item: (-len(item[1]), item[0]))
    return Breakdown(
        column=column,
        slices=tuple(
            Slice(
                value=value,
                n_questions=len(answers),
                n_clusters=len({answer.cluster for answer in answers}),
                scores=tuple(
                    _score(evaluation.label, slices[value])
                    for evaluation, slices in zip(evaluations, members, strict=True)
                ),
            )
            for value, answers in by_size
        ),
    )


def retentions(breakdowns: Sequence[Breakdown], merge: str, parents: Sequence[str]) -> tuple[Retention, ...]:
    """Return, for each parent, the kinds of question it answers best of all parents and what the merge makes of them.

    Args:
        breakdowns: With the merge and the parents among their scores.
        merge: The merge's label.
        parents: The parents' labels; a lone parent has no strengths, since nothing is weaker.
    """
    if len(parents) < 2:
        return ()
    return tuple(
        sorted(
            (found for breakdown in breakdowns for found in _strengths(breakdown, merge, parents)),
            key=lambda retention: parents.index(retention.parent),
        )
    )


def _strengths(breakdown: Breakdown, merge: str, parents: Sequence[str]) -> Iterator[Retention]:
    for one in breakdown.slices:
        accuracies = {score.label: score.accuracy for score in one.scores}
        if merge not in accuracies or not all(parent in accuracies for parent in parents):
            continue
        best, second = sorted(parents, key=lambda parent: -accuracies[parent])[:2]
        if accuracies[best] > accuracies[second]:
            yield Retention(best, breakdown.column, one.value, one.n_questions, accuracies[best], accuracies[merge])


def _members(answers: Sequence[Answer], column: str) -> dict[str, list[Answer]]:
    members: dict[str, list[Answer]] = {}
    for answer in answers:
        members.setdefault(answer.columns.get(column, ""), []).append(answer)
    return members


def _score(label: str, answers: Sequence[Answer]) -> SliceScore:
    correct = sum(answer.is_correct for answer in answers)
    interval = accuracy_interval(answers)
    return SliceScore(label, correct, correct / len(answers), interval.low, interval.high)
