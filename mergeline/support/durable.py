"""Files written atomically and durably, and lock files."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mergeline.errors import OutputError


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file under a temporary name, sync it, and rename it: after a crash it is complete or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Sync a directory's entries; without it, a rename may be lost when the machine stops."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, doing: str, *, is_waiting: bool = False) -> Generator[None]:
    """Hold an exclusive lock on a file; the kernel releases it when the process ends in any way.

    The holder may remove the file.

    Args:
        path: The lock file; created if it does not exist.
        doing: What the holder does, for the message to others.
        is_waiting: Whether to wait for other holders, however long it takes.

    Raises:
        OutputError: If another process holds it and this one does not wait; if its folder does not exist; or if the
            file system supports no locks.
    """
    with _locked(path, fcntl.LOCK_EX | (0 if is_waiting else fcntl.LOCK_NB), doing):
        yield


@contextmanager
def shared(path: Path) -> Generator[None]:
    """Hold a shared lock on a file, waiting while another process holds it exclusively; see :func:`exclusive`."""
    with _locked(path, fcntl.LOCK_SH, ""):
        yield


def is_held(path: Path) -> bool:
    """Whether a process, on this or another machine, holds a lock on the file."""
    if not path.exists():
        return False
    try:
        with _locked(path, fcntl.LOCK_SH | fcntl.LOCK_NB, ""):
            return False
    except OutputError:
        return True


@contextmanager
def in_turn(path: Path, patience_seconds: float, problem: Exception) -> Generator[None]:
    """Hold an exclusive lock on a file, waiting at most ``patience_seconds`` for it; then raise ``problem``."""
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
def _locked(path: Path, operation: int, doing: str) -> Generator[None]:
    while True:
        descriptor = _opened(path)
        try:
            _lock(descriptor, operation, path, doing)
            # Its last holder may have removed the file: a lock on it then excludes nobody.
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
