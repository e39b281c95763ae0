"""The provenance of a merge on disk, and its remarks; ``main_flow`` follows the whole chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from mergeline.cli.command_line import main
from mergeline.merge.manifest import Manifest
from mergeline.tracking.runs import record_merge
from mergeline.tracking.store import TrackingSettings
from tests.builders.tracking_records import PLAN, manifest, merge_record

RUN = "0123456789abcdef" * 2


@pytest.fixture
def merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A merge of no sources whose manifest names a run on a server elsewhere."""
    monkeypatch.setenv("MERGELINE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    links = {"mlflow_run_id": RUN, "mlflow_run_url": f"http://mlflow.example/#/experiments/1/runs/{RUN}"}
    content = TypeAdapter(Manifest).dump_json(manifest(sources=(), links=links))
    directory = tmp_path / "state" / "merges" / "walker"
    directory.mkdir(parents=True)
    (directory / "mergeline_manifest.json").write_bytes(content)
    return directory


def lineage(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["lineage", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_server_elsewhere_is_shown_and_not_asked(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provenance = lineage(capsys, str(merged))
    assert provenance["plan_digest"] == PLAN
    assert provenance["links"]["mlflow_run_id"] == RUN
    assert provenance["mlflow_run"] is None
    (remark,) = provenance["remarks"]
    # The server does not exist: had it been asked, there would be another remark.
    assert remark.endswith("has no run of this plan; to look into http://mlflow.example, name it with --tracking-uri.")
    assert main(["lineage", str(merged)]) == 0
    assert f"MLflow run    {RUN} (the model says so; not looked up)" in capsys.readouterr().out
    # Nothing creates the database.
    assert not (merged.parents[1] / "mlflow").exists()


def test_the_users_own_store_is_asked(
    merged: Path, settings: TrackingSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record_merge(settings, merge_record())
    provenance = lineage(capsys, str(merged), "--tracking-uri", settings.uri)
    assert provenance["mlflow_run"]["run_id"] == run.run_id
    assert (provenance["repo_id"], provenance["commit"]) == ("mergeline-demo/walker", "d" * 40)
    assert provenance["remarks"] == []
    users = lineage(capsys, "c0" * 20, "--used-by", "--tracking-uri", settings.uri)
    assert [user["mlflow_run"]["run_id"] for user in users] == [run.run_id]
    assert lineage(capsys, "cc" * 20, "--used-by", "--tracking-uri", settings.uri) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("{empty}",), "has no mergeline_manifest.json; only a merge made by Mergeline can be followed back."),
        ((RUN,), f"{RUN}: MLflow store sqlite:///{{state}}/mlflow/mlflow.db does not exist; name another."),
        (("{merged}", "--tracking-uri", "mysql://ada:secret@host/db"), "MLflow store 'mysql://host/db': expected"),
    ],
)
def test_what_cannot_be_followed_is_bad_input(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "merged": merged, "state": tmp_path / "state"}
    assert main(["lineage", *(argument.format(**places) for argument in arguments)]) == 2
    assert sentence.format(**places) in capsys.readouterr().err
