"""The questions of one lm-eval task: read, selected and checked once, before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.questions.dataset_reference import DatasetReference, parse_dataset
from mergeline.evaluation.questions.four_choice import Row, check_questions, load_questions, read_rows
from mergeline.evaluation.questions.lm_eval_task import LmEvalTask, find_lm_eval_task, shots_from_own_questions
from mergeline.evaluation.questions.question_columns import check_columns, question_columns
from mergeline.support.digests import digest


@dataclass(frozen=True)
class TaskQuestions:
    """An lm-eval task with its questions; made by :func:`read_questions`."""

    task_name: str
    """As the user wrote it: the task's name, or the path of its YAML file."""
    dataset: str | None
    """As the user wrote it; None: the task's own data."""
    task: LmEvalTask
    rows: list[Row] | None
    """The questions; None: the task's own, which only lm-eval can read."""

    @cached_property
    def digest(self) -> str:
        """sha256 over the rows, in hex; empty for the task's own questions."""
        return "" if self.rows is None else digest(self.rows)

    def check_breakdown(self, columns: Sequence[str] | None, limit: int | None) -> None:
        """Raise :class:`EvaluationInputError` if the questions lack one of ``columns``; not known for a task's own.

        Args:
            columns: To break accuracy down by; None: those that the questions have.
            limit: Number of questions that are asked; None: all.
        """
        if self.rows is not None and columns:
            check_columns({name for row in question_columns(self.rows[:limit]) for name in row}, columns)

    def prompts(self) -> dict[str, str]:
        """Return question's identifier -> prompt; empty except for ``spartqa_train``: only lm-eval runs other tasks."""
        if not self.task.needs_questions:
            return {}
        from mergeline.evaluation.questions.lm_eval_tasks.spartqa_train.preprocess_spartqa import doc_to_text

        return {str(row["id"]): doc_to_text(row) for row in self.rows or ()}


def read_questions(task_name: str, place: Path | None, dataset: str | None) -> TaskQuestions:
    """Find an lm-eval task and read the questions it will ask.

    Args:
        task_name: A task that Mergeline ships, one of lm-eval's, or the path of a YAML file.
        place: Data file or downloaded dataset repository; None: the built-in generator if ``dataset`` names it, else
            the task's own data.
        dataset: Dataset as the user wrote it, with a selection if any; see :mod:`.dataset_reference`.

    Raises:
        EvaluationInputError: The task does not exist, there are no questions, or a question cannot be asked.
    """
    task = find_lm_eval_task(task_name)
    rows = _read_rows(task, place, DatasetReference("") if dataset is None else parse_dataset(dataset))
    if task.n_shot and rows is not None:
        raise EvaluationInputError(shots_from_own_questions(task.name, task.n_shot))
    return TaskQuestions(task_name, dataset, task, rows)


def _read_rows(task: LmEvalTask, place: Path | None, reference: DatasetReference) -> list[Row] | None:
    if place is None and reference.is_generated:
        return check_questions(list(enumerate(reference.generate(), start=1)), reference.name)
    if place is None:
        if task.needs_questions:
            raise EvaluationInputError(
                f"lm-eval task {task.name!r} has no data of its own; name a dataset with the questions: a local file, "
                "one on the Hub, or `directions` for made-up ones."
            )
        return None
    if task.needs_questions:
        return reference.select(load_questions(place))
    return reference.select([row for _, row in read_rows(place, task.split)])
