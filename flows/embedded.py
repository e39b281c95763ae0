"""Run a flow in this process, on a Prefect server that starts and ends with it."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

from flows.task_run_history import recorded_task_runs
from mergeline.errors import InputError, RunError
from mergeline.support.durable import exclusive

if TYPE_CHECKING:
    from prefect import Flow

EMBEDDED_SETTINGS = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    # A fresh database on a slow machine needs 24 to 42 s; Prefect's own limit of 20 s ends the run.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # With the default batch of one, the embedded server drops task runs that are still queued when a flow ends.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    # Whole seconds: Prefect 3.8 rounds 0.5 to 0, and then an idle server uses a whole core.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # By Prefect's default every page in a browser may read the API; Prefect's own pages need no permission.
    "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": "",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_LEVEL": "INFO",
    # The client has analytics of its own, which no Prefect setting turns off.
    "DO_NOT_TRACK": "1",
}
"""Environment in which Prefect is imported; ``[tool.prefect]`` in pyproject.toml repeats it for the server."""

_SOON_SECONDS = 0.05
"""Time until SIGTERM is sent again where it came during an import."""


def prepare_environment(state_directory: Path) -> None:
    """Set the environment that Prefect reads when it is imported; the user's own settings stay.

    Args:
        state_directory: Prefect keeps its database and files in ``prefect/`` under it.

    Raises:
        InputError: Prefect is not installed, or the installed FastAPI is too new for its server.
        RunError: Prefect has been imported with other settings.
    """
    _require_working_server()
    settings = {"PREFECT_HOME": str(state_directory.resolve() / "prefect")} | EMBEDDED_SETTINGS
    settings = {name: os.environ.get(name) or value for name, value in settings.items()}
    _require_unread(settings)
    os.environ.update(settings)
    _reach_this_machine_directly()
    url = os.environ.get("PREFECT_API_URL")
    if url is not None and not _answers(url):
        if url:
            _say(f"PREFECT_API_URL {url} does not answer; using Prefect's embedded server.")
        # Deleted, not set to "": Prefect takes that for a server's address and loses every task run.
        del os.environ["PREFECT_API_URL"]
    # Prefect creates this folder, but not its parents.
    Path(settings["PREFECT_HOME"]).expanduser().mkdir(mode=0o700, parents=True, exist_ok=True)


def run_flow(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> Any:
    """Run a synchronous flow in this process and return its result, once Prefect has recorded every task run.

    Args:
        flow: Imported after :func:`prepare_environment`.
        parameters: The flow's parameters by name.

    Returns:
        What the flow returns.

    Raises:
        RunError: The embedded server did not start.
        Exception: Whatever the flow raised, unchanged.
    """
    from prefect.settings import get_current_settings

    _keep_console_short()
    if url := get_current_settings().api.url:
        _say(f"Running on the Prefect server at {url}.")
        return flow(**parameters)
    api_url = _start_server()
    with _termination_as_exit(), recorded_task_runs(api_url):
        return flow(**parameters)


def _require_working_server() -> None:
    try:
        prefect, fastapi = metadata.version("prefect"), metadata.version("fastapi")
    except metadata.PackageNotFoundError as error:
        raise InputError(
            f"The flow needs {error.name}, which is not installed: pip install 'mergeline[flows]'."
        ) from error
    if tuple(int(part) for part in fastapi.split(".")[:2]) >= (0, 151):
        raise InputError(
            f"FastAPI {fastapi} is installed, with which Prefect {prefect}'s server does not start: "
            f"pip install 'fastapi<0.151'."
        )


def _require_unread(settings: Mapping[str, str]) -> None:
    if "prefect" not in sys.modules:
        return
    from prefect.settings import get_current_settings

    read = get_current_settings().to_environment_variables()
    other = [name for name in settings if name in read and read[name].lower() != settings[name].lower()]
    if other:
        raise RunError(
            f"Prefect has been imported with {other[0]}={read[other[0]]}, expected {settings[other[0]]}; "
            f"call prepare_environment before `import prefect`."
        )


def _reach_this_machine_directly() -> None:
    # Prefect uses a proxy for 127.0.0.1 too, and then waits for its server until the time limit.
    exceptions = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    missing = [host for host in ("127.0.0.1", "localhost") if host not in exceptions.split(",")]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [exceptions, *missing]))


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url.rstrip('/')}/health", timeout=5):
            return True
    except HTTPError as error:
        # The server is there, and asks for a password that Prefect has.
        return error.code in (401, 403)
    except (OSError, ValueError):
        return False


def _start_server() -> str:
    """Start the embedded server, unless it runs in this process already, and return its API's address."""
    from prefect.settings import get_current_settings

    from flows.guarded_server import GuardedServer

    server = GuardedServer()
    if server.running:
        return server.api_url
    _say("Starting Prefect's embedded server (5 to 15 s; 15 to 60 s with a new database) ...")
    started = time.monotonic()
    try:
        # Two servers that migrate one new database at the same time break it.
        with exclusive(get_current_settings().home / "start.lock", "starting Prefect's server", is_waiting=True):
            server.start()
    except RuntimeError as error:
        raise RunError(
            f"Prefect's embedded server did not start: {' '.join(str(error).split())} Run again, or start one with "
            f"`python -m deployments.prefect_server` and set PREFECT_API_URL."
        ) from error
    assert server.server_process is not None
    _end_with_this_process(server.server_process.pid)
    _say(f"Prefect's embedded server is ready after {time.monotonic() - started:.0f} s.")
    return server.api_url


def _end_with_this_process(pid: int) -> None:
    """End a process when this process is killed: Prefect's server would run for ever."""
    # The pipe closes however this process ends; a line is written to it only at a normal end.
    guard = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _ || kill "$0"', str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    atexit.register(guard.communicate, b"\n")


@contextmanager
def _termination_as_exit() -> Generator[None, None, None]:
    """Turn SIGTERM into SystemExit, so that the flow run is marked, task runs are recorded and the server stops."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
            # An exception during an import can leave the import lock locked: the next import would wait for ever.
            threading.Timer(_SOON_SECONDS, os.kill, (os.getpid(), number)).start()
        else:
            raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class _OneLine(logging.Filter):
    """Keeps off the console what the caller reports in one line: tracebacks of flows, and starts of the server.

    Prefect's own log has them all the same.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith(("prefect.flow_runs", "prefect.task_runs")):
            return not record.exc_info
        return not (record.name == "prefect" and "temporary server" in str(record.msg))


def _keep_console_short() -> None:
    if logging.getLogger("prefect").isEnabledFor(logging.DEBUG):
        return
    for handler in logging.getLogger().handlers:
        if not any(isinstance(present, _OneLine) for present in handler.filters):
            handler.addFilter(_OneLine())


def _say(message: str) -> None:
    # Standard output is for the result.
    print(message, file=sys.stderr, flush=True)
