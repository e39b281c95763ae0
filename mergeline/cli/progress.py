"""Bytes done, rate and time left: one moving line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 10.0
"""A log gets a line every so often."""


class _Lines:
    """Gives a log each state of a moving line as a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def progress_line(total_nbytes: int, stream: TextIO | None = None) -> Generator[Callable[[int], object]]:
    """Show how many of ``total_nbytes`` are written; give a function that takes bytes just written, in any thread.

    Args:
        total_nbytes: What is to be written in all.
        stream: Standard error by default; a terminal gets a moving line, anything else a line every ten seconds.
    """
    from tqdm import tqdm

    shown = stream if stream is not None else sys.stderr
    is_terminal = shown.isatty()
    with tqdm(
        total=total_nbytes,
        unit="B",
        unit_scale=True,
        file=shown if is_terminal else _Lines(shown),
        mininterval=_TERMINAL_SECONDS if is_terminal else _LOG_SECONDS,
        maxinterval=_LOG_SECONDS,
        delay=0 if is_terminal else _LOG_SECONDS,
    ) as line:
        yield line.update
