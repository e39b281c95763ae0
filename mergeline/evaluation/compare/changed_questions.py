"""The questions that a merge answers otherwise than a parent: what every number of a comparison is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mergeline.evaluation.compare.comparison import NOT_COMPARABLE
from mergeline.evaluation.results import Answer, EvaluationReport


@dataclass(frozen=True)
class ChangedQuestion:
    """One question that the merge and at least one parent do not both answer rightly or wrongly."""

    question: str
    won_against: tuple[str, ...]
    """Parents that answer it wrongly where the merge is right."""
    lost_against: tuple[str, ...]
    """Parents that answer it rightly where the merge is wrong."""
    answers: dict[str, Answer]
    """Label -> answer, of every model of the report that was asked the same, in its order."""

    @property
    def target(self) -> int:
        return next(iter(self.answers.values())).target


def changed_questions(report: EvaluationReport) -> tuple[ChangedQuestion, ...]:
    """Return the questions that changed sides, in the data's order; of comparable parents only."""
    parents = [one.reference for one in report.comparisons if one.verdict != NOT_COMPARABLE]
    changed: list[ChangedQuestion] = []
    for answers in _by_question(report):
        mine = answers[report.merge.label]
        differing = tuple(parent for parent in parents if answers[parent].is_correct != mine.is_correct)
        if differing:
            won, lost = (differing, ()) if mine.is_correct else ((), differing)
            changed.append(ChangedQuestion(mine.question, won, lost, answers))
    return tuple(changed)


def question_rows(report: EvaluationReport) -> list[dict[str, Any]]:
    """Return one flat row per question, for a table: identity, kind, and each model's choice and log-probabilities.

    Keys: ``question``, ``cluster``, ``target``, the question's columns, and for every model asked the same
    ``<label> prediction``, ``<label> correct`` and ``<label> logprob A`` to ``D``. Choices are letters.
    """
    rows: list[dict[str, Any]] = []
    for answers in _by_question(report):
        first = next(iter(answers.values()))
        row: dict[str, Any] = {
            **first.columns,
            "question": first.question,
            "cluster": first.cluster,
            "target": letter(first.target),
        }
        for label, answer in answers.items():
            row |= {f"{label} prediction": letter(answer.prediction), f"{label} correct": answer.is_correct}
            row |= {f"{label} logprob {letter(choice)}": value for choice, value in enumerate(answer.log_probabilities)}
        rows.append(row)
    return rows


def letter(choice: int) -> str:
    """Return the letter of a choice's index: A for 0."""
    return chr(ord("A") + choice)


def _by_question(report: EvaluationReport) -> Iterator[dict[str, Answer]]:
    alike = [evaluation for evaluation in report.evaluations if evaluation.task_hash == report.merge.task_hash]
    for answers in zip(*(evaluation.answers for evaluation in alike), strict=True):
        yield {evaluation.label: answer for evaluation, answer in zip(alike, answers, strict=True)}
