"""The programs of `mergeline up`: Prefect's and MLflow's servers, workers, and on demand a Hub and a webhook."""

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
    # The automation for lost runs depends on it; see deployments/automations.py.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


def hub(port: int) -> Program:
    """Return the demonstration's Hub; the token in the page's address shows private repositories too."""
    port, root = free_port(port), hub_directory()
    arguments = ("-m", "deployments.loopback_hub", str(root), "--port", str(port))
    address = f"http://127.0.0.1:{port}/"
    return Program("Hub", arguments, address, f"{address}?token={TOKEN}", root / ".starting")


def prefect(port: int) -> Program:
    """Return a Prefect server on the database of ``mergeline run``."""
    port = free_port(port)
    address = f"http://127.0.0.1:{port}"
    arguments = ("-m", "deployments.prefect_server", "--host", "127.0.0.1", "--port", str(port))
    lock = Path(os.environ["PREFECT_HOME"]).expanduser() / "start.lock"
    # Without it the pages call port 4200, whatever the server's port.
    environment = {"PREFECT_SERVER_UI_API_URL": f"{address}/api"}
    return Program("Prefect", arguments, f"{address}/api/health", address, lock, environment)


def mlflow(port: int) -> Program:
    """Return an MLflow server on the default store of pipelines."""
    port = free_port(port)
    address = f"http://127.0.0.1:{port}"
    store = TrackingSettings(default_tracking_uri(), Track().experiment)
    assert store.database is not None
    assert store.artifacts is not None
    arguments = (
        *("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        # MLflow's own choice lets in names such as 10.example.com, which look like addresses.
        *("--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"),
        # The folder of a pipeline without a server, so that either can continue the other's runs.
        *("--default-artifact-root", store.artifacts.as_uri(), "--no-serve-artifacts"),
    )
    environment = {
        # Not on the command line, which would show a database's password.
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
    """Return the program that uploads the demonstration models to the local Hub."""
    endpoint = hub.health.rstrip("/")
    return Program(
        "Models", ("-m", "deployments.local.demo", "--fill", endpoint), "", environment=environment(endpoint)
    )


def registration(settings: Mapping[str, str]) -> Program:
    """Return the program that creates pools, deployments and automations."""
    return Program("Registration", ("-m", "deployments.register"), "", environment=settings)


def workers(settings: Mapping[str, str]) -> list[Program]:
    """Return a worker for the pool ``cpu``, and for the pool ``gpu`` one per GPU, or one where there is no GPU."""
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
    """Return the GPUs in ``$CUDA_VISIBLE_DEVICES`` if it is set, else those that the driver lists."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in chosen.split(",") if device not in ("", "-1")]
    if (driver := shutil.which("nvidia-smi")) is None:
        return []
    listed = subprocess.run([driver, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []


def used_by_flows(api_url: str, tracking_url: str, hub: Program | None) -> dict[str, str]:
    """Return the environment in which flows reach the servers."""
    for_hub = {} if hub is None else environment(hub.health.rstrip("/"))
    return for_hub | {
        "PREFECT_API_URL": api_url,
        "MLFLOW_TRACKING_URI": tracking_url,
        # A worker starts runs in a directory of its own.
        "MERGELINE_HOME": str(state_directory()),
    }
