"""Models on one lm-eval task: each evaluated once, in a process of its own, and remembered."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mergeline.errors import EvaluationError, EvaluationInputError
from mergeline.evaluation.model_directory import model_digest
from mergeline.evaluation.questions.lm_eval_task import LmEvalTask, find_lm_eval_task
from mergeline.evaluation.questions.task_questions import task_questions
from mergeline.evaluation.results import Evaluation, EvaluationSettings
from mergeline.evaluation.stored_evaluation import evaluation_key, package_versions, read_evaluation
from mergeline.evaluation.worker.process import TaskDataError, WorkerOutOfMemoryError, run_worker
from mergeline.support.digests import digest

DTYPES = ("auto", "float32", "bfloat16", "float16")
ENGINES = ("stock", "fast")


@dataclass(frozen=True)
class ModelToEvaluate:
    """A local model directory and what the reader calls it."""

    label: str
    directory: Path


def evaluate_models(
    models: Sequence[ModelToEvaluate],
    settings: EvaluationSettings,
    *,
    questions: Path | None,
    cache_dir: Path,
    time_limit_seconds: float = 21_600.0,
    on_line: Callable[[str], None] | None = None,
) -> tuple[Evaluation, ...]:
    """Evaluate every model on the same questions and return the evaluations in the models' order.

    Everything that can be checked is checked before a model is loaded. One process then evaluates all models that
    ``cache_dir`` does not know, one after another, and keeps each result as soon as it is there: after an
    interruption the next call goes on from it. Where memory runs out, all models are evaluated again with half the
    batch, and so on down to single questions, since scores of different batch sizes are not comparable; their
    settings then say so.

    Args:
        models: Distinct labels; two with the same weights are evaluated once.
        settings: The same for all models.
        questions: A data file or a downloaded dataset repository, of which ``settings.dataset`` may choose some. None:
            those of the built-in generator where ``settings.dataset`` names it; else the task's own data, from the
            local cache of the datasets library, or from the Hub where it is not there. Results on it are not reused:
            nothing says whether it has changed.
        cache_dir: Where evaluations are kept between calls; made if it is not there.
        time_limit_seconds: For everything, further tries with smaller batches included.
        on_line: Called with each line of progress.

    Raises:
        EvaluationInputError: a model, the task, the questions or a setting cannot be used.
        EvaluationError: lm-eval crashed, ran out of memory on single questions, took too long, or gave scores that are
            not finite.
    """
    versions = package_versions()
    check_labels(models)
    check_settings(settings)
    task = find_lm_eval_task(settings.task)
    rows = task_questions(task, questions, settings.dataset)
    work = _Work(
        models=tuple(models),
        digests={model.label: model_digest(model.directory) for model in models},
        task=task,
        rows=rows,
        versions=versions,
        time_limit_seconds=time_limit_seconds,
        on_line=on_line,
    )
    deadline = time.monotonic() + time_limit_seconds
    with tempfile.TemporaryDirectory(prefix="mergeline-unkept-") as unkept:
        directory = Path(unkept) if rows is None else cache_dir.resolve()
        while True:
            try:
                return _evaluate_with_data(work, settings, directory)
            except WorkerOutOfMemoryError as error:
                if settings.batch_size == 1:
                    raise
                settings = replace(settings, batch_size=settings.batch_size // 2)
                work = replace(work, time_limit_seconds=max(0.0, deadline - time.monotonic()))
                if on_line is not None:
                    on_line(f"{error} Trying again with batches of {settings.batch_size}.")


def check_labels(models: Sequence[ModelToEvaluate]) -> None:
    """Raise :class:`EvaluationInputError` unless there are models and each has a label of its own."""
    if not models:
        raise EvaluationInputError("No model to evaluate was given; name at least one.")
    repeated = [label for label, count in Counter(model.label for model in models).items() if count > 1]
    if repeated:
        raise EvaluationInputError(
            f"Two models are called {repeated[0]!r}; give each a label of its own, so that scores can be told apart."
        )


def check_device_and_dtype(device: str, dtype: str) -> None:
    """Raise :class:`EvaluationInputError` where ``device`` or ``dtype`` is not a name that exists."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise EvaluationInputError(f"device is {device!r}; expected cpu, cuda or cuda:n.")
    if dtype not in DTYPES:
        raise EvaluationInputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}.")


@dataclass(frozen=True)
class _Work:
    """One call of :func:`evaluate_models`, checked; all but the settings, which change when memory runs out."""

    models: tuple[ModelToEvaluate, ...]
    digests: dict[str, str]
    """Label -> model digest."""
    task: LmEvalTask
    rows: list[dict[str, Any]] | None
    versions: dict[str, str]
    time_limit_seconds: float
    on_line: Callable[[str], None] | None


def _evaluate_with_data(work: _Work, settings: EvaluationSettings, directory: Path) -> tuple[Evaluation, ...]:
    """Evaluate offline; where that lacks the task's own data, have it fetched by a process that loads no model."""
    try:
        return _evaluate(work, settings, directory)
    except TaskDataError:
        run_worker(
            {"job": "fetch", "task": _task_request(work)},
            time_limit_seconds=work.time_limit_seconds,
            on_line=work.on_line,
            is_online=True,
        )
        return _evaluate(work, settings, directory)


def _evaluate(work: _Work, settings: EvaluationSettings, directory: Path) -> tuple[Evaluation, ...]:
    rows_digest = digest(work.rows)
    outputs = {
        label: directory / f"{evaluation_key(known, work.task, rows_digest, settings, work.versions)}.json"
        for label, known in work.digests.items()
    }
    # By output: models with the same weights share one, and are evaluated once.
    missing: dict[Path, ModelToEvaluate] = {}
    for model in work.models:
        if read_evaluation(outputs[model.label]) is None:
            missing.setdefault(outputs[model.label], model)
    if missing:
        request = {
            "job": "evaluate",
            "task": _task_request(work),
            "settings": asdict(settings),
            "versions": work.versions,
            "models": [
                {
                    "label": model.label,
                    "directory": str(model.directory.resolve()),
                    "digest": work.digests[model.label],
                    "output": str(output),
                }
                for output, model in missing.items()
            ],
        }
        run_worker(request, time_limit_seconds=work.time_limit_seconds, on_line=work.on_line)
    return tuple(_read(outputs[model.label], model.label, settings) for model in work.models)


def _task_request(work: _Work) -> dict[str, Any]:
    return {
        "name": work.task.name,
        "yaml_path": None if work.task.yaml_path is None else str(work.task.yaml_path),
        "rows": work.rows,
        "source_digest": work.task.source_digest or "",
        "rows_digest": "" if work.rows is None else digest(work.rows),
    }


def _read(path: Path, label: str, settings: EvaluationSettings) -> Evaluation:
    evaluation = read_evaluation(path)
    if evaluation is None:
        raise EvaluationError(f"{label}: its evaluation at {path} vanished or cannot be read; evaluate again.")
    return replace(evaluation, label=label, settings=settings)


def check_settings(settings: EvaluationSettings) -> None:
    """Raise :class:`EvaluationInputError` where a setting can never work, whatever the models and questions."""
    check_device_and_dtype(settings.device, settings.dtype)
    if settings.engine not in ENGINES:
        raise EvaluationInputError(f"engine is {settings.engine!r}; expected stock or fast.")
    if settings.batch_size < 1:
        raise EvaluationInputError(f"batch_size is {settings.batch_size}; expected 1 or more.")
    if settings.limit is not None and settings.limit < 1:
        raise EvaluationInputError(f"limit is {settings.limit}; expected 1 or more questions, or none for all.")
