"""Build lm-eval's task object on given questions, and refuse tasks that cannot be compared; runs in the worker."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.questions.lm_eval_task import shots_from_own_questions
from mergeline.evaluation.worker.process import TaskDataError
from mergeline.support.digests import canonical_json


@dataclass(frozen=True)
class TaskRequest:
    """An lm-eval task to build, with its questions."""

    name: str
    yaml_path: str | None
    """None: one of lm-eval's own, found by name."""
    rows: list[dict[str, Any]] | None
    """Questions that replace every split of the task; None: the task's own, from the local datasets cache."""
    source_digest: str = ""
    """sha256 over the task's YAML and Python; empty: lm-eval's version stands for it."""
    rows_digest: str = ""
    """sha256 over ``rows``; empty for the task's own."""


class _EverySplit(dict[str, Any]):
    """A dataset dict that returns the same questions for every split."""

    def __init__(self, questions: Any) -> None:
        super().__init__()
        self._questions = questions

    def __missing__(self, split: str) -> Any:
        return self._questions

    def load(self, **_: object) -> _EverySplit:
        """Return the dataset; lm-eval calls this in place of its download."""
        return self


def build_task(request: TaskRequest) -> Any:
    """Build lm-eval's task object and check every question.

    Raises:
        EvaluationInputError: the task does not exist, is not multiple choice scored by ``acc``, or its code fails.
        TaskDataError: the task's own data are not in the local cache.
    """
    try:
        loaded = _load(request)
    except EvaluationInputError:
        raise
    except Exception as error:
        # lm-eval, datasets and the task's own code raise exceptions of any class.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if request.rows is None:
            raise TaskDataError(
                f"lm-eval task {request.name!r} cannot be loaded ({reason}); give its questions as a dataset, or have "
                "its own on this machine."
            ) from error
        raise EvaluationInputError(
            f"lm-eval task {request.name!r} fails on the questions given ({reason}); mend the task, or give it "
            "questions with the fields it reads."
        ) from error
    tasks = list(loaded["tasks"].values())
    if len(tasks) != 1:
        raise EvaluationInputError(f"lm-eval task {request.name!r} is a group of {len(tasks)} tasks; name one of them.")
    task = tasks[0]
    if task.OUTPUT_TYPE != "multiple_choice" or "acc" not in task.higher_is_better():
        raise EvaluationInputError(
            f"lm-eval task {request.name!r} is of type {task.OUTPUT_TYPE} with metrics "
            f"{', '.join(task.higher_is_better())}; only multiple_choice tasks scored by acc can be compared."
        )
    n_shot = task.get_config("num_fewshot") or 0
    shot_split = task.config.fewshot_split or task.config.training_split or task.config.validation_split
    if n_shot and (request.rows is not None or shot_split == (task.config.test_split or task.config.validation_split)):
        raise EvaluationInputError(shots_from_own_questions(request.name, n_shot))
    task.set_config(key="num_fewshot", value=n_shot)
    _check_questions(task, request.name)
    return task


def _check_questions(task: Any, name: str) -> None:
    """Run the task's own code for prompt, choices and target of every question, before any model is loaded."""
    count = 0
    for number, question in task.doc_iterator():
        count += 1
        identifier = question_id(question, number)
        try:
            task.doc_to_text(question)
            choices = task.doc_to_choice(question)
            target_index(task, question, identifier, choices)
        except EvaluationInputError:
            raise
        except Exception as error:
            # The task's own functions and templates raise exceptions of any class.
            raise EvaluationInputError(
                f"lm-eval task {name!r}: its code fails on question {identifier} ({type(error).__name__}: "
                f"{' '.join(str(error).split())}); mend the task, or give it questions with the fields it reads."
            ) from error
    if not count:
        raise EvaluationInputError(f"lm-eval task {name!r}: its data holds no questions.")


def _load(request: TaskRequest) -> Any:
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory(prefix="mergeline-task-") as directory:
        if request.yaml_path is None:
            manager = TaskManager()
            if request.name in {*manager.all_groups, *manager.all_tags}:
                raise EvaluationInputError(f"lm-eval task {request.name!r} is a group of tasks; name one of them.")
        else:
            # lm-eval indexes whole directory trees; a directory with only this task takes no time.
            wrapper = Path(directory) / "task.yaml"
            wrapper.write_text(f"include: {canonical_json(request.yaml_path)}\n", "utf-8")
            manager = TaskManager(include_path=directory, include_defaults=False)
        if request.rows is None:
            return manager.load([request.name])
        if request.name not in manager.all_subtasks:
            raise EvaluationInputError(f"lm-eval knows no single task {request.name!r}; of a group, name one task.")
        from datasets import Dataset

        splits = _EverySplit(Dataset.from_list(request.rows))
        # lm-eval's public way to override a setting of a task defined in YAML is a group with this one task.
        override = {"task": request.name, "custom_dataset": splits.load}
        return manager.load([{"group": "mergeline", "task": [override]}])


def target_index(task: Any, question: dict[str, Any], identifier: str, choices: Sequence[str]) -> int:
    """Return the index of the right choice, or raise :class:`EvaluationInputError`."""
    target: object = task.doc_to_text(question) if task.multiple_input else task.doc_to_target(question)
    if isinstance(target, str) and target in choices:
        target = choices.index(target)
    if not isinstance(target, int) or not 0 <= target < len(choices):
        raise EvaluationInputError(f"Question {identifier}: the right answer {target!r} is none of {list(choices)}.")
    return target


def question_id(question: dict[str, Any], number: int) -> str:
    """Return the question's ``id``, else its position counted from 1."""
    identifier = question.get("id")
    return str(number + 1) if identifier is None else str(identifier)
