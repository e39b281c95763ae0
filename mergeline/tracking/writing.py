"""Write a run's parameters, metrics, tags, files and links; what is there already is not written again."""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mergeline.evaluation.results import Evaluation
from mergeline.support.secrets import without_secrets
from mergeline.tracking.summary import portable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Metric

logger = logging.getLogger(__name__)

_BATCH = 100
"""Parameters or tags that MLflow accepts at once."""
_PARAMETER_CHARACTERS = 6000
"""MLflow cuts a longer parameter."""
_DATASET_DIGEST_CHARACTERS = 36
"""MLflow takes no longer digest of a dataset."""


def log(
    client: MlflowClient,
    run_id: str,
    *,
    parameters: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    measurements: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    timestamp_ms: int = 0,
) -> None:
    """Write what is missing in the run, or differs.

    Args:
        client: Of the store the run is in.
        run_id: The run.
        parameters: The first value stays; a different one is written as tag ``mergeline.latest.<parameter>``.
        metrics: A different value is added to the metric's history.
        measurements: Metrics of which the first value stays: a rerun finds most of the work done, and takes less time.
        tags: The latest value stays.
        timestamp_ms: Of the metrics, in milliseconds since 1970.
    """
    from mlflow.entities import Param, RunTag

    present = client.get_run(run_id).data
    new_tags = {key: without_secrets(value) for key, value in (tags or {}).items()}
    new_parameters: dict[str, str] = {}
    for key, value in (parameters or {}).items():
        safe = without_secrets(value)[:_PARAMETER_CHARACTERS]
        if key not in present.params:
            new_parameters[key] = safe
        elif present.params[key] != safe:
            logger.warning("MLflow run %s keeps %s = %s; this time it was %s", run_id, key, present.params[key], safe)
            new_tags[f"mergeline.latest.{key}"] = safe
    for keys in _batches(list(new_parameters)):
        client.log_batch(run_id, params=[Param(key, new_parameters[key]) for key in keys])
    for keys in _batches(list(new_tags)):
        client.log_batch(run_id, tags=[RunTag(key, new_tags[key]) for key in keys])
    first = {key: value for key, value in (measurements or {}).items() if key not in present.metrics}
    for metrics_batch in _points(client, run_id, present.metrics, {**(metrics or {}), **first}, timestamp_ms):
        client.log_batch(run_id, metrics=metrics_batch)


def log_scores(
    client: MlflowClient,
    run_id: str,
    model_id: str,
    evaluation: Evaluation,
    metrics: Mapping[str, float],
    timestamp_ms: int,
) -> None:
    """Write a model's scores to a run, linked to its LoggedModel and to the questions it answered.

    Args:
        client: Of the store the run is in.
        run_id: The model's run.
        model_id: Its LoggedModel.
        evaluation: Identifies the questions.
        metrics: As for :func:`log`.
        timestamp_ms: Of the metrics, in milliseconds since 1970.
    """
    from mlflow.entities import Metric

    questions, present = log_questions(client, run_id, evaluation), client.get_run(run_id).data.metrics
    for points in _points(client, run_id, present, metrics, timestamp_ms):
        linked = [
            Metric(point.key, point.value, point.timestamp, 0, model_id, questions.name, questions.digest)
            for point in points
        ]
        client.log_batch(run_id, metrics=linked)


def log_questions(client: MlflowClient, run_id: str, evaluation: Evaluation) -> Dataset:
    """Name an evaluation's questions as a dataset of the run, unless it is there, and return the dataset."""
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    inputs, questions = client.get_run(run_id).inputs, _dataset(evaluation)
    present = {(used.dataset.name, used.dataset.digest) for used in (inputs.dataset_inputs if inputs else ())}
    if (questions.name, questions.digest) not in present:
        new = [DatasetInput(questions, [InputTag("mlflow.data.context", "evaluation")])]
        try:
            client.log_inputs(run_id, datasets=new)
        except MlflowException:
            # Of two processes that log a new dataset at once, MLflow's database refuses one; the second try succeeds.
            client.log_inputs(run_id, datasets=new)
    return questions


def link_models(client: MlflowClient, run_id: str, inputs: Sequence[str], output: str | None) -> None:
    """Link a run with the LoggedModels it used and the one it made, where the link is missing."""
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    run = client.get_run(run_id)
    used = {model.model_id for model in (run.inputs.model_inputs if run.inputs else ())}
    made = {model.model_id for model in (run.outputs.model_outputs if run.outputs else ())}
    if new := [LoggedModelInput(model_id) for model_id in dict.fromkeys(inputs) if model_id not in used]:
        client.log_inputs(run_id, models=new)
    if output is not None and output not in made:
        client.log_outputs(run_id, [LoggedModelOutput(output, 0)])


def write_files(client: MlflowClient, run_id: str, texts: Mapping[str, str]) -> None:
    """Write relative path -> text as the run's files, in place of older ones."""
    with tempfile.TemporaryDirectory(prefix="mergeline-") as directory:
        for name, text in texts.items():
            path = Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(without_secrets(text), encoding="utf-8")
            # One by one: the time limit on a slow server is checked before each file.
            folder = str(Path(name).parent)
            client.log_artifact(run_id, str(path), None if folder == "." else folder)


def finish(client: MlflowClient, run_id: str, timestamp_ms: int) -> None:
    """End the run as finished at the given time."""
    # Not the present time: a record sent days later would make a merge of minutes look like one of days.
    client.set_terminated(run_id, "FINISHED", max(timestamp_ms, int(client.get_run(run_id).info.start_time)))


def _points(
    client: MlflowClient, run_id: str, present: Mapping[str, float], metrics: Mapping[str, float], timestamp_ms: int
) -> Generator[list[Metric], None, None]:
    """Yield batches of history points for the metrics that are missing in the run, or differ."""
    from mlflow.entities import Metric

    new = {key: value for key, value in metrics.items() if not _is_same(present.get(key), value)}
    for keys in _batches(list(new)):
        points: list[Metric] = []
        for key in keys:
            # Of two points with equal timestamps MLflow shows the greater value, not the later one.
            earlier = [point.timestamp for point in client.get_metric_history(run_id, key)] if key in present else []
            points.append(Metric(key, new[key], max([timestamp_ms, *(time + 1 for time in earlier)]), 0))
        yield points


def _dataset(evaluation: Evaluation) -> Dataset:
    """Describe an evaluation's questions as an MLflow dataset: name, digest, source."""
    from mlflow.entities import Dataset

    name = evaluation.settings.dataset or evaluation.settings.task
    # Without a file's digest, that of all prompts, choices and answers.
    content = evaluation.questions_digest or evaluation.task_hash
    return Dataset(
        name=portable(name),
        digest=content[:_DATASET_DIGEST_CHARACTERS],
        source_type="mergeline",
        source=json.dumps({"name": portable(name), "split": evaluation.split, "digest": content}),
        profile=json.dumps({"questions": evaluation.n_questions}),
    )


def _is_same(present: float | None, value: float) -> bool:
    return present is not None and (present == value or (math.isnan(present) and math.isnan(value)))


def _batches(keys: Sequence[str]) -> list[Sequence[str]]:
    return [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
