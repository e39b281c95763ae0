"""What the stages of one run took: seconds, and the memory of the process that ran them."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
"""The unit in which the system counts resident memory."""


class StageClock:
    """Times a run's stages by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Add the time spent inside to a stage, whether or not it ends well."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


def peak_memory_bytes() -> float:
    """Return the largest resident memory of this process so far; the evaluation runs in one of its own."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES)
