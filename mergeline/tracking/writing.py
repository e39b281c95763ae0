"""What a run holds: parameters, metrics, tags and files, each written once however often it is recorded."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mergeline.tracking.privacy import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_BATCH = 100
"""Parameters or tags that MLflow accepts at once."""
_PARAMETER_CHARACTERS = 6000
"""MLflow cuts a longer parameter."""


def log(
    client: MlflowClient,
    run_id: str,
    *,
    parameters: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    timestamp_ms: int = 0,
) -> None:
    """Write what the run does not hold yet, or holds otherwise.

    Args:
        client: Of the store the run is in.
        run_id: The run.
        parameters: The first value stays; another is shown as tag ``mergeline.latest.<parameter>``.
        metrics: A value that changed becomes a further history point, an equal one does not.
        tags: The latest value stays.
        timestamp_ms: Of the metrics, in milliseconds since 1970.
    """
    from mlflow.entities import Metric, Param, RunTag

    held = client.get_run(run_id).data
    new_tags = {key: without_secrets(value) for key, value in (tags or {}).items()}
    new_parameters: dict[str, str] = {}
    for key, value in (parameters or {}).items():
        safe = without_secrets(value)[:_PARAMETER_CHARACTERS]
        if key not in held.params:
            new_parameters[key] = safe
        elif held.params[key] != safe:
            logger.warning("MLflow run %s keeps %s = %s; this time it was %s", run_id, key, held.params[key], safe)
            new_tags[f"mergeline.latest.{key}"] = safe
    new_metrics = {key: value for key, value in (metrics or {}).items() if not _is_same(held.metrics.get(key), value)}
    for keys in _batches(list(new_parameters)):
        client.log_batch(run_id, params=[Param(key, new_parameters[key]) for key in keys])
    for keys in _batches(list(new_tags)):
        client.log_batch(run_id, tags=[RunTag(key, new_tags[key]) for key in keys])
    for keys in _batches(list(new_metrics)):
        points: list[Metric] = []
        for key in keys:
            # Of two points with one timestamp MLflow shows the greater, not the later.
            earlier = (
                [point.timestamp for point in client.get_metric_history(run_id, key)] if key in held.metrics else []
            )
            points.append(Metric(key, new_metrics[key], max([timestamp_ms, *(time + 1 for time in earlier)]), 0))
        client.log_batch(run_id, metrics=points)


def write_files(client: MlflowClient, run_id: str, texts: Mapping[str, str]) -> None:
    """Write relative path -> text as the run's files, over those of an earlier time."""
    with tempfile.TemporaryDirectory(prefix="mergeline-") as directory:
        for name, text in texts.items():
            path = Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(without_secrets(text), encoding="utf-8")
        client.log_artifacts(run_id, directory)


def finish(client: MlflowClient, run_id: str, timestamp_ms: int) -> None:
    """End the run as finished at the given time."""
    # A repetition days later must not turn a merge of minutes into one of days.
    client.set_terminated(run_id, "FINISHED", max(timestamp_ms, int(client.get_run(run_id).info.start_time)))


def _is_same(held: float | None, value: float) -> bool:
    return held is not None and (held == value or (math.isnan(held) and math.isnan(value)))


def _batches(keys: Sequence[str]) -> list[Sequence[str]]:
    return [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
