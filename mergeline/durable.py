"""Files that are either whole or absent, whatever happens to the process or the machine."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mergeline.errors import OutputError


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file under a temporary name, make it durable, then give it its own name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable; a rename alone may be lost when the machine stops."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, doing: str) -> Generator[None]:
    """Hold a lock file while inside; the kernel frees it when the process ends in any way.

    Raises:
        OutputError: If another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{path.parent}: another process is {doing}; wait for it or end it.") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def in_turn(path: Path, patience_seconds: float, problem: Exception) -> Generator[None]:
    """Hold a lock file while inside, waiting for whoever holds it; raise ``problem`` where that takes too long."""
    with path.open("a") as file:
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise problem from None
                time.sleep(0.05)
        yield
