"""A LoggedModel for every evaluated model, and the registered model whose versions are an experiment's merges."""

from __future__ import annotations

import logging
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from mergeline.evaluation.results import Evaluation, EvaluationReport
from mergeline.publish.gate import takes_title
from mergeline.sources.identity import SourceIdentity
from mergeline.support.digests import digest
from mergeline.tracking import summary
from mergeline.tracking.record import MergeRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

MODEL_TAG = "mergeline.model"
CHAMPION = "champion"

_FAMILY_NOTE = """\
Every version is a merge on the Hub, at the commit its source names. The alias `champion` moves only to a merge shown \
`better` than each of its parents, and than the champion before it where both answered the same questions.
"""
_EVALUATION = TypeAdapter(Evaluation)


@dataclass(frozen=True)
class EvaluatedModel:
    """A model and its evaluations under the same settings."""

    label: str
    role: str
    """``merge`` or ``reference``."""
    evaluated_as: str
    """Digest of the model and of everything that its run's parameters say."""
    scores: tuple[tuple[Evaluation, EvaluationReport], ...]
    """One evaluation per lm-eval task, with the report it is in."""

    @property
    def is_merge(self) -> bool:
        return self.role == "merge"


def evaluated_models(record: MergeRecord) -> list[EvaluatedModel]:
    """Return every model of a record's reports, references first."""
    groups: dict[tuple[str, str], list[tuple[Evaluation, EvaluationReport]]] = {}
    for report in record.reports:
        for evaluation in report.evaluations:
            role = "merge" if evaluation is report.merge else "reference"
            # Parameters never change in MLflow, so a model evaluated in another way is another run.
            identity = digest([evaluation.model_digest, summary.evaluation_parameters(evaluation, role)])
            groups.setdefault((identity, role), []).append((evaluation, report))
    return [
        EvaluatedModel(scores[0][0].label, role, identity, tuple(scores)) for (identity, role), scores in groups.items()
    ]


def log_model(client: MlflowClient, experiment_id: str, run_id: str, model: EvaluatedModel, record: MergeRecord) -> str:
    """Return the id of a model's LoggedModel, which is created if need be; it refers to the weights, without a copy.

    Args:
        client: Of the store.
        experiment_id: Merges of one experiment share the LoggedModels of their parents.
        run_id: The merge's run; the source run of the merge, not of its parents.
        model: The merge, or a model it was compared with.
        record: Of the merge.
    """
    model_digest = model.scores[0][0].model_digest
    origin = _origin(model, record)
    # A merge keeps its LoggedModel when it is published again; a source at another commit is another model.
    identity = digest([model_digest, record.manifest.plan_digest if model.is_merge else origin])
    tags = {MODEL_TAG: identity, "mergeline.model_digest": model_digest} | origin
    known = _logged_models(client, experiment_id, identity)
    if known:
        old_tags = known[0].tags
        if changed := {key: value for key, value in tags.items() if old_tags.get(key) != value}:
            client.set_logged_model_tags(known[0].model_id, changed)
        return str(known[0].model_id)
    made = client.create_logged_model(
        experiment_id,
        name=re.sub(r"[^\w -]", "-", model.label),
        source_run_id=run_id if model.is_merge else None,
        tags=tags,
        params=summary.merge_parameters(record) if model.is_merge else None,
        model_type="llm",
    )
    client.finalize_logged_model(made.model_id, "READY")
    first = _logged_models(client, experiment_id, identity)[0]
    if first.model_id != made.model_id:  # another process created one meanwhile
        client.delete_logged_model(made.model_id)
    return str(first.model_id)


def register(client: MlflowClient, experiment: str, run_id: str, model_id: str | None, record: MergeRecord) -> None:
    """Register a published merge as a version of its experiment's model, and make it champion if it takes the title."""
    from mlflow.exceptions import MlflowException

    published = record.publication
    assert published is not None
    name = family_name(experiment)
    # An address of HfFileSystem: an MLflow server refuses a source that begins with http.
    source = f"hf://{published.repo_id}@{published.commit}"
    try:
        client.create_registered_model(name, description=_FAMILY_NOTE)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    version = next((version for version in versions if version.source == source), None)
    if version is None:
        tags = _on_hub(published.repo_id, published.commit, published.url) | _evaluation_paths(record)
        description = f"{record.name}: `{published.repo_id}` at `{published.commit}`"
        version = client.create_model_version(
            name, source, run_id, tags, description=description, await_creation_for=0, model_id=model_id
        )
    # The champion's answers are fetched only for a merge that is better than its parents.
    if takes_title(record.reports) and _beats_champion(client, name, version, record):
        client.set_registered_model_alias(name, CHAMPION, version.version)


def family_name(experiment: str) -> str:
    """Return the name of the registered model whose versions are an experiment's merges."""
    return re.sub(r"[^\w.-]+", "-", experiment)


def _origin(model: EvaluatedModel, record: MergeRecord) -> dict[str, str]:
    """Return where a model is on the Hub, as tags; nothing for one that is not there."""
    if model.is_merge:
        published = record.publication
        return _on_hub(published.repo_id, published.commit, published.url) if published else {}
    known: list[SourceIdentity] = [*record.manifest.sources, *([record.base] if record.base else [])]
    for source in known:
        if source.label == model.label and source.repo_id and source.commit:
            url = f"{record.hub_url}/{source.repo_id}/tree/{source.commit}"
            return _on_hub(source.repo_id, source.commit, url)
    return {}


def _on_hub(repo_id: str, commit: str, url: str) -> dict[str, str]:
    return {"hf.repo": repo_id, "hf.commit": commit, "hf.url": url}


def _logged_models(client: MlflowClient, experiment_id: str, identity: str) -> list[Any]:
    models = client.search_logged_models([experiment_id], f"tags.`{MODEL_TAG}` = '{identity}'")
    return sorted(models, key=lambda model: (model.creation_timestamp, model.model_id))


def _evaluation_paths(record: MergeRecord) -> dict[str, str]:
    """Return task -> where the run keeps the merge's answers, as tags."""
    return {
        f"evaluation.{summary.legal_key(report.merge.settings.task)}": summary.evaluation_file(report)
        for report in record.reports
    }


def _beats_champion(client: MlflowClient, name: str, version: ModelVersion, record: MergeRecord) -> bool:
    """Fetch the champion's evaluations and compare; True where there is no champion, or it is this version."""
    from mlflow.exceptions import MlflowException

    champion = client.get_registered_model(name).aliases.get(CHAMPION)
    if champion is None or str(champion) == str(version.version):
        return True
    champion_version = client.get_model_version(name, str(champion))
    try:
        evaluations = [_evaluation_of(client, champion_version, report) for report in record.reports]
    except (MlflowException, OSError, ValidationError, KeyError) as error:
        logger.warning("%s keeps its champion: its answers cannot be read (%s).", name, error)
        return False
    return takes_title(record.reports, evaluations)


def _evaluation_of(client: MlflowClient, version: ModelVersion, report: EvaluationReport) -> Evaluation:
    path, run_id = version.tags[f"evaluation.{summary.legal_key(report.merge.settings.task)}"], str(version.run_id)
    with tempfile.TemporaryDirectory(prefix="mergeline-") as folder:
        return _EVALUATION.validate_json(Path(client.download_artifacts(run_id, path, folder)).read_bytes())
