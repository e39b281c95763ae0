"""What runs on this machine: Prefect's and MLflow's servers, the workers, and on demand a Hub and a webhook."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from deployments.local.demo import TOKEN, environment, hub_directory
from deployments.programs import Program, free_port
from mergeline.pipeline.language import Track
from mergeline.support.state import default_tracking_uri, state_directory
from mergeline.tracking.store import TrackingSettings

WORKER_SETTINGS = {
    # A click in the browser is answered in two seconds instead of ten.
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    # What the automation for lost runs counts on; see deployments/automations.py.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


def hub(port: int) -> Program:
    """Return the Hub that the demonstration publishes to; with the token its page shows private repositories too."""
    port, root = free_port(port), hub_directory()
    arguments = ("-m", "deployments.loopback_hub", str(root), "--port", str(port))
    address = f"http://127.0.0.1:{port}/"
    return Program("Hub", arguments, address, f"{address}?token={TOKEN}", root / ".starting")


def prefect(port: int) -> Program:
    """Return a Prefect server on the database that ``mergeline run`` writes."""
    port = free_port(port)
    address = f"http://127.0.0.1:{port}"
    arguments = ("-m", "deployments.prefect_server", "--host", "127.0.0.1", "--port", str(port))
    lock = Path(os.environ["PREFECT_HOME"]).expanduser() / "start.lock"
    # Without it the pages ask port 4200, whatever the server's own.
    environment = {"PREFECT_SERVER_UI_API_URL": f"{address}/api"}
    return Program("Prefect", arguments, f"{address}/api/health", address, lock, environment)


def mlflow(port: int) -> Program:
    """Return an MLflow server on the store of pipelines that name no other."""
    port = free_port(port)
    address = f"http://127.0.0.1:{port}"
    store = TrackingSettings(default_tracking_uri(), Track().experiment)
    assert store.database is not None
    assert store.artifacts is not None
    arguments = (
        *("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        # MLflow's own choice lets in names such as 10.example.com, which look like addresses.
        *("--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"),
        # Files lie where a pipeline without a server puts them, so that either can go on with the other's runs.
        *("--default-artifact-root", store.artifacts.as_uri(), "--no-serve-artifacts"),
    )
    environment = {
        # Read by MLflow itself, so that a database's password is on no command line.
        "MLFLOW_BACKEND_STORE_URI": os.environ.get("MLFLOW_BACKEND_STORE_URI") or store.uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    # MLflow opens in its GenAI mode, where models are called agents, unless told otherwise.
    page = f"{address}/#/experiments?workflowType=machine_learning"
    lock = store.database.with_name(f"{store.database.name}.lock")
    return Program("MLflow", arguments, f"{address}/health", page, lock, environment)


def webhook(port: int, api_url: str) -> Program:
    """Return the endpoint that the Hub calls when a repository changes."""
    port = free_port(port)
    address = f"http://127.0.0.1:{port}/"
    arguments = ("-m", "deployments.webhook", "--port", str(port))
    return Program("Webhook", arguments, address, address, environment={"PREFECT_API_URL": api_url})


def demonstration(hub: Program) -> Program:
    """Return what puts the demonstration models on the local Hub, and ends."""
    endpoint = hub.health.rstrip("/")
    return Program(
        "Models", ("-m", "deployments.local.demo", "--fill", endpoint), "", environment=environment(endpoint)
    )


def registration(settings: Mapping[str, str]) -> Program:
    """Return what creates pools, deployments and automations, and ends."""
    return Program("Registration", ("-m", "deployments.register"), "", environment=settings)


def workers(settings: Mapping[str, str]) -> list[Program]:
    """Return one worker for the pool ``cpu`` and one for each GPU, which it owns; without a GPU, one all the same."""
    devices = visible_gpus() or [""]
    owners = [("cpu", "cpu", ""), *(("gpu", f"gpu-{device}" if device else "gpu", device) for device in devices)]
    return [
        Program(
            f"Worker {name}",
            ("-m", "prefect", "worker", "start", "--pool", pool, "--name", name, "--type", "process", "--limit", "1"),
            "",
            environment={**settings, **WORKER_SETTINGS, "CUDA_VISIBLE_DEVICES": device},
            is_restarted=True,
        )
        for pool, name, device in owners
    ]


def visible_gpus() -> list[str]:
    """Return what ``$CUDA_VISIBLE_DEVICES`` may name: its own list where it is set, else what the driver lists."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in chosen.split(",") if device not in ("", "-1")]
    if (driver := shutil.which("nvidia-smi")) is None:
        return []
    listed = subprocess.run([driver, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []


def used_by_flows(api_url: str, tracking_url: str, hub: Program | None) -> dict[str, str]:
    """Return the environment in which flows reach the servers."""
    own = {} if hub is None else environment(hub.health.rstrip("/"))
    return own | {
        "PREFECT_API_URL": api_url,
        "MLFLOW_TRACKING_URI": tracking_url,
        # A worker starts runs in a directory of its own.
        "MERGELINE_HOME": str(state_directory()),
    }
