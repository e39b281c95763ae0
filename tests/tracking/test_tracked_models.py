"""Models in MLflow: one LoggedModel each, versions that point to the Hub, a champion that was shown better."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from mergeline.evaluation.compare import comparison
from mergeline.publish.publication import Publication
from mergeline.sources.identity import SourceIdentity
from mergeline.tracking.runs import TrackedRun, record_merge
from mergeline.tracking.store import TrackingSettings
from tests.builders.tracking_records import HUB, PARENTS, answering, client_of, manifest, merge_record

FAMILY = "mergeline-demo"

compare_with_parents = partial(comparison.compare_with_parents, margin=0.02)


def merge(settings: TrackingSettings, number: int, right: int, **changes: Any) -> TrackedRun:
    """Record a published merge that answers so many of 100 questions rightly; its parents answer 40."""
    parents = [answering(label, 40) for label in PARENTS]
    plan_digest, commit = f"{number:064x}", f"{number:040x}"
    walker = replace(answering(f"walker-{number}", right), model_digest=f"digest {number}")
    record = merge_record(
        name=f"walker-{number}",
        manifest=manifest(plan_digest=plan_digest),
        reports=(compare_with_parents(walker, parents),),
        publication=Publication("ours/walker", commit, f"{HUB}/ours/walker/tree/{commit}", False),
    )
    return record_merge(settings, replace(record, **changes))


def champion(settings: TrackingSettings) -> str | None:
    version = client_of(settings).get_registered_model(FAMILY).aliases.get("champion")
    return None if version is None else str(version)


def models(settings: TrackingSettings, run: TrackedRun) -> dict[str, Any]:
    logged = client_of(settings).search_logged_models([run.experiment_id])
    assert len({model.name for model in logged}) == len(logged)
    return {model.name: model for model in logged}


def test_parents_are_logged_once_for_all_merges_of_a_family(settings: TrackingSettings) -> None:
    first, second = merge(settings, 1, 90), merge(settings, 2, 80)
    logged = models(settings, second)
    assert set(logged) == {"mergeline-demo-compass", "mergeline-demo-clock", "walker-1", "walker-2"}
    compass = logged["mergeline-demo-compass"]
    assert compass.tags["hf.repo"] == "mergeline-demo/compass"
    assert compass.tags["hf.commit"] == "c0" * 20
    assert compass.tags["hf.url"] == f"{HUB}/mergeline-demo/compass/tree/{'c0' * 20}"
    assert logged["walker-1"].source_run_id == first.run_id
    assert logged["walker-1"].params["t"] == "0.5"
    client = client_of(settings)
    for run, name in ((first, "walker-1"), (second, "walker-2")):
        linked = client.get_run(run.run_id)
        parents = {logged[f"mergeline-demo-{parent}"].model_id for parent in ("compass", "clock")}
        assert {model.model_id for model in linked.inputs.model_inputs} == parents
        assert [model.model_id for model in linked.outputs.model_outputs] == [logged[name].model_id]


def test_scores_hang_on_model_and_questions(settings: TrackingSettings) -> None:
    run = merge(settings, 1, 90)
    client = client_of(settings)
    ranked = client.search_logged_models(
        [run.experiment_id],
        order_by=[
            {
                "field_name": "metrics.spartqa_train/acc",
                "dataset_name": "questions.jsonl",
                "dataset_digest": ("b2" * 32)[:36],
                "ascending": False,
            }
        ],
    )
    assert ranked[0].name == "walker-1"
    scores = {
        model.name: [metric.value for metric in model.metrics if metric.key == "spartqa_train/acc"] for model in ranked
    }
    assert scores == {"walker-1": [0.9], "mergeline-demo-compass": [0.4], "mergeline-demo-clock": [0.4]}
    children = client.search_runs([run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.run_id}'")
    assert len(children) == 3
    for merge_or_child in [*children, client.get_run(run.run_id)]:
        (asked,) = merge_or_child.inputs.dataset_inputs
        assert (asked.dataset.name, asked.dataset.digest) == ("questions.jsonl", ("b2" * 32)[:36])
        assert [(tag.key, tag.value) for tag in asked.tags] == [("mlflow.data.context", "evaluation")]


def test_a_version_names_the_commit_and_a_repetition_adds_none(settings: TrackingSettings) -> None:
    run = merge(settings, 1, 90)
    assert merge(settings, 1, 90) == run
    (version,) = client_of(settings).search_model_versions(f"name = '{FAMILY}'")
    assert version.source == f"hf://ours/walker@{1:040x}"
    assert version.run_id == run.run_id
    assert version.tags["hf.url"] == f"{HUB}/ours/walker/tree/{1:040x}"
    assert len(models(settings, run)) == 3
    linked = client_of(settings).get_run(run.run_id)
    assert (len(linked.inputs.model_inputs), len(linked.outputs.model_outputs)) == (2, 1)


def test_a_merge_that_its_gate_kept_back_is_not_registered(settings: TrackingSettings) -> None:
    run = merge(settings, 1, 90, publication=None)
    assert list(client_of(settings).search_registered_models()) == []
    assert "hf.repo" not in models(settings, run)["walker-1"].tags


def test_the_title_goes_only_to_a_merge_shown_better(settings: TrackingSettings) -> None:
    steps = [
        (42, None),  # published, and not shown better than its parents
        (70, "2"),
        (72, "2"),  # better than its parents, and not shown better than the champion
        (95, "4"),
        (80, "4"),
    ]
    for number, (right, expected) in enumerate(steps, start=1):
        merge(settings, number, right)
        assert champion(settings) == expected
    # A record that is sent again late does not take the title back.
    merge(settings, 2, 70)
    assert champion(settings) == "4"


def test_a_champion_on_other_questions_keeps_its_title(settings: TrackingSettings) -> None:
    merge(settings, 1, 70)
    other = [
        replace(answering(label, right), task_hash="e6" * 32) for label, right in zip(PARENTS, (40, 40), strict=True)
    ]
    walker = replace(answering("walker-2", 100), task_hash="e6" * 32)
    merge(settings, 2, 100, reports=(compare_with_parents(walker, other),))
    assert champion(settings) == "1"


def test_a_base_beside_the_parents_is_known_by_its_commit(settings: TrackingSettings) -> None:
    base = SourceIdentity("mergeline-demo/base", "mergeline-demo/base", "ba" * 20, None, (), "f")
    report = compare_with_parents(
        answering("walker-1", 90), [answering(label, 40) for label in PARENTS], answering("mergeline-demo/base", 20)
    )
    run = merge(settings, 1, 90, base=base, reports=(report,))
    assert models(settings, run)["mergeline-demo-base"].tags["hf.commit"] == "ba" * 20
