"""MLflow runs: one per merge plan, and beneath it one per model that was evaluated."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from mergeline.errors import TrackingError
from mergeline.evaluation.records import Evaluation, EvaluationReport, Sample
from mergeline.lineage import Manifest, digest
from mergeline.tracking import summary
from mergeline.tracking.privacy import without_secrets
from mergeline.tracking.store import TrackingSettings, artifact_location, opened_store
from mergeline.tracking.writing import finish, log, write_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

PLAN_TAG = "mergeline.plan_digest"
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
        plan_digest: Hex digest of the merge plan, the run's identity within the experiment.
        name: The run's name, used when it is created.
        tags: Added to the run, e.g. ``prefect.flow_run_id``; the latest value stays.

    Raises:
        InputError: MLflow is not installed.
        TrackingError: MLflow could not be reached or refused.
    """
    with opened_store(settings) as client:
        experiment = _experiment(client, settings)
        run = _find_run(client, experiment.experiment_id, {PLAN_TAG: plan_digest})
        if run is None:
            run = client.create_run(
                experiment.experiment_id, tags={PLAN_TAG: plan_digest}, run_name=without_secrets(name)
            )
        else:
            client.update_run(run.info.run_id, status="RUNNING")
            if FAILURE_TAG in run.data.tags:
                client.delete_tag(run.info.run_id, FAILURE_TAG)
        run_id, experiment_id = str(run.info.run_id), str(run.info.experiment_id)
        log(client, run_id, tags=tags or {})
    page = f"{settings.address.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
    # MLflow opens in its GenAI mode, where models are called agents, unless told otherwise.
    url = f"{page}?workflowType=machine_learning" if settings.is_server else None
    return TrackedRun(run_id, experiment_id, url)


def record_merge(
    run: TrackedRun,
    settings: TrackingSettings,
    *,
    manifest: Manifest,
    recipe_text: str,
    pipeline_text: str | None,
    plan_json: str,
    parameters: Mapping[str, summary.Scalar],
    metrics: Mapping[str, float],
    reports: Sequence[EvaluationReport],
    samples: Sequence[Sample],
    tags: Mapping[str, str],
    timestamp_ms: int,
    pages: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Record a finished merge and end its run; doing so again adds nothing twice.

    Args:
        run: From :func:`open_run`.
        settings: The store the run is in.
        manifest: What the model is made of.
        recipe_text: The recipe as written.
        pipeline_text: The pipeline as written, if there was one.
        plan_json: The merge plan.
        parameters: Flat numbers and words that tell this merge from its siblings, e.g. ``t.self_attn``.
        metrics: Measurements, e.g. ``merge/seconds``, ``merge/bytes``.
        reports: The evaluations, one per lm-eval task; every model in them gets a child run.
        samples: Prompts and completions.
        tags: E.g. ``hf.repo``, ``hf.commit``, ``prefect.flow_run_id``, the verdict.
        timestamp_ms: When the merge ended, in milliseconds since 1970, equal in every repetition: MLflow keeps
            one history point per metric, value and timestamp.
        pages: Further artifacts, path -> text, e.g. the evaluation as an HTML page.

    Raises:
        TrackingError: MLflow could not be reached or refused.
    """
    scores = [summary.report_metrics(report) for report in reports]
    page = {_NOTE_TAG: summary.note(manifest, reports, (tags.get("hf.repo"), tags.get("hf.commit")))}
    versions = {"mergeline.version": manifest.engine_version} | _version_tags(manifest.versions)
    texts = summary.files(
        manifest=manifest,
        recipe_text=recipe_text,
        pipeline_text=pipeline_text,
        plan_json=plan_json,
        reports=reports,
        samples=samples,
    ) | dict(pages)
    with opened_store(settings) as client:
        log(
            client,
            run.run_id,
            parameters=summary.merge_parameters(manifest, parameters),
            metrics=dict(ChainMap(*scores, {summary.legal_key(key): value for key, value in metrics.items()})),
            tags={PLAN_TAG: manifest.plan_digest} | versions | page | dict(tags),
            timestamp_ms=timestamp_ms,
        )
        write_files(client, run.run_id, texts)
        for identity, evaluations in _by_model(reports).items():
            _record_model(client, run, identity, evaluations, timestamp_ms)
        finish(client, run.run_id, timestamp_ms)


def fail_run(run: TrackedRun, settings: TrackingSettings, reason: str) -> None:
    """End a run as failed, with the reason as tag ``mergeline.failure``.

    Raises:
        TrackingError: MLflow could not be reached or refused.
    """
    with opened_store(settings) as client:
        log(client, run.run_id, tags={FAILURE_TAG: reason})
        client.set_terminated(run.run_id, "FAILED")


def _experiment(client: MlflowClient, settings: TrackingSettings) -> Experiment:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None:
        try:
            experiment_id = client.create_experiment(settings.experiment, artifact_location(settings))
            experiment = client.get_experiment(experiment_id)
        except MlflowException as error:
            # Another process that writes to the same server was quicker.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(settings.experiment)
    assert experiment is not None
    if experiment.lifecycle_stage == "deleted":
        raise TrackingError(
            f"MLflow experiment {settings.experiment!r} was deleted; restore it "
            f"(mlflow experiments restore -x {experiment.experiment_id}) or name another."
        )
    if settings.database is not None and str(experiment.artifact_location).startswith("mlflow-artifacts:"):
        raise TrackingError(
            f"MLflow experiment {settings.experiment!r} keeps its files behind a server; give the server's "
            f"http address instead of {settings.address}, or name another experiment."
        )
    return experiment


def _find_run(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> Run | None:
    condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    # The oldest, so that two processes that both created one agree from then on.
    runs = client.search_runs([experiment_id], condition, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0] if runs else None


def _by_model(reports: Sequence[EvaluationReport]) -> dict[tuple[str, str], list[Evaluation]]:
    """Group the evaluations of one model: (digest of all that a child run's parameters hold, role) -> evaluations."""
    groups: dict[tuple[str, str], list[Evaluation]] = {}
    for report in reports:
        for evaluation in report.evaluations:
            role = "merge" if evaluation is report.merge else "reference"
            # Parameters never change in MLflow, so a model evaluated in another way is another run.
            identity = digest([evaluation.model_digest, summary.evaluation_parameters(evaluation, role)])
            groups.setdefault((identity, role), []).append(evaluation)
    return groups


def _record_model(
    client: MlflowClient,
    parent: TrackedRun,
    identity: tuple[str, str],
    evaluations: Sequence[Evaluation],
    timestamp_ms: int,
) -> None:
    model, (evaluated_as, role) = evaluations[0], identity
    tags = {_PARENT_TAG: parent.run_id, EVALUATION_TAG: evaluated_as}
    child = _find_run(client, parent.experiment_id, tags)
    if child is None:
        elapsed_ms = round(1000 * sum(evaluation.elapsed_seconds for evaluation in evaluations))
        child = client.create_run(
            parent.experiment_id, max(0, timestamp_ms - elapsed_ms), tags, run_name=without_secrets(model.label)
        )
    run_id = str(child.info.run_id)
    for evaluation in evaluations:
        task = summary.legal_key(evaluation.settings.task)
        of_task = {f"task_version.{task}": evaluation.task_version, f"task_hash.{task}": evaluation.task_hash}
        log(
            client,
            run_id,
            parameters=summary.evaluation_parameters(evaluation, role),
            metrics=summary.evaluation_metrics(evaluation),
            tags={"mergeline.model_digest": model.model_digest} | of_task | _version_tags(evaluation.versions),
            timestamp_ms=timestamp_ms,
        )
    log(client, run_id, tags={_NOTE_TAG: "\n\n".join(evaluation.table for evaluation in evaluations)})
    finish(client, run_id, timestamp_ms)


def _version_tags(versions: Mapping[str, str]) -> dict[str, str]:
    return {f"version.{package}": version for package, version in versions.items()}
