"""Score models on one lm-eval task, in a separate process, and keep each evaluation on disk."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from mergeline.errors import EvaluationError, EvaluationInputError
from mergeline.evaluation.model_directory import model_digest
from mergeline.evaluation.questions.task_questions import TaskQuestions
from mergeline.evaluation.results import Dtype, Evaluation, EvaluationSettings, Scoring
from mergeline.evaluation.stored_evaluation import evaluation_key, package_versions, read_evaluation
from mergeline.evaluation.worker.process import TaskDataError, WorkerOutOfMemoryError, run_worker


@dataclass(frozen=True)
class ModelToEvaluate:
    """A local model directory and what the reader calls it."""

    label: str
    directory: Path


def evaluate_models(
    models: Sequence[ModelToEvaluate],
    settings: EvaluationSettings,
    questions: TaskQuestions,
    *,
    cache_dir: Path,
    time_limit_seconds: float = 36_000.0,
    on_line: Callable[[str], None] | None = None,
) -> tuple[Evaluation, ...]:
    """Evaluate every model on the same questions and return the evaluations in the models' order.

    All inputs are checked before a model is loaded. One process then evaluates, one after another, the models that
    ``cache_dir`` holds no result of, and stores each result as soon as it is complete: the next call resumes there.
    If memory runs out, all models are evaluated again with half the batch size, down to single questions, because
    scores of different batch sizes are not comparable; the returned settings hold the batch size that was used.

    Args:
        models: With distinct labels; models with equal weights are evaluated once.
        settings: The same for all models.
        questions: Of ``settings.task`` and ``settings.dataset``. A task's own data come from the local cache of the
            datasets library, else from the Hub; results on them are not stored, since no digest tells when they change.
        cache_dir: Where evaluations are stored; created if missing.
        time_limit_seconds: For all models together, including repetitions with smaller batches.
        on_line: Called with each line of progress.

    Raises:
        EvaluationInputError: a model, the task, the questions or a setting cannot be used.
        EvaluationError: lm-eval crashed, ran out of memory on single questions, exceeded the time limit, or gave
            scores that are not finite.
    """
    versions = package_versions()
    check_labels(models)
    check_settings(settings)
    _check_questions(settings, questions)
    job = _EvaluationJob(
        models=tuple(models),
        digests={model.label: model_digest(model.directory) for model in models},
        questions=questions,
        versions=versions,
        time_limit_seconds=time_limit_seconds,
        on_line=on_line,
    )
    deadline = time.monotonic() + time_limit_seconds
    with tempfile.TemporaryDirectory(prefix="mergeline-evaluations-") as discarded:
        directory = Path(discarded) if questions.rows is None else cache_dir.resolve()
        while True:
            try:
                return _evaluate_with_data(job, settings, directory)
            except WorkerOutOfMemoryError as error:
                if settings.batch_size == 1:
                    raise
                settings = replace(settings, batch_size=settings.batch_size // 2)
                job = replace(job, time_limit_seconds=max(0.0, deadline - time.monotonic()))
                if on_line is not None:
                    on_line(f"{error} Trying again with batches of {settings.batch_size}.")


def check_labels(models: Sequence[ModelToEvaluate]) -> None:
    """Raise :class:`EvaluationInputError` if there are no models, or two have the same label."""
    if not models:
        raise EvaluationInputError("No model to evaluate was given; name at least one.")
    repeated = [label for label, count in Counter(model.label for model in models).items() if count > 1]
    if repeated:
        raise EvaluationInputError(
            f"Two models are called {repeated[0]!r}; give each a label of its own, so that scores can be told apart."
        )


def check_settings(settings: EvaluationSettings) -> None:
    """Raise :class:`EvaluationInputError` if a setting is invalid whatever the models and questions."""
    check_device_and_dtype(settings.device, settings.dtype)
    if settings.engine not in get_args(Scoring):
        raise EvaluationInputError(f"engine is {settings.engine!r}; expected {' or '.join(get_args(Scoring))}.")
    if settings.batch_size < 1:
        raise EvaluationInputError(f"batch_size is {settings.batch_size}; expected 1 or more.")
    if settings.limit is not None and settings.limit < 1:
        raise EvaluationInputError(f"limit is {settings.limit}; expected 1 or more questions, or none for all.")


def check_device_and_dtype(device: str, dtype: str) -> None:
    """Raise :class:`EvaluationInputError` if ``device`` or ``dtype`` has no valid name."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise EvaluationInputError(f"device is {device!r}; expected cpu, cuda or cuda:n.")
    if dtype not in get_args(Dtype):
        raise EvaluationInputError(f"dtype is {dtype!r}; expected one of {', '.join(get_args(Dtype))}.")


def _check_questions(settings: EvaluationSettings, questions: TaskQuestions) -> None:
    expected, actual = (settings.task, settings.dataset), (questions.task_name, questions.dataset)
    if expected != actual:
        raise EvaluationInputError(
            f"The settings name task and dataset {expected}, the questions were read for {actual}; read those of the "
            "settings."
        )


@dataclass(frozen=True)
class _EvaluationJob:
    """Checked arguments of :func:`evaluate_models`, except the settings, which change when memory runs out."""

    models: tuple[ModelToEvaluate, ...]
    digests: dict[str, str]
    """Label -> model digest."""
    questions: TaskQuestions
    versions: dict[str, str]
    time_limit_seconds: float
    on_line: Callable[[str], None] | None

    def task_request(self) -> dict[str, Any]:
        task = self.questions.task
        return {
            "name": task.name,
            "yaml_path": None if task.yaml_path is None else str(task.yaml_path),
            "rows": self.questions.rows,
            "source_digest": task.source_digest or "",
            "rows_digest": self.questions.digest,
        }


def _evaluate_with_data(job: _EvaluationJob, settings: EvaluationSettings, directory: Path) -> tuple[Evaluation, ...]:
    """Evaluate offline; if the task's own data are not cached, first fetch them in a process that loads no model."""
    try:
        return _evaluate(job, settings, directory)
    except TaskDataError:
        run_worker(
            {"job": "fetch", "task": job.task_request()},
            time_limit_seconds=job.time_limit_seconds,
            on_line=job.on_line,
            is_online=True,
        )
        return _evaluate(job, settings, directory)


def _evaluate(job: _EvaluationJob, settings: EvaluationSettings, directory: Path) -> tuple[Evaluation, ...]:
    outputs = {
        label: directory
        / f"{evaluation_key(model, job.questions.task, job.questions.digest, settings, job.versions)}.json"
        for label, model in job.digests.items()
    }
    # By output: models with equal weights share one and are evaluated once.
    missing: dict[Path, ModelToEvaluate] = {}
    for model in job.models:
        if read_evaluation(outputs[model.label]) is None:
            missing.setdefault(outputs[model.label], model)
    if missing:
        request = {
            "job": "evaluate",
            "task": job.task_request(),
            "settings": asdict(settings),
            "versions": job.versions,
            "models": [
                {
                    "label": model.label,
                    "directory": str(model.directory.resolve()),
                    "digest": job.digests[model.label],
                    "output": str(output),
                }
                for output, model in missing.items()
            ],
        }
        run_worker(request, time_limit_seconds=job.time_limit_seconds, on_line=job.on_line)
    return tuple(_read(outputs[model.label], model.label, settings) for model in job.models)


def _read(path: Path, label: str, settings: EvaluationSettings) -> Evaluation:
    evaluation = read_evaluation(path)
    if evaluation is None:
        raise EvaluationError(f"{label}: its evaluation at {path} vanished or cannot be read; evaluate again.")
    return replace(evaluation, label=label, settings=settings)
