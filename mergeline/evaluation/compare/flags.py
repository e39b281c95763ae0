"""Warnings that an accuracy alone does not show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from mergeline.evaluation.compare.model_summary import letter, majority_accuracy
from mergeline.evaluation.results import Evaluation

SINGLE_LETTER_SHARE = 0.95
"""A model that gives the same choice more often has learned the letter, not the task."""


def flags(merge: Evaluation, references: Sequence[Evaluation]) -> Iterator[str]:
    """Yield warnings, as sentences, about a merge and the models beside it."""
    evaluations = (*references, merge)
    for evaluation in evaluations:
        majority = majority_accuracy(evaluation)
        if evaluation.accuracy < majority:
            yield f"{evaluation.label}: below majority baseline ({evaluation.accuracy:.3f} < {majority:.3f})"
        (choice, count), *_ = Counter(answer.prediction for answer in evaluation.answers).most_common(1)
        if count > SINGLE_LETTER_SHARE * evaluation.n_questions:
            yield (
                f"{evaluation.label}: single-letter predictor ({letter(choice)} on {count} of {evaluation.n_questions})"
            )
    for reference in references:
        if merge.loaded_dtype and reference.loaded_dtype and merge.loaded_dtype != reference.loaded_dtype:
            yield (
                f"{reference.label}: evaluated in {reference.loaded_dtype}, {merge.label} in {merge.loaded_dtype}; "
                "rounding is part of their difference, set `dtype` to evaluate both alike"
            )
    if any(evaluation.settings.limit is not None for evaluation in evaluations):
        yield f"limit in use: the first {min(evaluation.n_questions for evaluation in evaluations)} questions only"
    if any(evaluation.split == "train" for evaluation in evaluations):
        yield "evaluated on train split"
