"""One lm-eval task scored on one loaded model after another; runs in the worker process."""

from __future__ import annotations

import gc
import math
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeline.errors import EvaluationError, EvaluationInputError
from mergeline.evaluation.compare.breakdown import question_columns
from mergeline.evaluation.questions.lm_eval_task import shots_from_own_questions
from mergeline.evaluation.results import Answer, Evaluation, EvaluationSettings
from mergeline.evaluation.worker.loaded_model import load_model
from mergeline.evaluation.worker.process import TaskDataError
from mergeline.support.digests import canonical_json, digest

if TYPE_CHECKING:
    from mergeline.evaluation.worker.fast_scoring import TokenizedPrompts

_FILTER = "none"


@dataclass(frozen=True)
class TaskRequest:
    """Which lm-eval task to build, and on what questions."""

    name: str
    yaml_path: str | None
    """None: one of lm-eval's own, by name."""
    rows: list[dict[str, Any]] | None
    """The questions, which become every split of the task; None: the task's own, from the local datasets cache."""
    source_digest: str = ""
    """sha256 over the task's YAML and Python; empty: lm-eval's version says it."""
    rows_digest: str = ""
    """sha256 over ``rows``; empty: the task's own."""


@dataclass(frozen=True)
class ModelRequest:
    """Which model to load, and what its evaluation says of it."""

    label: str
    directory: Path
    digest: str


class _EverySplit(dict[str, Any]):
    """A dataset whose every split is the same questions."""

    def __init__(self, questions: Any) -> None:
        super().__init__()
        self._questions = questions

    def __missing__(self, split: str) -> Any:
        return self._questions

    def given(self, **_: object) -> _EverySplit:
        """Stand in for lm-eval's download of the task's dataset."""
        return self


def build_task(request: TaskRequest) -> Any:
    """Build lm-eval's task object and refuse what Mergeline cannot compare.

    Raises:
        EvaluationInputError: no such task, or it is not multiple choice scored by ``acc``.
        TaskDataError: its own data is not at hand.
    """
    try:
        loaded = _load(request)
    except EvaluationInputError:
        raise
    except Exception as error:
        # lm-eval, datasets and the task's own code raise whatever they like; every one means that the task cannot be
        # had.
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
    shown = task.config.fewshot_split or task.config.training_split or task.config.validation_split
    if n_shot and (request.rows is not None or shown == (task.config.test_split or task.config.validation_split)):
        raise EvaluationInputError(shots_from_own_questions(request.name, n_shot))
    task.set_config(key="num_fewshot", value=n_shot)
    _check_questions(task, request.name)
    return task


def _check_questions(task: Any, name: str) -> None:
    """Ask the task's own code for every prompt, its choices and the right one, before any model is loaded."""
    count = 0
    for number, question in task.doc_iterator():
        count += 1
        identifier = _identifier(question, number)
        try:
            task.doc_to_text(question)
            choices = task.doc_to_choice(question)
            _target(task, question, identifier, choices)
        except EvaluationInputError:
            raise
        except Exception as error:
            # The task's own functions and templates raise whatever they like.
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
            # lm-eval indexes whole directory trees: one that holds nothing but this task costs nothing to index.
            wrapper = Path(directory) / "task.yaml"
            wrapper.write_text(f"include: {canonical_json(request.yaml_path)}\n", "utf-8")
            manager = TaskManager(include_path=directory, include_defaults=False)
        if request.rows is None:
            return manager.load([request.name])
        if request.name not in manager.all_subtasks:
            raise EvaluationInputError(f"lm-eval knows no single task {request.name!r}; of a group, name one task.")
        from datasets import Dataset

        splits = _EverySplit(Dataset.from_list(request.rows))
        # A group of one is lm-eval's public way to override a setting of a task that a YAML file defines.
        override = {"task": request.name, "custom_dataset": splits.given}
        return manager.load([{"group": "mergeline", "task": [override]}])


def score_model(
    task: Any,
    model: ModelRequest,
    settings: EvaluationSettings,
    versions: dict[str, str],
    request: TaskRequest,
    tokenized: TokenizedPrompts,
) -> Evaluation:
    """Load a model, score it on ``task`` with lm-eval, and let go of it.

    Raises:
        EvaluationInputError: the model cannot be loaded, or a question does not fit into its context.
        EvaluationError: a log-probability is not finite, or lm-eval's numbers contradict each other.
    """
    import torch

    started = time.perf_counter()
    loaded, tokenizer = load_model(model.label, model.directory, settings.dtype, settings.device)
    loaded_dtype = str(loaded.dtype).removeprefix("torch.")
    try:
        language_model = _language_model(loaded, tokenizer, settings, tokenized)
        results = _evaluate(task, model.label, language_model, settings)
        n_fast = len(getattr(language_model, "served", ()))
    finally:
        language_model = None
        del loaded
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    (name,) = results["results"]
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    columns = question_columns([sample["doc"] for sample in samples])
    answers = tuple(
        replace(_answer(task, sample, model.label), columns=column)
        for sample, column in zip(samples, columns, strict=True)
    )
    scores = results["results"][name]
    from lm_eval.utils import make_table

    return Evaluation(
        label=model.label,
        model_digest=model.digest,
        settings=settings,
        accuracy=float(scores[f"acc,{_FILTER}"]),
        stderr=_stderr(scores[f"acc_stderr,{_FILTER}"]),
        task_version=str(results["versions"][name]),
        task_hash=_task_hash(samples, answers),
        table=make_table(results).strip(),
        answers=answers,
        versions=versions,
        elapsed_seconds=time.perf_counter() - started,
        n_shot=int(results["n-shot"][name]),
        split=str(task.config.test_split or task.config.validation_split),
        loaded_dtype=loaded_dtype,
        prompt_source=str(results["configs"][name].get("doc_to_text", "")),
        task_digest=request.source_digest,
        questions_digest=request.rows_digest,
        n_fast=n_fast,
    )


def _language_model(model: Any, tokenizer: Any, settings: EvaluationSettings, tokenized: TokenizedPrompts) -> Any:
    from lm_eval.models import huggingface

    # A decorator hides the constructors' parameters from type checkers.
    if settings.engine == "fast":
        from mergeline.evaluation.worker import fast_scoring as fast_engine

        make_fast: Any = fast_engine.FastLanguageModel
        return make_fast(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=settings.batch_size,
            tokenized=tokenized,
        )
    make_stock: Any = huggingface.HFLM
    return make_stock(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch_size)


def _evaluate(task: Any, label: str, language_model: Any, settings: EvaluationSettings) -> Any:
    """Call lm-eval's ``evaluate``: unlike ``simple_evaluate`` it reads neither git nor the machine's description."""
    import numpy
    import torch
    from lm_eval.evaluator import evaluate

    random.seed(settings.seed)
    numpy.random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    task.set_fewshot_seed(seed=settings.seed)
    _check_lengths(task, label, language_model, settings.limit)
    return evaluate(lm=language_model, task_dict={"tasks": {task.task_name: task}}, limit=settings.limit)


def _check_lengths(task: Any, label: str, language_model: Any, limit: int | None) -> None:
    """Refuse a question that lm-eval would cut: it drops the beginning, which is the story."""
    if task.config.num_fewshot or task.multiple_input:
        return
    for number, question in task.doc_iterator(limit=limit):
        length = len(language_model.tok_encode(task.doc_to_text(question)))
        if length > language_model.max_length:
            raise EvaluationInputError(
                f"{label}: question {_identifier(question, number)} has {length} tokens, the model reads "
                f"{language_model.max_length}; leave the question out or evaluate a model with a longer context."
            )


def _answer(task: Any, sample: dict[str, Any], label: str) -> Answer:
    question = sample["doc"]
    identifier = _identifier(question, sample["doc_id"])
    choices = task.doc_to_choice(question)
    log_probabilities = tuple(float(response[0][0]) for response in sample["resps"][: len(choices)])
    if not all(math.isfinite(value) for value in log_probabilities):
        raise EvaluationError(
            f"{label}, question {identifier}: log-probabilities {list(log_probabilities)} are not all finite; "
            "check the merged weights for NaN, or evaluate in float32."
        )
    target = _target(task, question, identifier, choices)
    prediction = log_probabilities.index(max(log_probabilities))
    if (prediction == target) != bool(sample["acc"]):
        raise EvaluationError(
            f"{label}, question {identifier}: lm-eval counts acc {sample['acc']} where the answer is {prediction} "
            f"and {target} is right; the task scores in a way that cannot be compared answer by answer."
        )
    cluster = question.get("story_id")
    return Answer(
        question=identifier,
        cluster=identifier if cluster is None else str(cluster),
        target=target,
        prediction=prediction,
        log_probabilities=log_probabilities,
    )


def _target(task: Any, question: dict[str, Any], identifier: str, choices: Sequence[str]) -> int:
    target: object = task.doc_to_text(question) if task.multiple_input else task.doc_to_target(question)
    if isinstance(target, str) and target in choices:
        target = choices.index(target)
    if not isinstance(target, int) or not 0 <= target < len(choices):
        raise EvaluationInputError(f"Question {identifier}: the right answer {target!r} is none of {list(choices)}.")
    return target


def _identifier(question: dict[str, Any], number: int) -> str:
    identifier = question.get("id")
    return str(number + 1) if identifier is None else str(identifier)


def _stderr(value: object) -> float:
    # lm-eval writes "N/A" where a single question leaves nothing to estimate from.
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


def _task_hash(samples: Sequence[dict[str, Any]], answers: Sequence[Answer]) -> str:
    return digest(
        [
            [[list(argument) for argument in sample["arguments"]], answer.target]
            for sample, answer in zip(samples, answers, strict=True)
        ]
    )
