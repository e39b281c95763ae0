"""Bytes done, rate and time left: one moving line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

from mergeline.support.text import size


class ProgressLine:
    """Tells how far a merge is; may be called from any thread."""

    def __init__(self, total_nbytes: int, stream: TextIO | None = None) -> None:
        """Start the clock.

        Args:
            total_nbytes: What is to be written in all.
            stream: Where the line goes, standard error by default; a terminal gets one moving line, anything else a
                line every ten seconds.
        """
        self._total, self._stream = total_nbytes, stream or sys.stderr
        self._is_moving = self._stream.isatty()
        self._interval = 0.2 if self._is_moving else 10.0
        self._done = 0
        self._started = self._told = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, nbytes: int) -> None:
        with self._lock:
            self._done += nbytes
            now = time.monotonic()
            if now - self._told >= self._interval:
                self._told = now
                self._tell(now)

    def close(self) -> None:
        """End the moving line, so that what follows starts on its own."""
        with self._lock:
            if self._is_moving and self._told > self._started:
                self._tell(time.monotonic())
                self._stream.write("\n")

    def _tell(self, now: float) -> None:
        rate = self._done / max(now - self._started, 1e-9)
        left = (self._total - self._done) / rate if rate else 0.0
        text = f"{self._done / self._total:4.0%} {size(self._done)} of {size(self._total)}, {size(int(rate))}/s, "
        text += f"{left:.0f} s left"
        self._stream.write(f"\r{text:<70}" if self._is_moving else f"{text}\n")
        self._stream.flush()
