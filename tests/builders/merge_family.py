"""A small family of real merges that differ in ``t``, evaluated beside their parents and recorded in MLflow."""

from __future__ import annotations

from pathlib import Path

from mergeline.evaluation.compare import comparison
from mergeline.evaluation.evaluate_models import ModelToEvaluate, evaluate_models
from mergeline.evaluation.results import EvaluationSettings
from mergeline.merge.merging import merge_recipe
from mergeline.pipeline.form import read_form
from mergeline.pipeline.preflight import prepare_pipeline
from mergeline.pipeline.record import merge_record
from mergeline.pipeline.stage_clock import StageClock
from mergeline.sources.checkpoint import fetch
from mergeline.sources.hub import Hub
from mergeline.tracking.runs import TrackedRun, record_merge
from mergeline.tracking.store import TrackingSettings

RECIPE = (Path(__file__).parents[2] / "configs" / "merges" / "demo-slerp.yaml").read_text()

MORE = "evaluate: {dataset: mergeline-demo/spartqa-directions}"


def record_family(
    settings: TrackingSettings, folder: Path, fractions: tuple[float, ...], questions: int
) -> dict[float, tuple[TrackedRun, float]]:
    """Merge the demonstration models at every fraction, with the Hub in the environment, and record each merge.

    Returns:
        ``t`` -> the merge's run and its accuracy.
    """
    hub = Hub()
    prepared, merged = {}, {}
    for t in fractions:
        text = RECIPE.replace("t: 0.5", f"t: {t}")
        pipeline = read_form({"recipe": text, "name": "family", "limit": questions, "device": "cpu", "more": MORE})
        prepared[t] = prepare_pipeline(pipeline, hub)
        recipe = folder / f"recipe-{t}.yaml"
        recipe.write_text(text)
        merged[t] = merge_recipe(recipe, folder / f"merge-{t}", hub=hub)
    first = prepared[fractions[0]]
    parents = [ModelToEvaluate(each.label, fetch(each, hub)) for each in first.planned.checkpoints]
    merges = [ModelToEvaluate(f"family-{t}", merged[t].directory) for t in fractions]
    evaluations = evaluate_models(
        [*parents, *merges],
        EvaluationSettings("spartqa_train", "mergeline-demo/spartqa-directions", questions),
        first.questions.of("spartqa_train", hub),
        cache_dir=folder / "evaluations",
    )
    runs: dict[float, tuple[TrackedRun, float]] = {}
    for t, evaluation in zip(fractions, evaluations[len(parents) :], strict=True):
        report = comparison.compare_with_parents(evaluation, evaluations[: len(parents)], margin=0.02)
        record = merge_record(prepared[t], merged[t], (report,), (), None, clock=StageClock(), tags={})
        runs[t] = (record_merge(settings, record), evaluation.accuracy)
    return runs
