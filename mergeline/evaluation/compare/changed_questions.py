"""The questions that a merge and a parent do not both answer correctly or wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mergeline.evaluation.compare.comparison import NOT_COMPARABLE
from mergeline.evaluation.results import Answer, EvaluationReport


@dataclass(frozen=True)
class ChangedQuestion:
    """One question that the merge and at least one parent do not both answer correctly or wrongly."""

    question: str
    won_against: tuple[str, ...]
    """Parents that are wrong where the merge is right."""
    lost_against: tuple[str, ...]
    """Parents that are right where the merge is wrong."""
    answers: dict[str, Answer]
    """Label -> answer, of every model that was asked the same questions, in the report's order."""

    @property
    def target(self) -> int:
        return next(iter(self.answers.values())).target


def changed_questions(report: EvaluationReport) -> tuple[ChangedQuestion, ...]:
    """Return the changed questions in the data's order; only comparable parents count."""
    parents = [pair.reference for pair in report.comparisons if pair.verdict != NOT_COMPARABLE]
    changed: list[ChangedQuestion] = []
    for answers in _by_question(report):
        merge = answers[report.merge.label]
        differing = tuple(parent for parent in parents if answers[parent].is_correct != merge.is_correct)
        if differing:
            won, lost = (differing, ()) if merge.is_correct else ((), differing)
            changed.append(ChangedQuestion(merge.question, won, lost, answers))
    return tuple(changed)


def _by_question(report: EvaluationReport) -> Iterator[dict[str, Answer]]:
    alike = [evaluation for evaluation in report.evaluations if evaluation.task_hash == report.merge.task_hash]
    for answers in zip(*(evaluation.answers for evaluation in alike), strict=True):
        yield {evaluation.label: answer for evaluation, answer in zip(alike, answers, strict=True)}
