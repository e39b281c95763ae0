"""Run the worker process with a time limit, pass on its progress, and turn its failure into one error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import mergeline
from mergeline.errors import EvaluationError, EvaluationInputError
from mergeline.support.secrets import environment_without_secrets

REQUEST_NAME = "request.json"
RESULT_NAME = "result.json"
FAILURE_NAME = "failure.json"
_LOG_NAME = "output.log"
_LAST_LINES = 15


class WorkerOutOfMemoryError(EvaluationError):
    """The process ran out of memory, or was killed, presumably for that reason."""


class TaskDataError(EvaluationInputError):
    """An lm-eval task with its own data cannot be built, most likely because the data are not on this machine."""


def run_worker(
    request: Mapping[str, Any],
    *,
    time_limit_seconds: float,
    on_line: Callable[[str], None] | None = None,
    is_online: bool = False,
) -> Any:
    """Run :mod:`mergeline.evaluation.worker` on ``request`` and return its result, parsed from JSON.

    Args:
        request: Passed to the process as JSON; see the worker's jobs.
        time_limit_seconds: After this time the process and all its children are killed.
        on_line: Called with each line of progress as it appears.
        is_online: Whether the process may access the Hub, without a token.

    Raises:
        EvaluationInputError: the model, task or questions cannot be used.
        TaskDataError: the task's own data are missing.
        WorkerOutOfMemoryError: it ran out of memory.
        EvaluationError: it crashed, gave unusable scores, or exceeded the time limit; with its last lines of output.
    """
    with tempfile.TemporaryDirectory(prefix="mergeline-evaluation-") as name:
        directory = Path(name)
        (directory / REQUEST_NAME).write_text(json.dumps(request), "utf-8")
        listener = _Listener(on_line)
        status, is_timed_out = _run(directory, time_limit_seconds, listener, worker_environment(is_online=is_online))
        if is_timed_out:
            raise EvaluationError(
                f"{listener.stage}: stopped after the time limit of {time_limit_seconds:g} s; "
                f"allow more time or evaluate fewer questions.{_last_lines(directory)}"
            )
        if status != 0:
            raise _failure(directory, status, listener.stage)
        return json.loads((directory / RESULT_NAME).read_text("utf-8"))


class _Listener:
    """Passes lines on and keeps the last one, which errors name as the stage of the failure."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self.stage = "Starting the evaluation process"

    def __call__(self, line: str) -> None:
        self.stage = line
        if self._on_line is not None:
            self._on_line(line)


def _run(
    directory: Path, time_limit_seconds: float, listener: _Listener, environment: Mapping[str, str]
) -> tuple[int, bool]:
    timed_out = threading.Event()
    with (directory / _LOG_NAME).open("wb") as log:
        process = subprocess.Popen(
            # -P: a file named torch.py in the working directory must not be imported as torch.
            [sys.executable, "-P", "-m", "mergeline.evaluation.worker", str(directory / REQUEST_NAME)],
            stdin=subprocess.PIPE,  # stays open: its end tells the worker that this process has ended
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def stop() -> None:
        if process.poll() is None:
            timed_out.set()
            _kill(process)

    timer = threading.Timer(time_limit_seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            listener(line.rstrip())
        return process.wait(), timed_out.is_set()
    finally:
        timer.cancel()
        _kill(process)
        with process:
            pass


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        # The whole session, in case a library started children; it may have ended since poll().
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def worker_environment(*, is_online: bool = False) -> dict[str, str]:
    """Return this process's environment without secrets, with libraries quiet and, unless ``is_online``, offline."""
    inherited = environment_without_secrets()
    root = Path(mergeline.__file__).resolve().parent.parent
    # A checkout may be importable only through the working directory. Site-packages are importable anyway, and must not
    # come before the standard library.
    checkout = "" if root.name in {"site-packages", "dist-packages"} else str(root)
    return inherited | {
        "PYTHONPATH": os.pathsep.join(filter(None, [checkout, inherited.get("PYTHONPATH")])),
        "PYTHONWARNINGS": "ignore",
        **({} if is_online else {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}),
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Without this, lm-eval starts a pool of processes for the bootstrap of some metrics.
        "DISABLE_MULTIPROC": "1",
    }


def _failure(directory: Path, status: int, stage: str) -> Exception:
    path = directory / FAILURE_NAME
    if path.is_file():
        failure: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if failure["kind"] == "input":
            return EvaluationInputError(failure["problems"])
        if failure["kind"] == "data":
            return TaskDataError(failure["problems"])
        if failure["kind"] == "memory":
            return WorkerOutOfMemoryError(f"{stage}: out of memory ({failure['message']}).")
        return EvaluationError(failure["message"])
    if status == -signal.SIGKILL:
        return WorkerOutOfMemoryError(
            f"{stage}: the process was killed, most likely for want of memory; use a smaller batch or another machine."
        )
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return EvaluationError(f"{stage}: the process ended with {how}.{_last_lines(directory)}")


def _last_lines(directory: Path) -> str:
    """Return the last lines of standard error, indented; a progress bar counts as one line."""
    text = (directory / _LOG_NAME).read_text("utf-8", errors="replace")
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.splitlines()]
    shown = [line for line in lines if line.strip()][-_LAST_LINES:]
    return "".join(f"\n    {line}" for line in shown)
