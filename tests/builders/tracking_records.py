"""Records of small merges, made up but complete, as a pipeline would have MLflow told of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mergeline.evaluation.results import Answer, Comparison, Evaluation, EvaluationReport, EvaluationSettings, Sample
from mergeline.merge.manifest import Manifest
from mergeline.publish.publication import Publication
from mergeline.sources.identity import SourceIdentity
from mergeline.tracking.record import MergeRecord
from mergeline.tracking.runs import TrackedRun, open_run, record_merge
from mergeline.tracking.store import TrackingSettings

EXPERIMENT = "mergeline/demo"
PLAN = "a1" * 32
TIMESTAMP_MS = 1_700_000_000_000
RECIPE = "merge_method: slerp\nparameters:\n  t: 0.5\n"

HUB = "http://127.0.0.1:7860"

PARENTS = ("mergeline-demo/compass", "mergeline-demo/clock")


def manifest(**changes: Any) -> Manifest:
    sources = tuple(
        SourceIdentity(label=repo, repo_id=repo, commit=commit * 20, license="mit", files=(), fingerprint="f")
        for repo, commit in zip(PARENTS, ("c0", "c1"), strict=True)
    )
    record = Manifest(
        plan_digest=PLAN,
        merge_method="slerp",
        recipe={"merge_method": "slerp", "dtype": "bfloat16"},
        sources=sources,
        shards=(),
        other_files=(),
        parameter_count=1000,
        notes=(),
        engine_version="0.1.0",
        numerics_version=1,
        versions={"torch": "2.13.0"},
        created_at="2026-11-23T12:00:00Z",
    )
    return replace(record, **changes)


def evaluation(label: str, accuracy: float) -> Evaluation:
    return Evaluation(
        label=label,
        model_digest=f"digest of {label}",
        settings=EvaluationSettings(task="spartqa_train", limit=4, dataset="/srv/private/questions.jsonl"),
        accuracy=accuracy,
        stderr=0.25,
        task_version="1.0",
        task_hash="b2" * 32,
        table=f"| Tasks | acc |\n|---|---|\n| spartqa_train | {accuracy} |",
        answers=tuple(Answer(str(n), "story", 0, n % 2, (-0.1, -2.0)) for n in range(4)),
        versions={"lm_eval": "0.4.13"},
        elapsed_seconds=2.0,
    )


def report() -> EvaluationReport:
    comparisons = tuple(
        Comparison("mergeline-demo/walker", parent, 0.25, -0.1, 0.6, 2, 1, 1.0, "no detectable difference")
        for parent in PARENTS
    )
    return EvaluationReport(
        merge=evaluation("mergeline-demo/walker", 0.75),
        references=tuple(evaluation(label, 0.5) for label in PARENTS),
        comparisons=comparisons,
        majority_accuracy=0.5,
        chance_accuracy=0.25,
        flags=("clock: below majority baseline",),
    )


def of_task(score: Evaluation, task: str) -> Evaluation:
    return replace(score, settings=replace(score.settings, task=task))


def merge_record(**changes: Any) -> MergeRecord:
    record = MergeRecord(
        name="walker t=0.5",
        manifest=manifest(),
        recipe_text=RECIPE,
        pipeline_text="merge: recipe.yaml\n",
        plan_json='{"shards": []}',
        parameters={"t": 0.5, "t.self_attn": "[0, 0.5, 1]"},
        metrics={"merge/bytes": 2000},
        measurements={"merge/seconds": 12.5},
        reports=(report(),),
        samples=(Sample("mergeline-demo/walker", "Who are you?", "A merge.", 8, 0),),
        tags={"prefect.flow_run_url": "http://127.0.0.1:4200/runs/1"},
        publication=Publication(
            "mergeline-demo/walker", "d" * 40, f"{HUB}/mergeline-demo/walker/tree/{'d' * 40}", False
        ),
        hub_url=HUB,
        timestamp_ms=TIMESTAMP_MS,
    )
    return replace(record, **changes)


def answering(label: str, right: int, questions: int = 100) -> Evaluation:
    """Return the evaluation of a model that answers the first ``right`` questions rightly, each a story of its own."""
    answers = tuple(Answer(str(n), f"story {n}", 0, int(n >= right), (-0.1, -2.0)) for n in range(questions))
    return replace(evaluation(label, right / questions), answers=answers)


def client_of(settings: TrackingSettings) -> Any:
    """Return MLflow's own client of a store."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=settings.uri)


def track(settings: TrackingSettings, **changes: Any) -> TrackedRun:
    """Open a run and record a merge in it, as a flow does."""
    record = merge_record(**changes)
    tags = {"prefect.flow_run_id": "flow-1"}
    run = open_run(settings, plan_digest=record.manifest.plan_digest, name=record.name, tags=tags)
    assert record_merge(settings, record) == run
    return run


def children(settings: TrackingSettings, run: TrackedRun) -> list[Any]:
    return list(client_of(settings).search_runs([run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.run_id}'"))


def artifact_texts(settings: TrackingSettings, run: TrackedRun, into: Path) -> dict[str, str]:
    into.mkdir()
    folder = Path(client_of(settings).download_artifacts(run.run_id, "", str(into)))
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
