"""Prefect tasks: score models with lm-eval, and let them write."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from mergeline.evaluation.evaluate_beside import evaluate_beside
from mergeline.evaluation.evaluate_models import ModelToEvaluate
from mergeline.evaluation.questions.task_questions import TaskQuestions
from mergeline.evaluation.results import EvaluationReport, EvaluationSettings, Sample
from mergeline.evaluation.sample import sample_models
from mergeline.pipeline.language import Samples
from mergeline.support.state import state_directory


@task(name="evaluate", task_run_name="evaluate {settings.task}", tags=["gpu"], cache_policy=NO_CACHE)
def evaluate(
    models: Sequence[ModelToEvaluate],
    settings: EvaluationSettings,
    questions: TaskQuestions,
    time_limit_minutes: int,
    base_count: int,
    margin: float,
    columns: Sequence[str] | None,
) -> EvaluationReport:
    """Evaluate models beside each other; see :func:`mergeline.evaluation.evaluate_beside.evaluate_beside`."""
    return evaluate_beside(
        models,
        settings,
        questions,
        base_count=base_count,
        margin=margin,
        columns=columns,
        cache_dir=state_directory() / "evaluations",
        time_limit_seconds=60.0 * time_limit_minutes,
        on_line=get_run_logger().info,
    )


@task(name="sample", tags=["gpu"], cache_policy=NO_CACHE)
def sample(models: Sequence[ModelToEvaluate], settings: Samples, dtype: str, device: str) -> tuple[Sample, ...]:
    """Let models continue the pipeline's prompts; see :func:`mergeline.evaluation.sample.sample_models`."""
    samples = sample_models(
        models, settings.prompts, settings.max_new_tokens, settings.seed, dtype=dtype, device=device
    )
    shown = [f"**{sample.label}**\n\n> {sample.prompt}\n\n{sample.completion}" for sample in samples]
    create_markdown_artifact("\n\n---\n\n".join(shown), key="samples")
    return samples
