"""Search an MLflow store for merges: by plan, by run, or by a source they were made from."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergeline.errors import InputError
from mergeline.merge.manifest import MANIFEST_NAME
from mergeline.tracking.runs import page_url
from mergeline.tracking.store import TrackingSettings, opened_store
from mergeline.tracking.summary import PLAN_TAG, SOURCE_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PAGE = 500


@dataclass(frozen=True)
class TrackedMerge:
    """What the tags of a merge's MLflow run say of it."""

    run_id: str
    name: str
    experiment: str
    url: str | None
    """The run's page; None where no server shows it."""
    status: str
    plan_digest: str
    verdict: str | None
    """Verdicts of the comparisons with its parents; None: not compared."""
    repo_id: str | None
    """On the Hub; None: not published."""
    commit: str | None
    flow_run_id: str | None
    """Of the Prefect flow run; None: merged without Prefect."""
    flow_run_url: str | None
    git_commit: str | None
    """Of the checkout that made it."""
    sources: Mapping[str, str]
    """Commit (or a local source's fingerprint) -> name."""


def merges_of_plan(uri: str, plan_digest: str) -> tuple[TrackedMerge, ...]:
    """Return the runs of a plan, one per experiment that it was recorded in, newest first.

    Raises:
        TrackingInputError: The store named cannot be used.
        TrackingError: MLflow does not answer.
    """
    return _search(uri, f"tags.`{PLAN_TAG}` = '{plan_digest}'")


def merges_of_source(uri: str, key: str) -> tuple[TrackedMerge, ...]:
    """Return every recorded merge that used a source, newest first.

    Args:
        uri: The store.
        key: The source's commit; see :func:`mergeline.tracking.summary.source_key`.

    Raises:
        TrackingInputError: The store named cannot be used.
        TrackingError: MLflow does not answer.
    """
    return _search(uri, f"tags.`{SOURCE_TAG}{key}` LIKE '%'")


def merge_of_run(uri: str, run_id: str) -> tuple[TrackedMerge, bytes]:
    """Return a run's merge and its manifest; the id of an evaluated model's run stands for its parent run, the merge.

    Raises:
        InputError: There is no such run, or it is of no finished merge.
        TrackingError: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    settings = TrackingSettings(uri, "")
    if not _exists(settings):
        raise InputError(f"{run_id}: MLflow store {settings.address} does not exist; name another.")
    with opened_store(settings) as client:
        try:
            run = client.get_run(run_id)
            if parent := run.data.tags.get("mlflow.parentRunId"):
                run = client.get_run(parent)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise InputError(f"{run_id}: MLflow store {settings.address} has no such run; name another.") from None
        try:
            with tempfile.TemporaryDirectory(prefix="mergeline-") as folder:
                manifest = Path(client.download_artifacts(run.info.run_id, MANIFEST_NAME, folder)).read_bytes()
        except (MlflowException, OSError):
            raise InputError(f"{run_id}: holds no {MANIFEST_NAME}; only a finished merge's run does.") from None
        return _tracked_merge(client, settings, run), manifest


def _search(uri: str, condition: str) -> tuple[TrackedMerge, ...]:
    settings = TrackingSettings(uri, "")
    if not _exists(settings):
        return ()
    with opened_store(settings) as client:
        experiments = [str(experiment.experiment_id) for experiment in client.search_experiments()]
        runs: list[Run] = []
        token: str | None = None
        while experiments:
            page = client.search_runs(
                experiments, condition, max_results=_PAGE, order_by=["attributes.start_time DESC"], page_token=token
            )
            runs += page
            token = page.token
            if not token:
                break
        return tuple(_tracked_merge(client, settings, run) for run in runs)


def _exists(settings: TrackingSettings) -> bool:
    """Return whether the store exists: opening a SQLite store would create it."""
    return settings.database is None or settings.database.exists()


def _tracked_merge(client: MlflowClient, settings: TrackingSettings, run: Run) -> TrackedMerge:
    run_id, experiment_id, tags = str(run.info.run_id), str(run.info.experiment_id), run.data.tags
    prefix = len(SOURCE_TAG)
    return TrackedMerge(
        run_id=run_id,
        name=str(run.info.run_name),
        experiment=str(client.get_experiment(experiment_id).name),
        url=page_url(settings, experiment_id, run_id),
        status=str(run.info.status),
        plan_digest=tags.get(PLAN_TAG, ""),
        verdict=tags.get("verdict"),
        repo_id=tags.get("hf.repo"),
        commit=tags.get("hf.commit"),
        flow_run_id=tags.get("prefect.flow_run_id"),
        flow_run_url=tags.get("prefect.flow_run_url"),
        git_commit=tags.get("mlflow.source.git.commit"),
        sources={key[prefix:]: value for key, value in tags.items() if key.startswith(SOURCE_TAG)},
    )
