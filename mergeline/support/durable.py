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
def exclusive(path: Path, doing: str, *, is_waiting: bool = False) -> Generator[None]:
    """Hold a lock file alone while inside; the kernel frees it when the process ends in any way.

    Whoever holds it alone may remove the file together with the work it stands for.

    Args:
        path: The lock file; made if need be.
        doing: What its holder does, for the message.
        is_waiting: Whether to wait for other holders, however long it takes.

    Raises:
        OutputError: If another process holds it and this one does not wait; if its folder is gone; or if the file
            system keeps no locks.
    """
    with _held(path, fcntl.LOCK_EX | (0 if is_waiting else fcntl.LOCK_NB), doing):
        yield


@contextmanager
def shared(path: Path) -> Generator[None]:
    """Hold a lock file together with others, waiting for whoever holds it alone; otherwise as :func:`exclusive`."""
    with _held(path, fcntl.LOCK_SH, ""):
        yield


def is_held(path: Path) -> bool:
    """Return whether a process, on this or another machine, holds a lock file."""
    if not path.exists():
        return False
    try:
        with _held(path, fcntl.LOCK_SH | fcntl.LOCK_NB, ""):
            return False
    except OutputError:
        return True


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


@contextmanager
def _held(path: Path, operation: int, doing: str) -> Generator[None]:
    while True:
        descriptor = _opened(path)
        try:
            _lock(descriptor, operation, path, doing)
            # A file that its last holder has removed keeps nobody out.
            if _is_at(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        raise OutputError(f"{path.parent}: is gone; another process has finished or removed it: run again.") from None


def _lock(descriptor: int, operation: int, path: Path, doing: str) -> None:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        raise OutputError(f"{path.parent}: another process is {doing}; wait for it or end it.") from None
    except OSError as problem:
        raise OutputError(
            f"{path.parent}: no file can be locked here ({problem.strerror}); choose another place, or mount this one "
            "with locks."
        ) from None


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
