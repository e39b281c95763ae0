"""A merge that is recorded a second time: completed, brought up to date, and never doubled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mergeline.errors import TrackingInputError
from mergeline.tracking.runs import open_run, record_merge
from mergeline.tracking.store import TrackingSettings
from tests.builders.tracking_records import (
    PLAN,
    TIMESTAMP_MS,
    children,
    client_of,
    evaluation,
    merge_record,
    report,
    track,
)


def test_recording_again_adds_nothing_twice(settings: TrackingSettings, tmp_path: Path) -> None:
    first = track(settings)
    client = client_of(settings)
    before = client.get_run(first.run_id)
    again = track(settings)
    assert again == first
    after = client.get_run(first.run_id)
    assert after.data.to_dictionary() == before.data.to_dictionary()
    assert after.info.end_time == before.info.end_time
    assert len(client.search_runs([first.experiment_id])) == 1 + 3
    for run in client.search_runs([first.experiment_id]):
        for key in run.data.metrics:
            assert len(client.get_metric_history(run.info.run_id, key)) == 1, key


def test_an_interrupted_recording_is_completed_by_the_next(settings: TrackingSettings) -> None:
    run = open_run(settings, plan_digest=PLAN, name="walker")
    assert settings.artifacts is not None
    in_the_way = settings.artifacts / run.run_id
    in_the_way.write_text("a file where the run's folder should be")
    with pytest.raises(TrackingInputError, match="Not a directory"):
        record_merge(settings, merge_record())
    in_the_way.unlink()
    assert record_merge(settings, merge_record()) == run
    assert client_of(settings).get_run(run.run_id).data.metrics["merge/seconds"] == 12.5
    assert len(children(settings, run)) == 3


def test_a_parameter_that_changed_keeps_its_first_value_and_shows_the_latest(
    settings: TrackingSettings, caplog: pytest.LogCaptureFixture
) -> None:
    track(settings, parameters={"device": "cpu"})
    run = track(settings, parameters={"device": "cuda"})
    data = client_of(settings).get_run(run.run_id).data
    assert data.params["device"] == "cpu"
    assert data.tags["mergeline.latest.device"] == "cuda"
    assert "keeps device = cpu; this time it was cuda" in caplog.text


def test_a_score_that_changed_shows_its_latest_value(settings: TrackingSettings) -> None:
    track(settings)
    run = track(settings, reports=(replace(report(), merge=evaluation("mergeline-demo/walker", 0.25)),))
    client = client_of(settings)
    assert client.get_run(run.run_id).data.metrics["spartqa_train/acc"] == 0.25
    history = client.get_metric_history(run.run_id, "spartqa_train/acc")
    assert [(point.value, point.timestamp) for point in history] == [(0.75, TIMESTAMP_MS), (0.25, TIMESTAMP_MS + 1)]
