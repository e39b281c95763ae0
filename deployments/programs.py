"""A supervisor: starts programs, waits until they answer, watches them, and ends all of them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import psutil

from mergeline.errors import InputError, RunError
from mergeline.support.state import state_folder

START_SECONDS = 240.0
"""Prefect and MLflow with new databases take up to 80 s on two slow cores."""
STOP_SECONDS = 20.0
"""A worker ends the run that it supervises, which stops after the chunk of a tensor that it is merging."""
SHORT_LIFE_SECONDS = 10.0
"""A program that ends sooner after its start is not started again."""


@dataclass(frozen=True)
class Program:
    """How a program is started, and its addresses."""

    name: str
    arguments: tuple[str, ...]
    """Command line of Python."""
    health: str
    """Address that answers 200 once the program works."""
    page: str = ""
    """Address for a browser; empty: there is no page."""
    start_lock: Path | None = None
    """Locked during the start: two servers that migrate a new database at the same time break it."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """Beyond this process's own."""
    is_restarted: bool = False
    """Whether it is started again when it ends; otherwise its end stops all programs."""

    @property
    def log(self) -> Path:
        return state_folder("logs") / f"{self.name.lower().replace(' ', '-')}.log"


class Running:
    """The programs that were started, in that order."""

    def __init__(self, stopping: threading.Event) -> None:
        """Start nothing yet; once ``stopping`` is set, nothing is started or waited for any more."""
        self._stopping = stopping
        self._started: list[tuple[Program, subprocess.Popen[bytes], float]] = []
        _adopt_orphans()

    def start(self, program: Program, *, again: bool = False) -> None:
        """Start a program in a process group of its own, which Ctrl-C in the terminal does not reach."""
        if self._stopping.is_set():
            return
        program.log.parent.mkdir(parents=True, exist_ok=True)
        with program.log.open("ab" if again else "wb") as log:
            process = subprocess.Popen(
                [sys.executable, *program.arguments],
                env=os.environ | program.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append((program, process, time.monotonic()))

    def wait_until_answered(self, programs: Sequence[Program]) -> None:
        """Return when every program answers, or on ``stopping``; RunError after :data:`START_SECONDS`."""
        deadline = time.monotonic() + START_SECONDS
        waiting = list(programs)
        while waiting and not self._stopping.wait(0.2):
            self.require_alive()
            waiting = [program for program in waiting if not answers(program.health)]
            if waiting and time.monotonic() > deadline:
                raise RunError(f"{waiting[0].name} does not answer after {START_SECONDS:.0f} s; see {waiting[0].log}.")

    def require_alive(self) -> None:
        """Start ended programs again where they may be; raise RunError, with the last line it wrote, for another."""
        for entry in list(self._started):
            program, process, started = entry
            if process.poll() is None:
                continue
            ended = f"{program.name} has ended (status {process.returncode})"
            if not program.is_restarted or time.monotonic() - started < SHORT_LIFE_SECONDS:
                raise RunError(f"{ended}: {last_line(program.log)}")
            print(f"{ended} and is started again.", file=sys.stderr, flush=True)
            self._started.remove(entry)
            self.start(program, again=True)

    def finish(self, program: Program) -> None:
        """Run a program until it ends by itself, or until ``stopping``; RunError if it fails."""
        if self._stopping.is_set():
            return
        self.start(program)
        _, process, _ = self._started.pop()
        try:
            while process.poll() is None and not self._stopping.wait(0.1):
                self.require_alive()
            if process.poll() not in (0, None):
                raise RunError(f"{program.name} failed (status {process.returncode}): {last_line(program.log)}")
        finally:
            _stop([process])

    def stop(self) -> None:
        """End workers before the servers they report to, then all processes that they left behind."""
        for with_page in (False, True):
            _stop([process for program, process, _ in self._started if bool(program.page) is with_page])
        self._started.clear()
        _stop_orphans()


def answers(address: str) -> bool:
    """Return whether a server answers 200 at ``address``."""
    try:
        with urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except (OSError, HTTPException):
        return False


def last_line(log: Path) -> str:
    """Return the last line that a program wrote, and the path of its log."""
    said = log.read_text("utf-8", "replace").strip().rpartition("\n")[2] or "it wrote nothing"
    return f"{said} (all of it: {log})"


def free_port(first: int) -> int:
    """Return the first port from ``first`` on that is free."""
    for port in range(first, min(first + 100, 65536)):
        with socket.socket() as probe, suppress(OSError):
            # Without it a port that was in use a minute ago counts as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise InputError(f"No port from {first} on is free; choose another with --port-prefect, --port-mlflow, --port-hub.")


def _adopt_orphans() -> None:
    """Have runs whose worker was killed become children of this process, which ends its children."""
    with suppress(AttributeError, OSError):  # Linux alone can do this
        PR_SET_CHILD_SUBREAPER = 36
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _stop_orphans() -> None:
    orphans = psutil.Process().children(recursive=True)
    for orphan in orphans:
        with suppress(psutil.NoSuchProcess):
            orphan.terminate()
    _, deaf = psutil.wait_procs(orphans, timeout=STOP_SECONDS)
    for orphan in deaf:
        with suppress(psutil.NoSuchProcess):
            orphan.kill()


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End process groups, with time to finish what they are writing."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        # The leader, if it ignored SIGTERM, and the rest of its group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
