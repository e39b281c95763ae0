"""One command, run to its end and measured: CPU time, wall time, peak memory of its whole process tree."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Measurement:
    """What one run of one command took."""

    cpu_seconds: float
    """User and system time of the process and of all its children that ended."""
    wall_seconds: float
    peak_resident_bytes: int
    """As the kernel counts it, page cache of mapped files included."""
    peak_own_bytes: int
    """Sampled every 20 ms: memory that belongs to the processes themselves, without mapped files."""


def measure(
    command: Sequence[str | Path], *, directory: Path, environment: Mapping[str, str], on_memory_file_system: bool
) -> Measurement:
    """Run ``command`` and measure it.

    Call from a small process: a child starts out with its parent's peak as its own.

    Args:
        command: Program and arguments.
        directory: Working directory.
        environment: Added to this process's own.
        on_memory_file_system: Whether the files it maps lie in memory. Mapped pages of such files are counted as
            shared memory, which is then left out of ``peak_own_bytes``.

    Raises:
        RuntimeError: With the end of the command's output, if it fails.
    """
    log = directory / "command.log"
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=directory,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        sampler = _Sampler(process.pid, ("RssAnon",) if on_memory_file_system else ("RssAnon", "RssShmem"))
        sampler.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            sampler.stop()
        wall_seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{shlex.join(map(str, command))} ended with status {process.returncode}:\n{tail}")
    return Measurement(
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        wall_seconds=wall_seconds,
        peak_resident_bytes=max(usage.ru_maxrss * 1024, sampler.peak_resident_bytes),
        peak_own_bytes=sampler.peak_own_bytes,
    )


class _Sampler(threading.Thread):
    """Watches the memory of a process and its descendants, added up."""

    def __init__(self, pid: int, own_fields: tuple[str, ...]) -> None:
        super().__init__(daemon=True)
        self.peak_resident_bytes = 0
        self.peak_own_bytes = 0
        self._pid = pid
        self._own_fields = own_fields
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            memory = [_memory(pid) for pid in _family(self._pid)]
            resident = sum(fields.get("VmRSS", 0) for fields in memory)
            own = sum(fields.get(name, 0) for fields in memory for name in self._own_fields)
            self.peak_resident_bytes = max(self.peak_resident_bytes, resident)
            self.peak_own_bytes = max(self.peak_own_bytes, own)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _family(pid: int) -> list[int]:
    """Return a process and its living descendants."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return [pid]
    return [pid, *(member for text in lists for child in text.split() for member in _family(int(child)))]


def _memory(pid: int) -> dict[str, int]:
    """Return the ``Rss`` and ``Vm`` fields of a process in bytes; nothing if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.startswith(("VmRSS", "RssAnon", "RssShmem")))
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields}
