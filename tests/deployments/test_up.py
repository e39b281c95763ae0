"""``mergeline up``: the programs it starts, the deployments there, and an end that leaves no process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
import yaml
from huggingface_hub import HfApi

from benchmarks.checkpoints import ModelShape, write_checkpoint
from deployments.local.demo import TOKEN
from deployments.programs import free_port
from deployments.register import DEPLOYMENTS, deployment_names
from deployments.stack import workers
from flows.form import EXAMPLE_RECIPE
from tests.servers.stack import QUICK, ROOT, Stack, running_stack, start, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECRET = "a secret of this test's"
SOURCE = "mergeline-demo/clock"

SLOW_RECIPE = """\
merge_method: dare_ties
base_model: {0}
models:
  - model: {1}
    parameters: {{density: 0.5, weight: 0.5}}
  - model: {2}
    parameters: {{density: 0.5, weight: 0.5}}
dtype: bfloat16
"""


class Listener(ThreadingHTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def notified() -> Iterator[Listener]:
    """Where the stack sends its notifications."""
    with Listener() as listener:
        yield listener
        listener.shutdown()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, notified: Listener) -> Iterator[Stack]:
    """``mergeline up`` with all options, watching a pipeline."""
    folder = tmp_path_factory.mktemp("up")
    (folder / "configs" / "pipelines").mkdir(parents=True)
    pipeline = {"name": "watched", "recipe": EXAMPLE_RECIPE, **yaml.safe_load(QUICK)}
    pipeline["evaluate"] |= {"tasks": []}
    (folder / "configs" / "pipelines" / "demo.yaml").write_text(yaml.safe_dump(pipeline))
    variables = {
        "MERGELINE_WEBHOOK_SECRET": SECRET,
        "MERGELINE_NOTIFY_URL": f"http://127.0.0.1:{notified.server_port}/",
    }
    with running_stack(folder, "--with-hub", "--with-webhook", **variables) as stack:
        yield stack


def test_every_address_printed_answers_on_this_machine_alone(stack: Stack) -> None:
    assert list(stack.pages) == ["hub", "prefect", "mlflow", "webhook"]
    for address in stack.pages.values():
        assert re.match(r"http://127\.0\.0\.1:\d+", address)
        with urlopen(address.partition("#")[0], timeout=30) as answer:
            assert answer.status == 200
    # The pages call the API at the server's own port.
    with urlopen(f"{stack.pages['prefect']}/ui-settings", timeout=30) as answer:
        assert f'"api_url":"{stack.pages["prefect"]}/api"' in answer.read().decode()
    listening = {
        connection.laddr.ip
        for process in [psutil.Process(stack.process.pid), *psutil.Process(stack.process.pid).children(recursive=True)]
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def status(address: str, body: bytes | None = None, **headers: str) -> int:
    request = Request(address, body, {"Content-Type": "application/json"} | headers)
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    ("program", "path", "body"),
    [
        ("prefect", "api/flows/filter", b"{}"),
        ("mlflow", "api/2.0/mlflow/experiments/search", b'{"max_results": 1}'),
        ("hub", "api/validate-yaml", b'{"content": ""}'),
    ],
)
def test_every_server_refuses_other_sites_pages(stack: Stack, program: str, path: str, body: bytes) -> None:
    address = f"{re.findall('http://[^/]+', stack.pages[program])[0]}/{path}"
    assert status(address, body) == 200
    # By default MLflow would accept the second.
    for host in ("evil.example", "10.evil.example", "192.168.evil.example:80"):
        assert status(address, body, Host=host) == 403, host
    for origin in ("http://evil.example", "null"):
        assert status(address, body, Origin=origin) == 403, origin


def test_deployments_are_those_of_the_file(stack: Stack) -> None:
    described = {
        deployment["name"]: deployment for deployment in yaml.safe_load(DEPLOYMENTS.read_text())["deployments"]
    }
    for name in deployment_names():
        there, asked = stack.deployment(name), described[name]
        assert there["entrypoint"] == asked["entrypoint"]
        assert there["tags"] == ["mergeline"]
        assert there["description"]
        assert (there["work_pool_name"], there["work_queue_name"]) == tuple(asked["work_pool"].values())
        if limit := asked.get("concurrency_limit"):
            assert there["global_concurrency_limit"]["limit"] == limit["limit"]
            assert there["concurrency_options"]["collision_strategy"] == limit["collision_strategy"]
        else:
            assert there["global_concurrency_limit"] is None
        assert [schedule["active"] for schedule in there["schedules"]] == [False] * len(asked["schedules"])
        properties = there["parameter_openapi_schema"]["properties"]
        assert all(field["description"] for field in properties.values())


def test_deploying_again_keeps_what_people_have_set(stack: Stack, notified: Listener) -> None:
    deployment = stack.deployment("watch-sources")
    (given,) = deployment["schedules"]
    path = f"deployments/{deployment['id']}/schedules"
    yearly = {"cron": "0 0 1 1 *", "timezone": "UTC"}
    (added,) = stack.ask(path, [{"schedule": yearly, "active": True, "parameters": {"pipelines": ["mine.yaml"]}}])
    stack.ask(f"{path}/{given['id']}", {"active": True}, "PATCH")
    # As if the definitions had changed.
    stack.ask("variables/name/mergeline_deployments", {"value": "another digest"}, "PATCH")
    environment = {
        "PREFECT_API_URL": f"{stack.pages['prefect']}/api",
        "PREFECT_HOME": str(stack.folder / "prefect"),
        "MERGELINE_NOTIFY_URL": f"http://127.0.0.1:{notified.server_port}/",
    }
    done = subprocess.run(
        [sys.executable, "-m", "deployments.register"],
        cwd=stack.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    schedules = {schedule["schedule"]["cron"]: schedule for schedule in stack.deployment("watch-sources")["schedules"]}
    assert {cron: schedule["active"] for cron, schedule in schedules.items()} == {
        "*/15 * * * *": True,
        "0 0 1 1 *": True,
    }
    assert schedules["0 0 1 1 *"]["parameters"] == added["parameters"]
    for schedule in schedules.values():
        stack.ask(f"{path}/{schedule['id']}", {"active": False}, "PATCH")


def test_a_new_commit_starts_the_merge_that_depends_on_it_once(stack: Stack) -> None:
    # The first run only notes the commits.
    first = stack.run("watch-sources")
    stack.wait_for_state(first, "Completed")
    assert stack.runs("merge-and-evaluate") == []

    api = HfApi(endpoint=stack.pages["hub"].partition("/?")[0], token=TOKEN)
    commit = api.upload_file(path_or_fileobj=b"more", path_in_repo="NOTES.md", repo_id=SOURCE).oid
    event = {
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {"type": "model", "name": SOURCE, "headSha": commit},
        "webhook": {"id": "1", "version": 3},
    }
    assert call_webhook(stack, event, "another secret") == (401, None)
    assert call_webhook(stack, {"event": "none"}, SECRET) == (400, None)
    discussion = event | {"event": {"action": "create", "scope": "discussion"}}
    assert call_webhook(stack, discussion, SECRET) == (200, None)
    status, run = call_webhook(stack, event, SECRET)
    assert status == 202
    # The Hub sends an event again when there was no answer.
    assert call_webhook(stack, event, SECRET) == (202, run)
    assert run is not None
    stack.wait_for_state(run, "Completed")
    (merge,) = stack.runs("merge-and-evaluate")
    assert commit in stack.artifacts(run)["started-merge"]
    assert merge["id"] in stack.artifacts(run)["started-merge"]
    again = stack.run("watch-sources")
    stack.wait_for_state(again, "Completed")
    assert len(stack.runs("merge-and-evaluate")) == 1
    assert merge["parameters"]["name"] == "watched"
    stack.wait_for_state(merge["id"], "Completed")
    shown = stack.artifacts(merge["id"])
    assert set(shown) == {"merge-plan", "merge-progress", "geometry", "mlflow-run"}
    assert stack.pages["mlflow"].partition("/#")[0] in shown["mlflow-run"]
    assert commit[:12] in shown["merge-plan"]


def call_webhook(stack: Stack, event: dict[str, Any], secret: str) -> tuple[int, str | None]:
    """Call as the Hub does; returns the status and the flow run."""
    headers = {"Content-Type": "application/json", "X-Webhook-Secret": secret}
    try:
        with urlopen(Request(stack.pages["webhook"], json.dumps(event).encode(), headers), timeout=60) as answer:
            return answer.status, json.load(answer)["flow_run"]
    except HTTPError as error:
        return error.code, None


def test_a_mistake_is_refused_at_once_and_told(stack: Stack, notified: Listener) -> None:
    recipe = EXAMPLE_RECIPE.replace("dtype", "dtpe")
    run = stack.run("merge-and-evaluate", recipe=recipe, name="mistaken")
    state = stack.wait_for_state(run, "Failed")
    sentence = "recipe:8: dtpe: unknown key. Did you mean `dtype`?"
    assert state["message"] == f"Flow run encountered an exception: RecipeError: {sentence}"
    assert stack.ask(f"flow_runs/{run}")["total_run_time"] < 5
    messages = wait_until(lambda: [sent for sent in notified.received if "mistaken" in sent["text"]], "notification")
    assert messages[0]["subject"] == "A run failed"
    assert sentence in messages[0]["text"]


def test_cancelling_stops_within_seconds_and_a_second_run_goes_on_from_there(stack: Stack) -> None:
    # Some 20 s of arithmetic; sparse files take no space on disk.
    shape = ModelShape(layers=6, hidden=2048, intermediate=5632, heads=16, key_value_heads=4, vocabulary=1000)
    sources = [stack.folder / name for name in ("origin", "left", "right")]
    for source in sources:
        write_checkpoint(source, shape)
    fields = {"recipe": SLOW_RECIPE.format(*sources), "name": "slow", "device": "cpu"}
    run = stack.run("merge-model", **fields)
    wait_until(lambda: len(finished_tensors(stack)) > 2, "finished tensors")
    started = time.monotonic()
    stack.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    stack.wait_for_state(run, "Cancelled")
    wait_until(lambda: not flow_processes(stack), "end of the process")
    assert time.monotonic() - started < 20
    finished = finished_tensors(stack)

    # The next test interrupts everything in the middle of this run.
    stack.run("merge-model", **fields)
    wait_until(lambda: len(finished_tensors(stack)) > len(finished), "further tensors")
    assert finished_tensors(stack)[: len(finished)] == finished


def finished_tensors(stack: Stack) -> list[str]:
    """Return the finished tensors in the journals of unfinished merges, in the order in which they were finished."""
    journals = (stack.folder / "state" / "merges").glob(".slow-*.partial/.*.journal")
    return [line for journal in journals for line in journal.read_text().splitlines()[1:]]


def flow_processes(stack: Stack) -> list[psutil.Process]:
    """Return the processes that run flows."""
    family = psutil.Process(stack.process.pid).children(recursive=True)
    return [process for process in family if process.is_running() and "prefect.engine" in process.cmdline()]


def test_an_interruption_in_the_middle_of_a_run_leaves_no_process(stack: Stack) -> None:
    family = psutil.Process(stack.process.pid).children(recursive=True)
    names = {argument for process in family for argument in process.cmdline()}
    servers = {"deployments.loopback_hub", "deployments.prefect_server", "mlflow", "deployments.webhook"}
    assert servers | {"cpu", "gpu"} <= names
    ports = [int(re.findall(r":(\d+)", address)[0]) for address in stack.pages.values()]
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(60) == 0, (stack.folder / "stderr").read_text()
    assert [process for process in family if process.is_running()] == []
    assert [free_port(port) for port in ports] == ports


def test_a_server_that_ends_is_named_and_takes_the_others_along(tmp_path: Path) -> None:
    process = start(tmp_path, "--with-hub")
    children: dict[str, psutil.Process] = {}

    def started() -> bool:
        assert process.poll() is None, (tmp_path / "stderr").read_text()
        for child in psutil.Process(process.pid).children():
            children[child.cmdline()[2].rpartition(".")[2]] = child
        return {"loopback_hub", "prefect_server", "mlflow"} <= set(children)

    wait_until(started, "three servers")
    os.kill(children["loopback_hub"].pid, signal.SIGKILL)
    assert process.wait(60) == 1
    assert (tmp_path / "stdout").read_text() == ""
    said = (tmp_path / "stderr").read_text()
    assert said.splitlines()[-1].startswith("mergeline: error: Hub has ended (status -9): ")
    assert [name for name, child in children.items() if child.is_running()] == []


def test_a_webhook_without_a_secret_is_refused(tmp_path: Path) -> None:
    process = start(tmp_path, "--with-webhook")
    assert process.wait(60) == 2
    assert "MERGELINE_WEBHOOK_SECRET" in (tmp_path / "stderr").read_text()


@pytest.mark.parametrize(("visible", "owners"), [("0,2", {"gpu-0": "0", "gpu-2": "2"}), ("", {"gpu": ""})])
def test_every_gpu_has_a_worker_of_its_own(
    visible: str, owners: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    started = {program.name.removeprefix("Worker "): program for program in workers({})}
    devices = {name: program.environment["CUDA_VISIBLE_DEVICES"] for name, program in started.items()}
    assert devices == {"cpu": "", **owners}
    for program in started.values():
        assert program.arguments[program.arguments.index("--limit") + 1] == "1"


def test_a_port_that_is_taken_is_passed_over() -> None:
    with ExitStack() as sockets:
        taken = sockets.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        assert free_port(taken) > taken
