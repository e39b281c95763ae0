"""What a run holds: parameters, metrics, tags, files and links, each written once however often it is recorded."""

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
    """Write what the run does not hold yet, or holds otherwise.

    Args:
        client: Of the store the run is in.
        run_id: The run.
        parameters: The first value stays; another is shown as tag ``mergeline.latest.<parameter>``.
        metrics: A value that changed becomes a further history point, an equal one does not.
        measurements: Metrics of which the first value stays: what a rerun takes says nothing of the work.
        tags: The latest value stays.
        timestamp_ms: Of the metrics, in milliseconds since 1970.
    """
    from mlflow.entities import Param, RunTag

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
    for keys in _batches(list(new_parameters)):
        client.log_batch(run_id, params=[Param(key, new_parameters[key]) for key in keys])
    for keys in _batches(list(new_tags)):
        client.log_batch(run_id, tags=[RunTag(key, new_tags[key]) for key in keys])
    first = {key: value for key, value in (measurements or {}).items() if key not in held.metrics}
    for metrics_batch in _points(client, run_id, held.metrics, {**(metrics or {}), **first}, timestamp_ms):
        client.log_batch(run_id, metrics=metrics_batch)


def log_scores(
    client: MlflowClient,
    run_id: str,
    model_id: str,
    evaluation: Evaluation,
    metrics: Mapping[str, float],
    timestamp_ms: int,
) -> None:
    """Write a model's scores to a run, tied to the LoggedModel and to the questions it was asked.

    Args:
        client: Of the store the run is in.
        run_id: The run of this model.
        model_id: Its LoggedModel.
        evaluation: Says which questions.
        metrics: As for :func:`log`.
        timestamp_ms: Of the metrics, in milliseconds since 1970.
    """
    from mlflow.entities import Metric

    questions, held = log_questions(client, run_id, evaluation), client.get_run(run_id).data.metrics
    for points in _points(client, run_id, held, metrics, timestamp_ms):
        tied = [
            Metric(point.key, point.value, point.timestamp, 0, model_id, questions.name, questions.digest)
            for point in points
        ]
        client.log_batch(run_id, metrics=tied)


def log_questions(client: MlflowClient, run_id: str, evaluation: Evaluation) -> Dataset:
    """Say which questions a run was about, once, and return them as MLflow knows them."""
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    inputs, questions = client.get_run(run_id).inputs, _dataset(evaluation)
    asked = {(each.dataset.name, each.dataset.digest) for each in (inputs.dataset_inputs if inputs else ())}
    if (questions.name, questions.digest) not in asked:
        asking = [DatasetInput(questions, [InputTag("mlflow.data.context", "evaluation")])]
        try:
            client.log_inputs(run_id, datasets=asking)
        except MlflowException:
            # Of two processes that tell of new questions at once MLflow's database refuses one; now it knows them.
            client.log_inputs(run_id, datasets=asking)
    return questions


def link_models(client: MlflowClient, run_id: str, inputs: Sequence[str], output: str | None) -> None:
    """Say which LoggedModels went into a run and which came out, once each."""
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    run = client.get_run(run_id)
    held = {model.model_id for model in (run.inputs.model_inputs if run.inputs else ())}
    made = {model.model_id for model in (run.outputs.model_outputs if run.outputs else ())}
    if new := [LoggedModelInput(model_id) for model_id in dict.fromkeys(inputs) if model_id not in held]:
        client.log_inputs(run_id, models=new)
    if output is not None and output not in made:
        client.log_outputs(run_id, [LoggedModelOutput(output, 0)])


def write_files(client: MlflowClient, run_id: str, texts: Mapping[str, str]) -> None:
    """Write relative path -> text as the run's files, over those of an earlier time."""
    with tempfile.TemporaryDirectory(prefix="mergeline-") as directory:
        for name, text in texts.items():
            path = Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(without_secrets(text), encoding="utf-8")
            # One by one, so that a slow server can be given up in between.
            folder = str(Path(name).parent)
            client.log_artifact(run_id, str(path), None if folder == "." else folder)


def finish(client: MlflowClient, run_id: str, timestamp_ms: int) -> None:
    """End the run as finished at the given time."""
    # A repetition days later must not turn a merge of minutes into one of days.
    client.set_terminated(run_id, "FINISHED", max(timestamp_ms, int(client.get_run(run_id).info.start_time)))


def _points(
    client: MlflowClient, run_id: str, held: Mapping[str, float], metrics: Mapping[str, float], timestamp_ms: int
) -> Generator[list[Metric], None, None]:
    """Yield batches of history points for the metrics that the run does not hold yet, or holds otherwise."""
    from mlflow.entities import Metric

    new = {key: value for key, value in metrics.items() if not _is_same(held.get(key), value)}
    for keys in _batches(list(new)):
        points: list[Metric] = []
        for key in keys:
            # Of two points with one timestamp MLflow shows the greater, not the later.
            earlier = [point.timestamp for point in client.get_metric_history(run_id, key)] if key in held else []
            points.append(Metric(key, new[key], max([timestamp_ms, *(time + 1 for time in earlier)]), 0))
        yield points


def _dataset(evaluation: Evaluation) -> Dataset:
    """Describe the questions of an evaluation: their digest, and where they come from."""
    from mlflow.entities import Dataset

    name = evaluation.settings.dataset or evaluation.settings.task
    # Equal prompts, choices and answers, where nothing says which file they were in.
    content = evaluation.questions_digest or evaluation.task_hash
    return Dataset(
        name=portable(name),
        digest=content[:_DATASET_DIGEST_CHARACTERS],
        source_type="mergeline",
        source=json.dumps({"name": portable(name), "split": evaluation.split, "digest": content}),
        profile=json.dumps({"questions": evaluation.n_questions}),
    )


def _is_same(held: float | None, value: float) -> bool:
    return held is not None and (held == value or (math.isnan(held) and math.isnan(value)))


def _batches(keys: Sequence[str]) -> list[Sequence[str]]:
    return [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
