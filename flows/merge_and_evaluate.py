"""The whole pipeline: plan, merge, evaluate beside the parents, decide, publish, track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from prefect import flow, get_run_logger, runtime
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.approval import ask_for_approval
from flows.evaluate_model import score
from flows.executors import require_engine
from flows.merge_model import CORES, EXAMPLE_RECIPE, DeviceChoice, YamlBox, chosen_devices, fetch_sources, merge
from mergeline.errors import MergelineError
from mergeline.evaluation.evaluate_models import ModelToEvaluate
from mergeline.evaluation.report.tables import report_text
from mergeline.evaluation.results import EvaluationReport, EvaluationSettings, Sample
from mergeline.merge.merging import MergedModel
from mergeline.pipeline.language import read_form
from mergeline.pipeline.preflight import PreparedPipeline
from mergeline.pipeline.record import (
    manifest_links,
    merge_record,
    published_files,
    report_files,
    tracked_name,
    tracking_settings,
)
from mergeline.pipeline.stage_clock import StageClock
from mergeline.publish.gate import Decision, decide
from mergeline.publish.policy import PublishWhen
from mergeline.publish.publication import Publication
from mergeline.support.digests import canonical_json
from mergeline.tracking.runs import TrackedRun
from tasks.evaluating import sample
from tasks.fetching import fetch_checkpoint, fetch_questions
from tasks.planning import plan
from tasks.publishing import publish as publish_merge
from tasks.tracking import fail_run, open_run, record_merge, show_report_pages

EXAMPLE_SETTINGS = """\
evaluate:
  dataset: mergeline-demo/spartqa-directions
"""

# As with the device: offered by the form, judged by the pipeline language.
PublishChoice = Annotated[str, Field(json_schema_extra={"enum": list(get_args(PublishWhen))})]


@dataclass(frozen=True)
class PipelineResult:
    """What a pipeline made."""

    name: str
    plan_digest: str
    directory: Path
    """The merged model."""
    reports: tuple[EvaluationReport, ...]
    """One per lm-eval task."""
    samples: tuple[Sample, ...]
    decision: Decision
    publication: Publication | None
    run: TrackedRun | None
    """None: MLflow did not answer; `mergeline track --replay` sends the record later."""


@flow(name="merge-and-evaluate", flow_run_name="{name}", task_runner=ThreadPoolTaskRunner(max_workers=CORES))
def merge_and_evaluate(
    recipe: YamlBox = EXAMPLE_RECIPE,
    name: str = "demo-slerp",
    tasks: list[str] = ["spartqa_train"],  # noqa: B006 - the form shows this default
    limit: int | None = None,
    publish: PublishChoice = "never",
    repo_id: str = "",
    private: bool = True,
    device: DeviceChoice = "auto",
    more: YamlBox = EXAMPLE_SETTINGS,
) -> PipelineResult:
    """Merge checkpoints, evaluate the result beside its parents, publish it and record everything.

    Args:
        recipe: What to merge, in mergekit's YAML.
        name: Names the run and the directory, without spaces.
        tasks: lm-eval tasks; none: no evaluation.
        limit: Only the first this many questions; none: all.
        publish: When the merge goes on the Hub; after_approval waits on this run's page for somebody to say yes.
        repo_id: Where, as owner/name; without an owner, in the namespace of the token.
        private: Whether a new repository is private.
        device: Where the arithmetic runs; auto takes the worker's GPU, or its CPU.
        more: Further settings of the pipeline language, in YAML: the questions, samples, MLflow's experiment.
    """
    pipeline = read_form(
        recipe=recipe, name=name, tasks=tasks, limit=limit, publish=publish, repo_id=repo_id, private=private,
        device=device, more=more,
    )  # fmt: skip
    require_engine(pipeline.settings.execute)
    prepared = plan(pipeline)
    # Opened before the work, so that a merge that fails leaves its trace and a wrong address shows at once.
    run = open_run(tracking_settings(prepared), prepared.planned.plan.digest, tracked_name(prepared), _prefect_tags())
    try:
        return _run(prepared, run)
    except Exception as error:
        # What went wrong first is what the user must read.
        with suppress(MergelineError):
            fail_run(run, tracking_settings(prepared), str(error))
        raise


def _run(prepared: PreparedPipeline, run: TrackedRun | None) -> PipelineResult:
    """Run the pipeline's stages in order; every one finds and keeps what an earlier run finished."""
    settings, clock, tracking = prepared.pipeline.settings, StageClock(), tracking_settings(prepared)
    with clock.stage("fetch"):
        sources = fetch_sources(prepared)
    with clock.stage("merge"):
        merged = merge(prepared, sources, manifest_links(_prefect_tags(), run, tracking))
    with clock.stage("evaluate"):
        reports = evaluate_beside_parents(prepared, merged, sources)
    with clock.stage("sample"):
        samples = sample_beside_parents(prepared, merged, sources)

    def track(publication: Publication | None) -> TrackedRun | None:
        prefect = _prefect_tags()
        record = merge_record(prepared, merged, reports, samples, publication, clock=clock, prefect=prefect)
        return record_merge(tracking, record, is_shown=run is not None)

    decision, is_private = decide(settings.publish.when, reports), settings.publish.private
    is_asked = decision.is_pending and runtime.deployment.id is not None
    if is_asked:
        # Whoever decides may want to look at the run in MLflow and at its pages first.
        show_report_pages(track(None), report_files(merged.directory))
        decision, is_private = ask_for_approval(prepared, reports)
    get_run_logger().info("%s: %s", "Publishing" if decision.is_published else "Not publishing", decision.reason)
    publication = None
    digest = merged.manifest.plan_digest
    if decision.is_published and prepared.repo_id is not None:
        files = published_files(prepared, merged, reports, samples)
        with clock.stage("publish"):
            publication = publish_merge(merged.directory, prepared.repo_id, digest, is_private, files)
    recorded = track(publication)
    if not is_asked:
        show_report_pages(recorded, report_files(merged.directory))
    return PipelineResult(settings.name, digest, merged.directory, reports, samples, decision, publication, recorded)


def evaluate_beside_parents(
    prepared: PreparedPipeline, merged: MergedModel, sources: Sequence[Path]
) -> tuple[EvaluationReport, ...]:
    """Score base, parents and merge on every lm-eval task the pipeline names."""
    wanted = prepared.pipeline.settings.evaluate
    if not wanted.tasks:
        return ()
    base = [prepared.base] if prepared.base is not None and prepared.base not in prepared.planned.checkpoints else []
    models = [ModelToEvaluate(checkpoint.label, fetch_checkpoint(checkpoint)) for checkpoint in base]
    models += compared_models(prepared, merged, sources)
    questions = fetch_questions(prepared.questions)
    devices = chosen_devices(prepared)
    return tuple(
        score(
            models,
            len(base),
            EvaluationSettings(
                task,
                wanted.dataset,
                wanted.limit,
                wanted.batch_size,
                wanted.dtype,
                devices[0],
                engine=wanted.engine,
            ),
            questions,
            wanted.time_limit_minutes,
            wanted.margin,
            wanted.breakdown,
        )
        for task in wanted.tasks
    )


def sample_beside_parents(
    prepared: PreparedPipeline, merged: MergedModel, sources: Sequence[Path]
) -> tuple[Sample, ...]:
    """Let parents and merge continue the pipeline's prompts."""
    settings = prepared.pipeline.settings
    if not settings.sample.prompts:
        return ()
    models = compared_models(prepared, merged, sources)
    return sample(models, settings.sample, settings.evaluate.dtype, chosen_devices(prepared)[0])


def compared_models(prepared: PreparedPipeline, merged: MergedModel, sources: Sequence[Path]) -> list[ModelToEvaluate]:
    """Return the parents in the recipe's order, then the merge."""
    parents = zip(prepared.planned.checkpoints, sources, strict=True)
    models = [ModelToEvaluate(checkpoint.label, directory) for checkpoint, directory in parents]
    return [*models, ModelToEvaluate(prepared.pipeline.settings.name, merged.directory)]


def _prefect_tags() -> dict[str, str]:
    tags: Mapping[str, Any] = {
        "prefect.flow_run_id": runtime.flow_run.id,
        "prefect.flow_run_url": runtime.flow_run.ui_url,
    }
    return {key: str(value) for key, value in tags.items() if value}


def describe_result(result: PipelineResult) -> str:
    """Describe what a pipeline made, for a terminal."""
    parts = [report_text(report) for report in result.reports]
    parts += [f"{sample.label}\n> {sample.prompt}\n{sample.completion}" for sample in result.samples]
    published = result.publication
    if published is None:
        lines = [f"Not published: {result.decision.reason}."]
        if result.decision.is_pending:
            lines.append("To publish it, the same again with --set publish.when=always: everything else is kept.")
    else:
        state = "Was published already" if published.was_already_published else "Published"
        lines = [f"{state}: {published.url}"]
    lines += [
        f"Model: {result.directory}",
        *(f"Report: {path}" for path in report_files(result.directory)),
        f"MLflow run: {_run_place(result.run)}",
        f"Plan: {result.plan_digest}",
    ]
    return "\n\n".join([*parts, "\n".join(lines)])


def _run_place(run: TrackedRun | None) -> str:
    return "not recorded yet; `mergeline track --replay` does it" if run is None else run.url or run.run_id


def result_json(result: PipelineResult) -> str:
    """Render what a pipeline made as one line of JSON."""
    return canonical_json({**vars(result), "directory": str(result.directory)})
