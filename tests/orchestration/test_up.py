"""The three servers that ``make up`` starts, and what is left of them afterwards: nothing."""

from __future__ import annotations

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
from pathlib import Path
from urllib.request import urlopen

import pytest

from deployments.local.up import free_port

ROOT = Path(__file__).parents[2]
SERVERS = {"hub", "prefect", "mlflow"}


def start(state: Path, *options: str) -> subprocess.Popen[str]:
    own = ("PREFECT_", "MLFLOW_", "DO_NOT_TRACK")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return subprocess.Popen(
        [sys.executable, "-m", "deployments.local.up", *options],
        cwd=state,
        env=variables | {"MERGELINE_HOME": str(state / "state"), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def groups(process_id: int) -> dict[str, int]:
    """Return the process groups of the servers that ``up`` has started, by what they serve."""
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_text().split("\0") for child in children}
    modules = {child: command[2].rpartition(".")[2] for child, command in commands.items() if "-m" in command}
    return {module: child for child, module in modules.items() if module in SERVERS}


def members(group: int) -> list[int]:
    """Return the processes of a group."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[2]) == group:
            found.append(int(path.parent.name))
    return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """``up`` on a fresh state directory, started, and the lines it printed."""
    directory = tmp_path_factory.mktemp("up")
    ports = [str(free_port(first)) for first in (27860, 24200, 25000)]
    options = [f"--port-{name}={port}" for name, port in zip(("hub", "prefect", "mlflow"), ports, strict=True)]
    with start(directory, *options) as process:
        watchdog = threading.Timer(280, process.terminate)
        watchdog.start()
        assert process.stdout is not None
        lines = [process.stdout.readline().rstrip("\n") for _ in options]
        yield process, lines
        watchdog.cancel()
        process.terminate()
        process.communicate()


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the servers through /proc")


@pytest.mark.slow
@needs_proc
def test_three_servers_answer_and_an_interruption_leaves_no_process(
    up: tuple[subprocess.Popen[str], list[str]],
) -> None:
    process, lines = up
    assert [line.split()[0] for line in lines] == ["Hub", "Prefect", "MLflow"]
    hub, prefect, mlflow = (line.split()[1] for line in lines)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=hf_local", hub)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", prefect)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#/experiments\?workflowType=machine_learning", mlflow)
    for address in (hub, prefect, mlflow):
        with urlopen(address.partition("#")[0], timeout=30) as answer:
            assert answer.status == 200
    # The pages call the API where the server really is.
    with urlopen(f"{prefect}/ui-settings", timeout=30) as answer:
        assert f'"api_url":"{prefect}/api"' in answer.read().decode()

    running = groups(process.pid)
    assert set(running) == SERVERS
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert {name: members(group) for name, group in running.items()} == {name: [] for name in running}
    for address in (hub, prefect, mlflow):
        port = int(re.findall(r":(\d+)", address)[0])
        assert free_port(port) == port


@pytest.mark.slow
@needs_proc
def test_a_server_that_ends_is_named_and_takes_the_others_along(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        deadline = time.monotonic() + 60
        while set(running := groups(process.pid)) < SERVERS:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(running["hub"], signal.SIGKILL)
        output, said = process.communicate(timeout=60)
    assert output == ""
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("up: Hub has ended (status -9): ")
    assert {name: members(group) for name, group in running.items()} == {name: [] for name in running}


def test_a_port_that_is_taken_is_passed_over() -> None:
    with ExitStack() as sockets:
        taken = sockets.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        assert free_port(taken) > taken
