"""One run of a pipeline: plan, merge, evaluate beside the parents, decide, publish, track."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mergeline.errors import MergelineError
from mergeline.evaluation.report.tables import report_text
from mergeline.evaluation.results import EvaluationReport, Sample
from mergeline.merge.merging import MergedModel
from mergeline.pipeline import steps
from mergeline.pipeline.language import LoadedPipeline
from mergeline.pipeline.preflight import PreparedPipeline
from mergeline.pipeline.published_files import report_files
from mergeline.pipeline.record import manifest_links, merge_record, tracking_settings
from mergeline.pipeline.stage_clock import StageClock
from mergeline.publish.gate import Decision
from mergeline.publish.publication import Publication
from mergeline.sources.hub import Hub
from mergeline.support.calling import Call, call_directly
from mergeline.support.digests import canonical_json
from mergeline.tracking import TrackedRun

logger = logging.getLogger(__name__)

Ask = Callable[[PreparedPipeline, Sequence[EvaluationReport], TrackedRun | None, MergedModel], tuple[Decision, bool]]
"""Takes the pipeline, its evaluations, its MLflow run and its merge; returns the decision, and whether a new repository
is private."""


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


@dataclass(frozen=True)
class Host:
    """Where a pipeline runs: what calls its steps, and who hears of them."""

    call: Call = call_directly
    """Calls every step of :mod:`mergeline.pipeline.steps`."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Other records of this run, for manifest and MLflow, e.g. ``prefect.flow_run_id``."""
    log: Callable[[str], None] = logger.info
    """Called with what was decided."""
    show_run: Callable[[PreparedPipeline, TrackedRun], None] = lambda prepared, run: None
    """Called once, with the merge's MLflow run."""
    ask: Ask | None = None
    """Asks a person whether to publish; None: nobody can be asked here, and a pending decision stays pending."""


PLAIN = Host()
"""This process, without Prefect."""


def run_pipeline(pipeline: LoadedPipeline, hub: Hub, host: Host = PLAIN) -> PipelineResult:
    """Run a pipeline's steps in order; every one finds and keeps what an earlier run finished.

    Args:
        pipeline: What to do.
        hub: Where models and questions are, and where the merge goes.
        host: What calls the steps.

    Raises:
        MergelineError: Of the kinds :mod:`mergeline.errors` lists.
    """
    prepared = host.call(steps.prepare, pipeline, hub)
    # Opened before the work, so that a merge that fails leaves its trace and a wrong address shows at once.
    opened = host.call(steps.open_run, prepared, host.tags)
    if opened is not None:
        host.show_run(prepared, opened)
    try:
        return _run(prepared, opened, hub, host)
    except Exception as error:
        # What went wrong first is what the user must read.
        with suppress(MergelineError):
            host.call(steps.fail_run, prepared, opened, str(error))
        raise


def _run(prepared: PreparedPipeline, opened: TrackedRun | None, hub: Hub, host: Host) -> PipelineResult:
    settings, clock, call = prepared.pipeline.settings, StageClock(), host.call
    with clock.stage("fetch"):
        sources = call(steps.fetch_checkpoints, prepared.planned.checkpoints, hub)
    with clock.stage("merge"):
        links = manifest_links(host.tags, opened, tracking_settings(prepared))
        merged = steps.merge(prepared, sources, links, call=call)
    with clock.stage("evaluate"):
        reports = steps.evaluate(prepared, merged, sources, hub, call)
    with clock.stage("sample"):
        samples = _sample(prepared, merged, sources, call)

    def record(publication: Publication | None) -> TrackedRun | None:
        made = merge_record(prepared, merged, reports, samples, publication, clock=clock, tags=host.tags)
        return call(steps.record, prepared, made)

    decision, is_private = steps.decide(prepared, reports), settings.publish.private
    if decision.is_pending and host.ask is not None:
        # Whoever decides may want to look at the run in MLflow and at its pages first.
        decision, is_private = host.ask(prepared, reports, record(None), merged)
    host.log(f"{'Publishing' if decision.is_published else 'Not publishing'}: {decision.reason}")
    publication = None
    if decision.is_published and prepared.repo_id is not None:
        with clock.stage("publish"):
            publication = call(steps.publish, prepared, merged, reports, samples, is_private, hub)
    recorded = record(publication)
    if recorded is not None and opened is None:
        host.show_run(prepared, recorded)
    return PipelineResult(
        settings.name, merged.plan.digest, merged.directory, reports, samples, decision, publication, recorded
    )


def _sample(prepared: PreparedPipeline, merged: MergedModel, sources: Sequence[Path], call: Call) -> tuple[Sample, ...]:
    settings = prepared.pipeline.settings
    if not settings.sample.prompts:
        return ()
    models = steps.compared_models(prepared, merged, sources)
    return call(steps.sample, models, settings.sample, settings.evaluate.dtype, prepared.devices[0])


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
