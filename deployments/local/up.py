"""The demonstration's Hub, Prefect and MLflow on this machine, for the browser: ``python -m deployments.local.up``."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from deployments.local.demo import TOKEN, hub_directory
from flows.embedded import prepare_environment
from mergeline.durable import exclusive
from mergeline.errors import InputError, MergelineError, RunError
from mergeline.pipeline import Track
from mergeline.state import state_directory
from mergeline.tracking import TrackingSettings

START_SECONDS = 240.0
"""Prefect and MLflow with new databases take up to 80 s on two slow cores."""
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Server:
    """How one server is started and where it is found."""

    name: str
    arguments: tuple[str, ...]
    """What Python is called with."""
    page: str
    """Address for a person."""
    health: str
    """Address that answers 200 once the server works."""
    start_lock: Path
    """Held while its database may be new: two servers that migrate it at the same time break it."""

    @property
    def log(self) -> Path:
        return state_directory() / "logs" / f"{self.name.lower()}.log"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all three until interrupted, or until one of them ends."""
    parser = argparse.ArgumentParser(prog="python -m deployments.local.up", description=__doc__)
    for name, port in (("hub", 7860), ("prefect", 4200), ("mlflow", 5000)):
        parser.add_argument(f"--port-{name}", type=int, default=port, help="or the next free (default: %(default)s)")
    options = parser.parse_args(arguments)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: stopping.set())
    running: list[tuple[Server, subprocess.Popen[bytes]]] = []
    try:
        prepare_environment(state_directory())
        servers = [hub(options.port_hub), prefect(options.port_prefect), mlflow(options.port_mlflow)]
        print("Starting the local Hub, Prefect and MLflow (15 to 90 s) ...", file=sys.stderr, flush=True)
        with ExitStack() as locks:
            for server in servers:
                server.start_lock.parent.mkdir(parents=True, exist_ok=True)
                locks.enter_context(exclusive(server.start_lock, f"starting {server.name}"))
                running.append((server, start(server)))
            wait_until_answered(running, stopping)
        for server in servers if not stopping.is_set() else ():
            print(f"{server.name:<8} {server.page}", flush=True)
        while not stopping.wait(0.5):
            require_alive(running)
    except MergelineError as error:
        print(f"up: {error}", file=sys.stderr)
        return error.exit_status
    finally:
        stop([process for _, process in running])
    return 0


def hub(port: int) -> Server:
    """Return the Hub that the demonstration publishes to; with the token its page shows private repositories too."""
    port, root = free_port(port), hub_directory()
    arguments = ("-m", "deployments.local.hub", str(root), "--port", str(port))
    address = f"http://127.0.0.1:{port}/"
    return Server("Hub", arguments, f"{address}?token={TOKEN}", address, root / ".starting")


def prefect(port: int) -> Server:
    """Return a Prefect server on the database that ``mergeline run`` writes."""
    port = free_port(port)
    address = f"http://127.0.0.1:{port}"
    # Read by the server alone. Without it the pages ask port 4200, whatever the server's own.
    os.environ["PREFECT_SERVER_UI_API_URL"] = f"{address}/api"
    os.environ.pop("PREFECT_API_URL", None)
    arguments = ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    lock = Path(os.environ["PREFECT_HOME"]).expanduser() / "start.lock"
    return Server("Prefect", arguments, address, f"{address}/api/health", lock)


def mlflow(port: int) -> Server:
    """Return an MLflow server on the SQLite store of pipelines that name no other."""
    port = free_port(port)
    address = f"http://127.0.0.1:{port}"
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    store = TrackingSettings(Track().resolved_uri, Track().experiment)
    assert store.database is not None
    assert store.artifacts is not None
    arguments = (
        *("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        # Files lie where a pipeline without a server puts them, so that either can go on with the other's runs.
        *("--backend-store-uri", store.uri, "--default-artifact-root", store.artifacts.as_uri()),
        "--no-serve-artifacts",
    )
    # MLflow opens in its GenAI mode, where models are called agents, unless told otherwise.
    page = f"{address}/#/experiments?workflowType=machine_learning"
    lock = store.database.with_name(f"{store.database.name}.lock")
    return Server("MLflow", arguments, page, f"{address}/health", lock)


def free_port(first: int) -> int:
    """Return the first port from ``first`` on that nobody listens on."""
    for port in range(first, min(first + 100, 65536)):
        with socket.socket() as probe, suppress(OSError):
            # Without it a port that was in use a minute ago looks taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise InputError(f"No port from {first} on is free; choose another with --port-hub, --port-prefect, --port-mlflow.")


def start(server: Server) -> subprocess.Popen[bytes]:
    """Start a server in a process group of its own, which Ctrl-C in the terminal does not reach."""
    server.log.parent.mkdir(parents=True, exist_ok=True)
    with server.log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *server.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until_answered(running: Sequence[tuple[Server, subprocess.Popen[bytes]]], stopping: threading.Event) -> None:
    """Return when every server answers, or when this program is told to stop; RunError after too long."""
    deadline = time.monotonic() + START_SECONDS
    waiting = [server for server, _ in running]
    while waiting and not stopping.wait(0.2):
        require_alive(running)
        waiting = [server for server in waiting if not answers(server.health)]
        if waiting and time.monotonic() > deadline:
            raise RunError(f"{waiting[0].name} does not answer after {START_SECONDS:.0f} s; see {waiting[0].log}.")


def answers(address: str) -> bool:
    """Return whether a server answers 200 at ``address``."""
    try:
        with urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except (OSError, HTTPException):
        return False


def require_alive(running: Sequence[tuple[Server, subprocess.Popen[bytes]]]) -> None:
    """Raise RunError if a server has ended, with the last line it wrote."""
    for server, process in running:
        if process.poll() is not None:
            said = server.log.read_text("utf-8", "replace").strip().rpartition("\n")[2] or "it wrote nothing"
            raise RunError(f"{server.name} has ended (status {process.returncode}): {said} (all of it: {server.log})")


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End process groups, with time to finish what they are writing."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        # The leader, if it does not listen, and whatever it left behind.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
