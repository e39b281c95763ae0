"""``mergeline up`` for tests: started on free ports and a state directory of its own, interrupted in the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
SERVERS = ("prefect", "mlflow", "hub", "webhook")
START_SECONDS = 280
PATIENCE_SECONDS = 150.0
"""A run takes 30 s; on slow cores shared with others, several times that."""

QUICK = "evaluate: {dataset: mergeline-demo/spartqa-directions}\nsample: {prompts: []}\n"
"""Settings with which the form's merge takes seconds."""


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    process: subprocess.Popen[str]
    pages: Mapping[str, str]
    """Address for a person, by program."""
    folder: Path
    """Working directory; the state lies in ``state/``."""

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Call Prefect's API."""
        content = None if body is None else json.dumps(body).encode()
        request = Request(
            f"{self.pages['prefect']}/api/{path}", content, {"Content-Type": "application/json"}, method=method
        )

        def answered() -> bytes | None:
            try:
                with urlopen(request, timeout=60) as answer:
                    return answer.read() or b"null"
            except HTTPError as error:
                # On SQLite, while another write goes on; Prefect's own client tries again as well.
                if error.code != 503:
                    raise
                return None

        return json.loads(wait_until(answered, path))

    def deployment(self, name: str) -> dict[str, Any]:
        """Return a deployment by its name, which is its flow's too."""
        return self.ask(f"deployments/name/{name}/{name}")

    def run(self, deployment_name: str, /, **parameters: Any) -> str:
        """Run a deployment with these fields filled in; returns the flow run's id."""
        deployment = self.deployment(deployment_name)
        return self.ask(f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Return a flow's runs, oldest first."""
        return self.ask("flow_runs/filter", {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_ASC"})

    def wait_for_state(self, flow_run: str, *names: str) -> dict[str, Any]:
        """Return the flow run's state once it has one of these names."""

        def reached() -> dict[str, Any] | None:
            state = self.ask(f"flow_runs/{flow_run}")["state"]
            assert state["name"] in names or state["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), state
            return state if state["name"] in names else None

        return wait_until(reached, f"flow run {flow_run} {' or '.join(names)}")

    def artifacts(self, flow_run: str) -> dict[str, str]:
        """Return what a flow run shows, by key."""
        found = self.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run]}}})
        return {artifact["key"]: str(artifact["data"]) for artifact in found}

    def log(self, program: str) -> str:
        """Return what a program has written."""
        return (self.folder / "state" / "logs" / f"{program}.log").read_text()


T = TypeVar("T")


def wait_until(found: Callable[[], T | None], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Return what ``found`` returns once that is something."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.3)
    return value


def unused_port() -> int:
    """Return a port that nobody listens on, and that nobody who asks at the same time is given too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder: Path, *options: str, **variables: str) -> subprocess.Popen[str]:
    """Start ``mergeline up`` in a folder, with nothing of the developer's own settings."""
    own = ("PREFECT_", "MLFLOW_", "MERGELINE_", "DO_NOT_TRACK", "HF_", "CUDA_VISIBLE_DEVICES")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    with (folder / "stdout").open("w") as printed, (folder / "stderr").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "mergeline", "up", *options],
            cwd=folder,
            env=inherited | {"MERGELINE_HOME": str(folder / "state"), "PYTHONPATH": str(ROOT)} | variables,
            stdout=printed,
            stderr=said,
            text=True,
        )


@contextmanager
def running_stack(folder: Path, *options: str, **variables: str) -> Iterator[Stack]:
    """Start a stack, wait until it has printed its addresses, and end it afterwards."""
    ports = [f"--port-{name}={unused_port()}" for name in SERVERS]
    process = start(folder, "--json", *ports, *options, **variables)
    try:

        def addresses() -> str | None:
            assert process.poll() is None, (folder / "stderr").read_text()
            text = (folder / "stdout").read_text()
            return text if text.endswith("\n") else None

        yield Stack(process, json.loads(wait_until(addresses, "addresses", START_SECONDS)), folder)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()
