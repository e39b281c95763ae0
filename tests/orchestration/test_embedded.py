"""A flow in this process: Prefect's settings are in force wherever it starts, and its server loses nothing."""

from __future__ import annotations

import http.server
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flows import embedded, task_run_history
from flows.embedded import EMBEDDED_SETTINGS

ROOT = Path(__file__).parents[2]

PREPARE = """
import os, sys
from pathlib import Path
from flows.embedded import prepare_environment
prepare_environment(Path(sys.argv[1]))
assert "prefect" not in sys.modules
print({name: value for name, value in os.environ.items() if name.startswith(("PREFECT_", "DO_NOT"))})
"""

FLOWS = """
import sys, time
from pathlib import Path
from flows.embedded import prepare_environment, run_flow
prepare_environment(Path(sys.argv[1]))

from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

@task
def work(number):
    if number == 7:
        raise LookupError("seven is missing")
    time.sleep(60 if number == 60 else 0)
    return number

@flow
def inner(numbers):
    return sum(future.result() for future in work.map(numbers))

@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def outer(numbers):
    if numbers[0] == 60:
        print("waiting", flush=True)
    return sum(future.result() for future in work.map(numbers[:-10])) + inner(numbers[-10:])

try:
    print("result", run_flow(outer, {"numbers": eval(sys.argv[2])}))
except LookupError as error:
    print("raised", type(error).__name__, error)
"""


def environment(home: Path, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DO_NOT_TRACK"))}
    return kept | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | variables


def python(code: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code as a program of its own, outside the project's directory, with a home directory of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=environment(cwd / "home", **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def prepared(tmp_path: Path, **variables: str) -> dict[str, str]:
    result = python(PREPARE, str(tmp_path / "state"), cwd=tmp_path, **variables)
    assert result.returncode == 0, result.stderr
    return dict(eval(result.stdout))


def flattened(table: Mapping[str, Any], prefix: str) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in table.items():
        name = f"{prefix}_{key.upper()}"
        flat |= flattened(value, name) if isinstance(value, dict) else {name: str(value).lower()}
    return flat


def test_the_project_file_says_the_same_as_the_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    written = flattened(project["tool"]["prefect"], "PREFECT")
    of_the_server = {
        name: value
        for name, value in EMBEDDED_SETTINGS.items()
        if name.startswith("PREFECT_SERVER_") and name != "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"
    }
    assert written == of_the_server


def test_the_settings_are_known_to_prefect() -> None:
    from prefect.settings import get_current_settings

    known = get_current_settings().to_environment_variables(include_aliases=True)
    assert {name for name in EMBEDDED_SETTINGS if name.startswith("PREFECT_")} <= set(known)


def test_the_environment_is_set_for_a_program_that_starts_anywhere(tmp_path: Path) -> None:
    assert prepared(tmp_path) == EMBEDDED_SETTINGS | {"PREFECT_HOME": str(tmp_path / "state" / "prefect")}
    assert (tmp_path / "state" / "prefect").is_dir()


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    settings = prepared(tmp_path, PREFECT_HOME=str(tmp_path / "own"), PREFECT_LOGGING_LEVEL="DEBUG")
    assert settings["PREFECT_HOME"] == str(tmp_path / "own")
    assert settings["PREFECT_LOGGING_LEVEL"] == "DEBUG"
    assert settings["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


@pytest.mark.parametrize("before", ["", "hub.example", "127.0.0.1,localhost"])
def test_a_proxy_is_not_asked_for_the_embedded_server(tmp_path: Path, before: str) -> None:
    code = f"{PREPARE}\nprint(os.environ['no_proxy'], os.environ['NO_PROXY'])"
    result = python(code, "state", cwd=tmp_path, NO_PROXY=before, no_proxy="")
    exceptions = "hub.example,127.0.0.1,localhost" if before == "hub.example" else "127.0.0.1,localhost"
    assert result.stdout.splitlines()[-1] == f"{exceptions} {exceptions}"


@pytest.fixture
def healthy_url() -> Iterator[str]:
    """The address of something that answers as a Prefect server does."""

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


def test_a_healthy_server_of_the_user_is_used(tmp_path: Path, healthy_url: str) -> None:
    assert prepared(tmp_path, PREFECT_API_URL=healthy_url)["PREFECT_API_URL"] == healthy_url


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/api", "nonsense", ""])
def test_a_server_that_does_not_answer_is_not_used(tmp_path: Path, url: str) -> None:
    assert "PREFECT_API_URL" not in prepared(tmp_path, PREFECT_API_URL=url)


def test_leaving_the_users_server_is_said(tmp_path: Path) -> None:
    result = python(PREPARE, "state", cwd=tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert result.stderr == "PREFECT_API_URL http://127.0.0.1:9/api does not answer; using Prefect's embedded server.\n"


def test_prefect_must_not_have_been_imported_with_other_settings(tmp_path: Path) -> None:
    code = f"import prefect.settings as s; s.get_current_settings()\n{PREPARE}"
    result = python(code, "state", cwd=tmp_path)
    assert "RunError: Prefect has been imported with PREFECT_HOME=" in result.stderr
    assert "call prepare_environment before `import prefect`." in result.stderr


def test_a_fastapi_that_breaks_prefect_is_named(tmp_path: Path) -> None:
    installed = tmp_path / "packages" / "fastapi-0.165.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: fastapi\nVersion: 0.165.0\n")
    result = python(PREPARE, "state", cwd=tmp_path, PYTHONPATH=f"{installed.parent}{os.pathsep}{ROOT}")
    assert "InputError: FastAPI 0.165.0 is installed, with which Prefect" in result.stderr
    assert "pip install 'fastapi<0.151'." in result.stderr


@pytest.fixture(scope="module")
def migrated_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory in which one flow of 110 quick task runs, ten of them in a subflow, has been run."""
    cwd = tmp_path_factory.mktemp("embedded")
    result = python(FLOWS, str(cwd / "state"), "list(range(100, 210))", cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"result {sum(range(100, 210))}\n"
    assert result.stderr.startswith("Starting Prefect's embedded server (")
    return cwd / "state"


def states(state_directory: Path, table: str) -> dict[str, int]:
    with sqlite3.connect(state_directory / "prefect" / "prefect.db") as database:
        rows = database.execute(f"SELECT state_name, count(*) FROM {table} GROUP BY state_name").fetchall()
    database.close()
    return dict(rows)


@pytest.mark.slow
def test_every_task_run_is_recorded_before_the_process_ends(migrated_state: Path) -> None:
    # The subflow has a task run of its own in the flow above it.
    assert states(migrated_state, "task_run") == {"Completed": 110 + 1}
    assert states(migrated_state, "flow_run") == {"Completed": 2}


@pytest.mark.slow
def test_nothing_is_written_outside_the_state_directory(migrated_state: Path) -> None:
    assert [path.name for path in migrated_state.parent.iterdir()] == ["state"]
    assert [path.name for path in migrated_state.iterdir()] == ["prefect"]


@pytest.mark.slow
def test_a_failed_flow_is_recorded_and_raises_what_it_raised(migrated_state: Path) -> None:
    before = states(migrated_state, "task_run"), states(migrated_state, "flow_run")
    result = python(FLOWS, str(migrated_state), "list(range(30))", cwd=migrated_state.parent)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "raised LookupError seven is missing\n"
    assert "Traceback" not in result.stderr
    after = states(migrated_state, "task_run"), states(migrated_state, "flow_run")
    assert after[0]["Failed"] == 1
    assert after[0]["Completed"] == before[0]["Completed"] + 19
    assert after[1] == {"Completed": before[1]["Completed"], "Failed": 1}


ASK = """
import sys
from http.client import HTTPConnection
from pathlib import Path
from flows.embedded import prepare_environment, run_flow
prepare_environment(Path(sys.argv[1]))

from prefect import flow
from prefect.server.api.server import SubprocessASGIServer

def answer(headers):
    server = HTTPConnection("127.0.0.1", SubprocessASGIServer().port, timeout=30)
    server.request("GET", "/api/flows/name/ask", headers=headers)
    return server.getresponse().status

@flow
def ask(requests):
    return [answer(headers) for headers in requests]

print(run_flow(ask, {"requests": eval(sys.argv[2])}))
"""


@pytest.mark.slow
def test_the_server_answers_programs_and_no_page(migrated_state: Path) -> None:
    socket = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    asked: list[dict[str, str]] = [
        {},
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        socket | {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Origin": "http://evil.example"},
    ]
    result = python(ASK, str(migrated_state), repr(asked), cwd=migrated_state.parent)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[200, 403, 403, 403, 403]\n"


def server_of(process_id: int) -> int:
    """Return the process of the embedded server that a program has started."""
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    return next(int(child) for child in children if "uvicorn" in Path(f"/proc/{child}/cmdline").read_text())


def wait_until(condition: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the server through /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_a_process_that_is_killed(migrated_state: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FLOWS.replace("else 0)", "else 2)"), str(migrated_state), "[60] * 20"],
        cwd=migrated_state.parent,
        env=environment(migrated_state.parent / "home"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "waiting\n"
        server = server_of(process.pid)
        process.send_signal(number)
        try:
            wait_until(lambda: not Path(f"/proc/{server}").exists(), 90, "the server runs on")
        except AssertionError:
            process.kill()
            raise
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGTERM)
    if number == signal.SIGTERM:
        assert states(migrated_state, "flow_run")["Crashed"] == 1


def test_termination_in_the_midst_of_an_import_waits_until_its_lock_is_free() -> None:
    came_through: list[bool] = []
    importing = "os.kill(os.getpid(), signal.SIGTERM)\nfor _ in range(1000):\n    pass\ncame_through.append(True)"
    code = compile(importing, "<frozen importlib._bootstrap>", "exec")

    def import_and_work() -> None:
        with embedded._termination_as_exit():
            exec(code, {"os": os, "signal": signal, "came_through": came_through})
            time.sleep(30)

    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        import_and_work()
    assert came_through


@pytest.mark.slow
def test_task_runs_that_the_server_never_records_are_counted(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(task_run_history, "DRAIN_SECONDS", 0.0)
    never_made = ("00000000-0000-4000-8000-000000000000", "work", "work-0")
    with caplog.at_level(logging.WARNING, logger="flows.task_run_history"):
        task_run_history._wait_until_recorded({never_made: True})
    assert "has not recorded 1 of 1 task runs after 0 s" in caplog.text
