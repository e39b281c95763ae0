"""Programs that run beside each other until somebody stops them: started, waited for, watched, ended."""

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
"""A worker passes its end on to the run it supervises, which stops between two pieces of a tensor."""
SHORT_LIFE_SECONDS = 10.0
"""What ends so soon after its start would do so again."""


@dataclass(frozen=True)
class Program:
    """How one program is started and where it is found."""

    name: str
    arguments: tuple[str, ...]
    """What Python is called with."""
    health: str
    """Address that answers 200 once the program works."""
    page: str = ""
    """Address for a person; empty if there is nothing to see."""
    start_lock: Path | None = None
    """Held while its database may be new: two servers that migrate it at the same time break it."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """Beyond this process's own."""
    is_restarted: bool = False
    """Whether its end is no reason to stop the others."""

    @property
    def log(self) -> Path:
        return state_folder("logs") / f"{self.name.lower().replace(' ', '-')}.log"


class Running:
    """The programs that have been started, in that order."""

    def __init__(self, stopping: threading.Event) -> None:
        """Start nothing yet; whatever waits gives up once ``stopping`` is set."""
        self._stopping = stopping
        self._started: list[tuple[Program, subprocess.Popen[bytes], float]] = []
        _adopt_orphans()

    def start(self, program: Program, *, again: bool = False) -> None:
        """Start a program in a process group of its own, which Ctrl-C in the terminal does not reach.

        Does nothing once all is to stop.
        """
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
        """Return when every program answers, or when all is to stop; RunError after too long."""
        deadline = time.monotonic() + START_SECONDS
        waiting = list(programs)
        while waiting and not self._stopping.wait(0.2):
            self.require_alive()
            waiting = [program for program in waiting if not answers(program.health)]
            if waiting and time.monotonic() > deadline:
                raise RunError(f"{waiting[0].name} does not answer after {START_SECONDS:.0f} s; see {waiting[0].log}.")

    def require_alive(self) -> None:
        """Raise RunError if a program has ended, with the last line it wrote; start those again that may end."""
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
        """Run a program that ends by itself, or until all is to stop; RunError if it fails."""
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
        """End workers before the servers they report to, and whatever any of them has left."""
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
    """Return what a program said last, and where the rest of it is."""
    said = log.read_text("utf-8", "replace").strip().rpartition("\n")[2] or "it wrote nothing"
    return f"{said} (all of it: {log})"


def free_port(first: int) -> int:
    """Return the first port from ``first`` on that nobody listens on."""
    for port in range(first, min(first + 100, 65536)):
        with socket.socket() as probe, suppress(OSError):
            # Without it a port that was in use a minute ago looks taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise InputError(f"No port from {first} on is free; choose another with --port-prefect, --port-mlflow, --port-hub.")


def _adopt_orphans() -> None:
    """Make runs whose worker was killed children of this process, so that they are found when all is to end."""
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
        # The leader, if it does not listen, and whatever it left behind.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
