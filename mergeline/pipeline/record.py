"""What MLflow is told of a pipeline's merge."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from mergeline.evaluation.results import EvaluationReport, Sample
from mergeline.merge.geometry import GEOMETRY_NAME, TensorGeometry, distances, geometry_lines, read_geometry
from mergeline.merge.merging import MergedModel
from mergeline.methods import METHODS
from mergeline.pipeline.preflight import PreparedPipeline
from mergeline.pipeline.published_files import model_card, report_pages
from mergeline.pipeline.stage_clock import StageClock, peak_memory_bytes
from mergeline.plan.merge_plan import MergePlan
from mergeline.plan.plan_file import plan_json
from mergeline.publish.publication import Publication
from mergeline.recipe.parameters import flat_parameters
from mergeline.recipe.recipe import read_recipe
from mergeline.sources.hub import Hub
from mergeline.tracking.record import MergeRecord
from mergeline.tracking.runs import TrackedRun
from mergeline.tracking.store import TrackingSettings
from mergeline.tracking.summary import run_name, short_labels

_CHECKOUT = Path(__file__).parents[2]


def tracking_settings(prepared: PreparedPipeline) -> TrackingSettings:
    """Return where the pipeline's merge is recorded."""
    track = prepared.pipeline.settings.track
    return TrackingSettings(track.resolved_uri, track.experiment)


def tracked_name(prepared: PreparedPipeline) -> str:
    """Return the name of the merge's MLflow run, which says in what it differs from its siblings."""
    plan = prepared.planned.plan
    return run_name(
        prepared.pipeline.settings.name, plan.merge_method, flat_parameters(read_recipe(prepared.planned.recipe_text))
    )


def manifest_links(tags: Mapping[str, str], run: TrackedRun | None, settings: TrackingSettings) -> dict[str, str]:
    """Return what the manifest, which is published, says of the merge's other records.

    Args:
        tags: What names the run, e.g. ``prefect.flow_run_id``.
        run: The merge's run, if MLflow answered when it was opened.
        settings: The store it is in; that of one machine's disk is not named.
    """
    links = {key.replace(".", "_"): value for key, value in tags.items()}
    links["mlflow_experiment"] = settings.experiment
    if run is not None:
        links |= {"mlflow_run_id": run.run_id} | ({"mlflow_run_url": run.url} if run.url else {})
    return links


def merge_record(
    prepared: PreparedPipeline,
    merged: MergedModel,
    reports: Sequence[EvaluationReport],
    samples: Sequence[Sample],
    publication: Publication | None,
    *,
    clock: StageClock,
    tags: Mapping[str, str],
) -> MergeRecord:
    """Return everything MLflow is told of a finished pipeline.

    Args:
        prepared: The pipeline.
        merged: Its merge.
        reports: Its evaluations.
        samples: What the models wrote.
        publication: Where it is on the Hub, if it was let go.
        clock: What its stages took.
        tags: What names the run, e.g. ``prefect.flow_run_id``.
    """
    manifest, planned = merged.manifest, prepared.planned
    settings, geometry = prepared.pipeline.settings, read_geometry(merged.directory)
    shard_size = {"max_shard_size": settings.execute.max_shard_size}
    card = {"README.md": model_card(prepared, merged, reports, samples), GEOMETRY_NAME: geometry_lines(geometry)}
    commit = checkout_commit()
    return MergeRecord(
        name=tracked_name(prepared),
        manifest=manifest,
        recipe_text=planned.recipe_text,
        plan_json=plan_json(planned.plan),
        # The merge's own time, so that a rerun adds no second history point.
        timestamp_ms=int(datetime.fromisoformat(manifest.created_at).timestamp() * 1000),
        pipeline_text=prepared.pipeline.as_yaml(),
        parameters=flat_parameters(read_recipe(planned.recipe_text)) | shard_size,
        metrics=_bytes(merged, publication) | _geometry_metrics(planned.plan, geometry),
        measurements=_measurements(merged, clock),
        reports=tuple(reports),
        samples=tuple(samples),
        tags=dict(tags) | ({"mlflow.source.git.commit": commit} if commit else {}),
        pages=report_pages(prepared, merged, reports, samples) | card,
        hub_url=Hub().url,
        base=None if prepared.base is None else prepared.base.identity,
        publication=publication,
    )


def checkout_commit() -> str | None:
    """Return the git commit that flows, tasks and engine run from, ``-dirty`` if changed; None outside a checkout."""
    if not (_CHECKOUT / ".git").exists():
        return None
    command = ["git", "-C", str(_CHECKOUT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def _bytes(merged: MergedModel, publication: Publication | None) -> dict[str, float]:
    manifest = merged.manifest
    written = sum(shard.nbytes for shard in manifest.shards)
    read = sum(file.nbytes for source in manifest.sources for file in source.files)
    sizes = {"fetch/bytes": float(read), "merge/bytes": float(written)}
    if publication is not None:
        sizes["publish/bytes"] = float(written + sum(file.nbytes for file in manifest.other_files))
    return sizes


def _geometry_metrics(plan: MergePlan, geometry: Sequence[TensorGeometry]) -> dict[str, float]:
    """Return a merge's geometry in a few numbers; none of a merge that kept no record of it."""
    moved = dict(distances(plan, geometry)) if geometry else {}
    names = short_labels(moved)
    metrics = {f"geometry/moved.{names[label]}": distance for label, distance in moved.items()}
    if cosines := [tensor.cosine for tensor in geometry if tensor.cosine is not None]:
        metrics |= {"geometry/cosine_mean": sum(cosines) / len(cosines), "geometry/cosine_least": min(cosines)}
    shares = METHODS[plan.merge_method].branch_metrics([tensor.branch for tensor in geometry])
    return metrics | {f"geometry/{name}": share for name, share in shares.items()}


def _measurements(merged: MergedModel, clock: StageClock) -> dict[str, float]:
    """Return seconds and memory of the run that did the work; of one that found the merge finished, no merge's."""
    measured = {f"{name}/seconds": seconds for name, seconds in clock.seconds.items()}
    if not merged.results:
        measured.pop("merge/seconds", None)
        return measured
    # An interrupted merge's shards say what they took, whichever run made them.
    measured["merge_shards/seconds"] = sum(result.elapsed_seconds for result in merged.results)
    return measured | {"merge/peak_memory_bytes": peak_memory_bytes()}
