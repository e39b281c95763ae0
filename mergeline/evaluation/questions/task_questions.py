"""The questions that one lm-eval task will ask: read, chosen and checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.compare.breakdown import check_columns, question_columns
from mergeline.evaluation.questions.dataset_reference import DatasetReference, parse_dataset
from mergeline.evaluation.questions.four_choice import check_questions, load_questions, read_rows
from mergeline.evaluation.questions.lm_eval_task import LmEvalTask, shots_from_own_questions


def task_questions(task: LmEvalTask, questions: Path | None, dataset: str | None) -> list[dict[str, Any]] | None:
    """Return the questions as rows, those of SpartQA checked; None: the task's own, which only lm-eval can read.

    Args:
        task: Decides which fields a question must have.
        questions: A data file or a downloaded dataset repository; None where there is none.
        dataset: What the user wrote: it may name the built-in generator, or choose some of the questions.

    Raises:
        EvaluationInputError: There are none, or one cannot be asked.
    """
    reference = DatasetReference("") if dataset is None else parse_dataset(dataset)
    rows = _rows(task, questions, reference)
    if task.n_shot and rows is not None:
        raise EvaluationInputError(shots_from_own_questions(task.name, task.n_shot))
    return rows


def check_breakdown(rows: Sequence[dict[str, Any]] | None, columns: Sequence[str] | None, limit: int | None) -> None:
    """Raise :class:`EvaluationInputError` where accuracy cannot be broken down by ``columns``.

    Args:
        rows: The questions; None: not known before lm-eval reads them.
        columns: As asked for; None: those that the questions have.
        limit: Only the first so many are asked.
    """
    if rows is not None and columns:
        check_columns({name for row in question_columns(rows[:limit]) for name in row}, columns)


def _rows(task: LmEvalTask, questions: Path | None, reference: DatasetReference) -> list[dict[str, Any]] | None:
    if questions is None and reference.is_generated:
        return check_questions(list(enumerate(reference.generate(), start=1)), reference.name)
    if questions is None:
        if task.needs_questions:
            raise EvaluationInputError(
                f"lm-eval task {task.name!r} has no data of its own; name a dataset with the questions: a local file, "
                "one on the Hub, or `directions` for made-up ones."
            )
        return None
    if task.needs_questions:
        return reference.select(load_questions(questions))
    return reference.select([row for _, row in read_rows(questions, task.split)])
