"""Models -> lm-eval scores, compared question by question."""

from __future__ import annotations

from prefect import flow

from flows.steps import as_task
from mergeline.evaluation.results import EvaluationReport
from mergeline.pipeline.evaluating import evaluate_named
from mergeline.pipeline.language import MARGIN, read_evaluate


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
    settings = {
        "tasks": [task], "dataset": dataset or None, "limit": limit, "batch_size": batch_size, "dtype": dtype,
        "engine": engine, "margin": margin, "time_limit_minutes": time_limit_minutes,
    }  # fmt: skip
    section = read_evaluate(settings, "evaluate-model")
    (evaluated,) = evaluate_named([*compare_with, model], section, device=device, call=as_task)
    return evaluated.report
