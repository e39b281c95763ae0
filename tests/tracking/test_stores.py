"""Stores of MLflow: a SQLite file that several processes open at once, a server, and addresses that are neither."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mergeline.errors import TrackingError, TrackingInputError
from mergeline.tracking.runs import open_run
from mergeline.tracking.store import TrackingSettings
from tests.builders.tracking_records import (
    EXPERIMENT,
    PLAN,
    RECIPE,
    artifact_texts,
    client_of,
    track,
)
from tests.servers.mlflow_server import MlflowServer

START = """
import sys
from mergeline.tracking import TrackingSettings, open_run
print(open_run(TrackingSettings(sys.argv[1], "mergeline/demo"), plan_digest="a1" * 32, name="walker").run_id)
"""


@pytest.mark.slow
def test_four_processes_may_start_on_a_database_that_does_not_exist_yet(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'state' / 'mlflow.db'}"
    work = tmp_path / "working directory"
    work.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, uri],
            cwd=work,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], outputs
    assert len({stdout for stdout, _ in outputs}) == 1
    assert "".join(stderr for _, stderr in outputs) == ""
    assert list(work.iterdir()) == []


def test_a_server_that_is_not_there_is_one_line_and_soon() -> None:
    started = time.monotonic()
    with pytest.raises(TrackingError, match="does not answer") as caught:
        open_run(TrackingSettings("http://ada:secret@127.0.0.1:9", EXPERIMENT), plan_digest=PLAN, name="walker")
    assert time.monotonic() - started < 30
    assert "MLflow server http://127.0.0.1:9 does not answer" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, though it is long enough to be looked at as one" * 20)
    started = time.monotonic()
    with pytest.raises(TrackingInputError, match=r"MLflow store sqlite:////.*/mlflow\.db: file is not a database"):
        open_run(TrackingSettings(f"sqlite:///{tmp_path / 'mlflow.db'}", EXPERIMENT), plan_digest=PLAN, name="w")
    assert time.monotonic() - started < 10


def test_another_kind_of_store_is_refused() -> None:
    with pytest.raises(TrackingInputError, match=r"'file:///runs': expected sqlite:///<file> or http\(s\)://<server>"):
        open_run(TrackingSettings("file:///runs", EXPERIMENT), plan_digest=PLAN, name="walker")


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_server_that_is_none_of_mlflows_is_wrong_and_not_away(status: int) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>Another service</html>")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as other:
        threading.Thread(target=other.serve_forever).start()
        try:
            settings = TrackingSettings(f"http://127.0.0.1:{other.server_port}", EXPERIMENT)
            with pytest.raises(TrackingInputError, match=rf"MLflow store http://127\.0\.0\.1:{other.server_port}: "):
                open_run(settings, plan_digest=PLAN, name="walker")
        finally:
            other.shutdown()


def test_a_deleted_experiment_is_named(settings: TrackingSettings) -> None:
    run = open_run(settings, plan_digest=PLAN, name="walker")
    client_of(settings).delete_experiment(run.experiment_id)
    with pytest.raises(TrackingInputError, match="'mergeline/demo' was deleted; restore it"):
        open_run(settings, plan_digest=PLAN, name="walker")


def test_an_experiment_made_through_a_server_is_refused_on_its_database(settings: TrackingSettings) -> None:
    client_of(settings).create_experiment(EXPERIMENT, "mlflow-artifacts:/1")
    with pytest.raises(TrackingInputError, match="keeps its files behind a server; give the server's http address"):
        open_run(settings, plan_digest=PLAN, name="walker")


def test_importing_the_tracking_does_not_import_mlflow() -> None:
    code = "import sys, mergeline.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_server_holds_the_same_record(
    mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ada.lovelace")
    server = mlflow_server.url
    settings = TrackingSettings(f"{server}/", EXPERIMENT)
    run = track(settings)
    assert track(settings) == run
    assert run.url == (f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}?workflowType=machine_learning")
    client = client_of(settings)
    assert client.get_run(run.run_id).data.metrics["spartqa_train/difference.compass"] == 0.25
    assert len(client.search_runs([run.experiment_id])) == 1 + 3
    for key in client.get_run(run.run_id).data.metrics:
        assert len(client.get_metric_history(run.run_id, key)) == 1
    texts = artifact_texts(settings, run, tmp_path / "download")
    assert texts["recipe.yaml"] == RECIPE
    assert len(texts) == 12
    stored = (mlflow_server.folder / "server.db").read_bytes()
    assert b"ada.lovelace" not in stored
