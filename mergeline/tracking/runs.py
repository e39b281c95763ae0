"""MLflow runs: one per merge plan, with a child run for every model that was evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergeline.errors import TrackingInputError
from mergeline.support.secrets import without_secrets
from mergeline.tracking import summary
from mergeline.tracking.models import evaluated_models, log_model, register
from mergeline.tracking.note import EXPERIMENT_NOTE, merge_note
from mergeline.tracking.record import MergeRecord, without_private
from mergeline.tracking.store import TrackingSettings, artifact_location, opened_store
from mergeline.tracking.summary import PLAN_TAG
from mergeline.tracking.writing import finish, link_models, log, log_questions, log_scores, write_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

    from mergeline.tracking.models import EvaluatedModel

FAILURE_TAG = "mergeline.failure"
EVALUATION_TAG = "mergeline.evaluation_digest"
_PARENT_TAG = "mlflow.parentRunId"
_NOTE_TAG = "mlflow.note.content"


@dataclass(frozen=True)
class TrackedRun:
    """One merge's run."""

    run_id: str
    experiment_id: str
    url: str | None
    """The run's page, or None where no server shows it (a SQLite store)."""


def open_run(
    settings: TrackingSettings, *, plan_digest: str, name: str, tags: Mapping[str, str] | None = None
) -> TrackedRun:
    """Find the run of a plan, or create it, and mark it as running.

    Args:
        settings: Where to record; database, folder and experiment are made if they do not exist.
        plan_digest: Hex digest of the merge plan, which identifies the run within the experiment.
        name: The run's name, used when it is created.
        tags: Added to the run, in place of older values, e.g. ``prefect.flow_run_id``.

    Raises:
        TrackingInputError: The store named cannot be used.
        TrackingError: MLflow does not answer, or refused.
    """
    with opened_store(settings) as client:
        experiment = _experiment(client, settings)
        run = _find_run(client, experiment.experiment_id, {PLAN_TAG: plan_digest})
        if run is None:
            run = _create_run(client, experiment.experiment_id, {PLAN_TAG: plan_digest}, name)
        else:
            client.update_run(run.info.run_id, status="RUNNING")
            if FAILURE_TAG in run.data.tags:
                client.delete_tag(run.info.run_id, FAILURE_TAG)
        log(client, run.info.run_id, tags=tags or {})
    return _tracked(settings, run)


def record_merge(settings: TrackingSettings, record: MergeRecord) -> TrackedRun:
    """Write a finished merge's record and end its run; writing it again changes nothing.

    Raises:
        TrackingInputError: The store named cannot be used.
        TrackingError: MLflow does not answer, or refused a record.
    """
    record = without_private(record)
    timestamp_ms, plan_tag = record.timestamp_ms, {PLAN_TAG: record.manifest.plan_digest}
    with opened_store(settings) as client:
        experiment_id = _experiment(client, settings).experiment_id
        run = _find_run(client, experiment_id, plan_tag)
        took_ms = round(1000 * sum(record.measurements.get(f"{stage}/seconds", 0.0) for stage in ("fetch", "merge")))
        run = run or _create_run(client, experiment_id, plan_tag, record.name, max(0, timestamp_ms - took_ms))
        run_id = str(run.info.run_id)
        # Scores first: MLflow's comparison opens with the first metric that a run was given.
        metrics = {key: value for report in record.reports for key, value in summary.report_metrics(report).items()}
        metrics |= {summary.legal_key(key): value for key, value in record.metrics.items()}
        log(
            client,
            run_id,
            parameters=summary.merge_parameters(record),
            metrics=metrics,
            measurements={summary.legal_key(key): value for key, value in record.measurements.items()},
            tags=summary.merge_tags(record) | {_NOTE_TAG: merge_note(record)},
            timestamp_ms=timestamp_ms,
        )
        write_files(client, run_id, summary.files(record))
        output = _record_models(client, _tracked(settings, run), record)
        if record.publication is not None:
            register(client, settings.experiment, run_id, output, record)
        finish(client, run_id, timestamp_ms)
    return _tracked(settings, run)


def fail_run(run: TrackedRun, settings: TrackingSettings, reason: str) -> None:
    """End a run as failed, with the reason as tag ``mergeline.failure``.

    Raises:
        TrackingError: MLflow does not answer, or refused.
    """
    with opened_store(settings) as client:
        log(client, run.run_id, tags={FAILURE_TAG: reason})
        client.set_terminated(run.run_id, "FAILED")


def page_url(settings: TrackingSettings, experiment_id: str, run_id: str) -> str | None:
    """Return the address of a run's page, or None where no server shows it."""
    page = f"{settings.address.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
    # MLflow opens in its GenAI mode, where models are called agents, unless told otherwise.
    return f"{page}?workflowType=machine_learning" if settings.is_server else None


def _tracked(settings: TrackingSettings, run: Run) -> TrackedRun:
    run_id, experiment_id = str(run.info.run_id), str(run.info.experiment_id)
    return TrackedRun(run_id, experiment_id, page_url(settings, experiment_id, run_id))


def _experiment(client: MlflowClient, settings: TrackingSettings) -> Experiment:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None:
        try:
            experiment_id = client.create_experiment(
                settings.experiment, artifact_location(settings), {_NOTE_TAG: EXPERIMENT_NOTE}
            )
            experiment = client.get_experiment(experiment_id)
        except MlflowException as error:
            # Another process has created it meanwhile.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(settings.experiment)
    assert experiment is not None
    if experiment.lifecycle_stage == "deleted":
        raise TrackingInputError(
            f"MLflow experiment {settings.experiment!r} was deleted; restore it "
            f"(mlflow experiments restore -x {experiment.experiment_id}) or name another."
        )
    if settings.database is not None and str(experiment.artifact_location).startswith("mlflow-artifacts:"):
        raise TrackingInputError(
            f"MLflow experiment {settings.experiment!r} keeps its files behind a server; give the server's "
            f"http address instead of {settings.address}, or name another experiment."
        )
    return experiment


def _find_run(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> Run | None:
    condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    # The oldest, so that two processes that both created a run agree; start times can be equal, ids cannot.
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    runs = client.search_runs([experiment_id], condition, max_results=1, order_by=order)
    return runs[0] if runs else None


def _create_run(
    client: MlflowClient, experiment_id: str, tags: Mapping[str, str], name: str, start_time: int | None = None
) -> Run:
    """Create a run, or return the one that another process has created meanwhile, by its tags."""
    created = client.create_run(experiment_id, start_time, dict(tags), run_name=without_secrets(name))
    run = _find_run(client, experiment_id, tags) or created
    if run.info.run_id != created.info.run_id:
        client.delete_run(created.info.run_id)
    return run


def _record_models(client: MlflowClient, run: TrackedRun, record: MergeRecord) -> str | None:
    """Record every evaluated model and its scores; return the merge's LoggedModel, None if it was not evaluated."""
    for report in record.reports:
        log_questions(client, run.run_id, report.merge)
    inputs: list[str] = []
    output: str | None = None
    for model in evaluated_models(record):
        model_id = log_model(client, run.experiment_id, run.run_id, model, record)
        if model.is_merge:
            output = model_id
        else:
            inputs.append(model_id)
        _record_scores(client, run, model, model_id, record)
    link_models(client, run.run_id, inputs, output)
    return output


def _record_scores(
    client: MlflowClient, parent: TrackedRun, model: EvaluatedModel, model_id: str, record: MergeRecord
) -> None:
    """Record a model's scores as a child run of the merge's, linked to its LoggedModel and to the questions."""
    evaluations = [evaluation for evaluation, _ in model.scores]
    tags = {_PARENT_TAG: parent.run_id, EVALUATION_TAG: model.evaluated_as}
    child = _find_run(client, parent.experiment_id, tags)
    if child is None:
        elapsed_ms = round(1000 * sum(evaluation.elapsed_seconds for evaluation in evaluations))
        start_time = max(0, record.timestamp_ms - elapsed_ms)
        name = record.name if model.is_merge else model.label
        child = _create_run(client, parent.experiment_id, tags, name, start_time)
    run_id = str(child.info.run_id)
    for evaluation, report in model.scores:
        task = summary.legal_key(evaluation.settings.task)
        of_task = {f"task_version.{task}": evaluation.task_version, f"task_hash.{task}": evaluation.task_hash}
        log(
            client,
            run_id,
            parameters=summary.evaluation_parameters(evaluation, model.role),
            tags={"mergeline.model_digest": evaluation.model_digest}
            | of_task
            | summary.version_tags(evaluation.versions),
        )
        log_scores(
            client, run_id, model_id, evaluation, summary.evaluation_metrics(evaluation, report), record.timestamp_ms
        )
    log(client, run_id, tags={_NOTE_TAG: "\n\n".join(evaluation.table for evaluation in evaluations)})
    link_models(client, run_id, [model_id], None)
    finish(client, run_id, record.timestamp_ms)
