"""The steps of a pipeline, each a plain function.

:mod:`mergeline.pipeline.run` puts them in order, the command line calls some of them alone, and flows run the same
order with every step a Prefect task. A step that takes ``call`` is made of smaller ones and calls them through it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mergeline import tracking
from mergeline.errors import InputError, MergelineError, TrackingError
from mergeline.evaluation.evaluate_models import ModelToEvaluate
from mergeline.evaluation.questions.task_questions import TaskQuestions
from mergeline.evaluation.results import Dtype, EvaluationReport, EvaluationSettings, Sample
from mergeline.merge.devices import CORES
from mergeline.merge.job import MergeJob, merge_here
from mergeline.merge.merging import MergedModel, merge_planned
from mergeline.merge.shard import Progress, Resources, ShardResult
from mergeline.merge.verification import Verification, verify_directory
from mergeline.pipeline.language import Evaluate, LoadedPipeline, Samples
from mergeline.pipeline.preflight import PreparedPipeline, fetch_questions, prepare_pipeline
from mergeline.pipeline.published_files import published_files
from mergeline.pipeline.record import tracked_name, tracking_settings
from mergeline.publish.gate import Decision
from mergeline.publish.gate import decide as decide_by_policy
from mergeline.publish.publication import Publication, publish_directory
from mergeline.sources.checkpoint import Checkpoint
from mergeline.sources.checkpoint import fetch as fetch_checkpoint_files
from mergeline.sources.hub import Hub
from mergeline.support.calling import Call, call_directly
from mergeline.support.state import state_folder
from mergeline.tracking import MergeRecord, TrackedRun

logger = logging.getLogger(__name__)


def prepare(pipeline: LoadedPipeline, hub: Hub) -> PreparedPipeline:
    """Look up everything a pipeline names and plan its merge; see :func:`prepare_pipeline`."""
    return prepare_pipeline(pipeline, hub)


def fetch_checkpoint(checkpoint: Checkpoint, hub: Hub) -> Path:
    """Return the directory of a checkpoint's files, downloading those of a Hub repository."""
    return fetch_checkpoint_files(checkpoint, hub)


def fetch_checkpoints(checkpoints: Sequence[Checkpoint], hub: Hub) -> tuple[Path, ...]:
    """Return the directories of several checkpoints, in their order."""
    return tuple(fetch_checkpoint(checkpoint, hub) for checkpoint in checkpoints)


def merge_shards(prepared: PreparedPipeline, job: MergeJob, on_progress: Progress) -> tuple[ShardResult, ...]:
    """Merge a job's shards in this process.

    Raises:
        InputError: If the pipeline wants them merged on other machines, which takes Prefect.
    """
    execute = prepared.pipeline.settings.execute
    if execute.engine != "threads":
        raise InputError(f"execute.engine: {execute.engine} needs Prefect; start the pipeline with `mergeline run`.")
    return merge_here(job, Resources(prepared.devices, CORES), on_progress)


def merge(
    prepared: PreparedPipeline,
    sources: Sequence[Path],
    links: Mapping[str, str],
    on_progress: Progress = lambda nbytes: None,
    call: Call = call_directly,
) -> MergedModel:
    """Merge shard by shard, assemble and verify; what an earlier run finished is kept.

    Args:
        prepared: The pipeline.
        sources: Directory of each of the plan's sources.
        links: Other records of this merge, kept in the manifest of one that is made now.
        on_progress: Called as bytes are written.
        call: Calls ``merge_shards``, ``assemble`` and ``verify``.
    """
    merged = merge_planned(
        prepared.planned,
        output_directory(prepared),
        lambda: sources,
        lambda job: call(merge_shards, prepared, job, on_progress),
        links,
        call,
    )
    call(verify, merged)
    return merged


def output_directory(prepared: PreparedPipeline) -> Path:
    """Return where a pipeline's merge lies: named for people, told apart by its plan."""
    return state_folder("merges") / f"{prepared.pipeline.settings.name}-{prepared.planned.plan.digest[:12]}"


def verify(merged: MergedModel) -> Verification:
    """Compare every file of a merge with its manifest, every tensor with its plan."""
    return verify_directory(merged.directory)


def compared_models(prepared: PreparedPipeline, merged: MergedModel, sources: Sequence[Path]) -> list[ModelToEvaluate]:
    """Return the parents in the recipe's order, then the merge."""
    parents = zip(prepared.planned.checkpoints, sources, strict=True)
    models = [ModelToEvaluate(checkpoint.label, directory) for checkpoint, directory in parents]
    return [*models, ModelToEvaluate(prepared.pipeline.settings.name, merged.directory)]


def evaluate(
    prepared: PreparedPipeline,
    merged: MergedModel,
    sources: Sequence[Path],
    hub: Hub,
    call: Call = call_directly,
) -> tuple[EvaluationReport, ...]:
    """Score base, parents and merge on every lm-eval task the pipeline names.

    Args:
        prepared: The pipeline.
        merged: Its merge.
        sources: Directories of the parents, in the recipe's order.
        hub: Where base and questions are fetched.
        call: Calls ``fetch_checkpoints``, ``fetch_questions`` and, for each lm-eval task, ``score``.
    """
    evaluate, questions = prepared.pipeline.settings.evaluate, prepared.questions
    if questions is None:
        return ()
    base = [prepared.base] if prepared.base is not None and prepared.base not in prepared.planned.checkpoints else []
    directories = call(fetch_checkpoints, base, hub)
    models = [ModelToEvaluate(model.label, directory) for model, directory in zip(base, directories, strict=True)]
    models += compared_models(prepared, merged, sources)
    call(fetch_questions, questions, hub)
    return tuple(
        call(score, models, len(base), evaluate, questions.of(task, hub), prepared.devices[0], logger.info)
        for task in evaluate.tasks
    )


def score(
    models: Sequence[ModelToEvaluate],
    base_count: int,
    evaluate: Evaluate,
    questions: TaskQuestions,
    device: str,
    on_line: Callable[[str], None] = logger.info,
) -> EvaluationReport:
    """Evaluate the last model beside the others on one lm-eval task, and compare it with them.

    Args:
        models: The model in question last.
        base_count: So many at the front (0 or 1) are shown but not compared with.
        evaluate: Settings.
        questions: The lm-eval task and what it asks.
        device: Where models are loaded.
        on_line: Called with each line of progress.
    """
    from mergeline.evaluation.evaluate_beside import evaluate_beside

    settings = EvaluationSettings(
        questions.task_name, evaluate.dataset, evaluate.limit, evaluate.batch_size, evaluate.dtype, device,
        engine=evaluate.engine,
    )  # fmt: skip
    return evaluate_beside(
        models,
        settings,
        questions,
        base_count=base_count,
        margin=evaluate.margin,
        columns=evaluate.breakdown,
        cache_dir=state_folder("evaluations"),
        time_limit_seconds=60.0 * evaluate.time_limit_minutes,
        on_line=on_line,
    )


def sample(models: Sequence[ModelToEvaluate], samples: Samples, dtype: Dtype, device: str) -> tuple[Sample, ...]:
    """Let models continue the prompts."""
    from mergeline.evaluation.sample import sample_models

    return sample_models(models, samples.prompts, samples.max_new_tokens, samples.seed, dtype=dtype, device=device)


def decide(prepared: PreparedPipeline, reports: Sequence[EvaluationReport]) -> Decision:
    """Apply the pipeline's publishing policy."""
    return decide_by_policy(prepared.pipeline.settings.publish.when, reports)


def publish(
    prepared: PreparedPipeline,
    merged: MergedModel,
    reports: Sequence[EvaluationReport],
    samples: Sequence[Sample],
    is_private: bool,
    hub: Hub,
) -> Publication:
    """Commit the merge to the Hub with its card and evaluations, once."""
    assert prepared.repo_id is not None
    return publish_directory(
        merged.directory,
        prepared.repo_id,
        hub=hub,
        plan_digest=merged.manifest.plan_digest,
        private=is_private,
        extra_files=published_files(prepared, merged, reports, samples),
    )


def open_run(
    prepared: PreparedPipeline, tags: Mapping[str, str], warn: Callable[[str], None] = logger.warning
) -> TrackedRun | None:
    """Find or create the plan's run in MLflow; None, with a warning, where MLflow does not answer."""
    try:
        return tracking.open_run(
            tracking_settings(prepared),
            plan_digest=prepared.planned.plan.digest,
            name=tracked_name(prepared),
            tags=tags,
        )
    except TrackingError as error:
        warn(f"{error} The merge goes on and is recorded later.")
        return None


def fail_run(prepared: PreparedPipeline, run: TrackedRun | None, reason: str) -> None:
    """End the run, if there is one, as failed."""
    if run is not None:
        tracking.fail_run(run, tracking_settings(prepared), reason)


def record(
    prepared: PreparedPipeline,
    merge_record: MergeRecord,
    warn: Callable[[str], None] = logger.warning,
) -> TrackedRun | None:
    """Keep everything known of the merge on disk, then send it to MLflow; None, with a warning, if it must wait."""
    settings = tracking_settings(prepared)
    path = tracking.keep_record(settings, merge_record)
    try:
        return tracking.send_record(path, settings)
    except MergelineError as error:
        warn(f"{error} The record waits in {path}; `mergeline track --replay` sends it.")
        return None
