"""Models -> lm-eval scores, compared question by question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from mergeline.evaluation.evaluate_models import ModelToEvaluate
from mergeline.evaluation.questions.task_questions import read_questions
from mergeline.evaluation.report.tables import report_text
from mergeline.evaluation.results import EvaluationReport, EvaluationSettings
from mergeline.merge.devices import choose_devices
from mergeline.pipeline.language import MARGIN, Evaluate
from mergeline.pipeline.preflight import find_questions
from mergeline.sources.checkpoint import open_checkpoint
from mergeline.sources.hub import Hub
from tasks.evaluating import evaluate
from tasks.fetching import fetch_checkpoint, fetch_questions


@flow(name="evaluate-model", flow_run_name="evaluate {model}")
def evaluate_model(
    model: str = "mergeline-demo/compass",
    compare_with: list[str] = ["mergeline-demo/clock"],  # noqa: B006 - the form shows this default
    task: str = "spartqa_train",
    dataset: str = "mergeline-demo/spartqa-directions",
    limit: int | None = None,
    batch_size: int = 32,
    dtype: str = "auto",
    device: str = "auto",
    time_limit_minutes: int = 600,
    engine: str = "stock",
    margin: float = MARGIN,
) -> EvaluationReport:
    """Score a model with lm-eval beside others on the same questions.

    Args:
        model: Hub id or directory.
        compare_with: Models it is compared with.
        task: lm-eval task.
        dataset: Hub dataset id, local file or `directions`, and `?shuffle=SEED&take=N` to choose; none: the task's.
        limit: Only the first this many questions.
        batch_size: Questions per forward pass.
        dtype: auto, float32, bfloat16 or float16.
        device: auto, cpu, cuda or cuda:N.
        time_limit_minutes: The evaluation is ended after this long.
        engine: stock (lm-eval as it is) or fast (the same scores, less work).
        margin: Accuracy that may be lost and still count as not worse.
    """
    hub = Hub()
    names = [*compare_with, model]
    fetched = [fetch_checkpoint.submit(open_checkpoint(name, hub)) for name in names]
    models = [ModelToEvaluate(name, future.result()) for name, future in zip(names, fetched, strict=True)]
    settings = EvaluationSettings(
        task=task, dataset=dataset or None, limit=limit, batch_size=batch_size, dtype=dtype,
        device=choose_devices(device)[0], engine=engine,
    )  # fmt: skip
    questions = fetch_questions(find_questions(Evaluate(tasks=(task,), dataset=dataset or None), hub))
    return score(models, 0, settings, questions, time_limit_minutes, margin)


def score(
    models: Sequence[ModelToEvaluate],
    base_count: int,
    settings: EvaluationSettings,
    questions: Path | None,
    time_limit_minutes: int,
    margin: float = MARGIN,
    columns: Sequence[str] | None = None,
) -> EvaluationReport:
    """Evaluate the last model beside the others and compare it with them.

    Args:
        models: The model in question last.
        base_count: So many at the front (0 or 1) are shown but not compared with.
        settings: The same for all.
        questions: Where they lie; None: the task's own.
        time_limit_minutes: For all models together.
        margin: Accuracy that may be lost and still count as not worse.
        columns: Of the questions, to break accuracy down by; None: those with few values.
    """
    task_questions = read_questions(settings.task, questions, settings.dataset)
    report = evaluate(models, settings, task_questions, time_limit_minutes, base_count, margin, columns)
    create_markdown_artifact(report_text(report), key="evaluation", description=f"{settings.task}: {models[-1].label}")
    return report
