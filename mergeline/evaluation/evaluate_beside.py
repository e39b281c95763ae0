"""One whole evaluation: score models on an lm-eval task and compare the last with the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mergeline.evaluation.compare.comparison import compare_with_parents
from mergeline.evaluation.evaluate_models import ModelToEvaluate, evaluate_models
from mergeline.evaluation.questions.task_questions import TaskQuestions
from mergeline.evaluation.results import EvaluationReport, EvaluationSettings


def evaluate_beside(
    models: Sequence[ModelToEvaluate],
    settings: EvaluationSettings,
    questions: TaskQuestions,
    *,
    base_count: int,
    margin: float,
    columns: Sequence[str] | None,
    cache_dir: Path,
    time_limit_seconds: float,
    on_line: Callable[[str], None] | None = None,
) -> EvaluationReport:
    """Evaluate all models on the same questions and compare the last with its parents.

    Args:
        models: Base models first, then the parents, the merge last.
        settings: The same for all models.
        questions: Of the task and dataset that the settings name.
        base_count: Number of base models, 0 or 1: shown, but not compared with.
        margin: Loss of accuracy that still counts as not worse, in [0, 1].
        columns: Columns of the questions to break accuracy down by; None: those with 2 to 20 values.
        cache_dir: Where evaluations are stored; created if missing.
        time_limit_seconds: For all models together.
        on_line: Called with each line of progress.

    Raises:
        EvaluationInputError: a model, the task, the questions, a column or a setting cannot be used.
        EvaluationError: see :func:`.evaluate_models.evaluate_models`.
    """
    questions.check_breakdown(columns, settings.limit)
    *references, merge = evaluate_models(
        models, settings, questions, cache_dir=cache_dir, time_limit_seconds=time_limit_seconds, on_line=on_line
    )
    base = references[0] if base_count else None
    return compare_with_parents(merge, references[base_count:], base, margin=margin, columns=columns)
