"""Prefect tasks: score models with lm-eval, and let them write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from mergeline.evaluation.evaluate_models import ModelToEvaluate
from mergeline.evaluation.questions.task_questions import TaskQuestions
from mergeline.evaluation.report.tables import report_text
from mergeline.evaluation.results import Dtype, EvaluationReport, Sample
from mergeline.pipeline import steps
from mergeline.pipeline.language import Evaluate, Samples


@task(name="evaluate", task_run_name="evaluate {questions.task_name}", tags=["gpu"], cache_policy=NO_CACHE)
def evaluate(
    models: Sequence[ModelToEvaluate],
    base_count: int,
    evaluate: Evaluate,
    questions: TaskQuestions,
    device: str,
    on_line: Callable[[str], None],
) -> EvaluationReport:
    """Score models on one lm-eval task and compare them; see :func:`mergeline.pipeline.steps.score`.

    Progress goes to the run's log instead of ``on_line``.
    """
    del on_line
    report = steps.score(models, base_count, evaluate, questions, device, get_run_logger().info)
    create_markdown_artifact(
        report_text(report), key="evaluation", description=f"{questions.task_name}: {report.merge.label}"
    )
    return report


@task(name="sample", tags=["gpu"], cache_policy=NO_CACHE)
def sample(models: Sequence[ModelToEvaluate], samples: Samples, dtype: Dtype, device: str) -> tuple[Sample, ...]:
    """Let models continue the pipeline's prompts; see :func:`mergeline.pipeline.steps.sample`."""
    written = steps.sample(models, samples, dtype, device)
    shown = [f"**{sample.label}**\n\n> {sample.prompt}\n\n{sample.completion}" for sample in written]
    create_markdown_artifact("\n\n---\n\n".join(shown), key="samples")
    return written
