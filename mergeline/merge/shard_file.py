"""One safetensors file being written: header first, tensors at their final offsets, a journal of what is done."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter

from mergeline.support.digests import remember_sha256
from mergeline.support.durable import sync_directory

if TYPE_CHECKING:
    from _hashlib import HASH

_READ_BACK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class TensorOutcome:
    """What was done for one output tensor."""

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="constants")
    """A norm of float64 weights may be infinite, which JSON has no number for; the default, null, cannot be read."""

    name: str
    branch: str
    """Which case of the method's formula was taken."""
    coefficients: tuple[float, ...] | None
    """One per input, dimensionless; None where the result is no weighted sum of the inputs."""
    norms: tuple[float, ...]
    """Euclidean norm of every input, seen as one flat vector."""
    distances: tuple[tuple[float, ...], ...]
    """Euclidean distance of every input from every other."""
    moved: tuple[float, ...]
    """Euclidean distance of the result from every input."""


_OUTCOME = TypeAdapter(TensorOutcome)


@dataclass(frozen=True)
class Span:
    """Bytes of the file that belong to one tensor."""

    name: str
    start: int
    """Counted from the start of the file."""
    nbytes: int


class TensorWriter:
    """Writes one tensor to its place, from its first byte to its last; used by one thread."""

    def __init__(self, file: int, span: Span, sha256: HASH | None) -> None:
        """Begin at the first byte; ``sha256`` is of all bytes before it, where that is known."""
        self.span, self.sha256 = span, sha256
        self._file, self._position = file, span.start

    def write(self, data: memoryview) -> None:
        """Write the bytes that follow, and hash them while they are in the cache."""
        written = 0
        while written < len(data):
            written += os.pwrite(self._file, data[written:], self._position + written)
        self._position += written
        if self.sha256 is not None:
            self.sha256.update(data)


class ShardFile:
    """Writes one shard under a temporary name; several threads may write different tensors at once.

    A journal beside it names the tensors that are done. Opened again after an interruption, with the same key, the
    file continues from the journal; with any other key, or after the machine was restarted (what a process wrote
    survives its end, but not a power failure before it was synced), it starts anew.
    """

    def __init__(self, path: Path, key: str, header: bytes, spans: Sequence[Span]) -> None:
        """Create the file at its final size, or reopen it.

        Args:
            path: Final name.
            key: Identifies plan and shard; a journal with another key is not trusted.
            header: First bytes of the file.
            spans: Every tensor's place, end to end from the header on.
        """
        self.path = path
        self._temporary = path.with_name(f".{path.name}.partial")
        self._journal = path.with_name(f".{path.name}.journal")
        self._places = {span.name: span for span in spans}
        self.nbytes = len(header) + sum(span.nbytes for span in spans)
        self._lock = threading.Lock()
        first_line = {"key": key, "boot": _boot_id(), "nbytes": self.nbytes}
        self.outcomes = self._read_journal(first_line)
        mode = os.O_RDWR | os.O_CREAT | (0 if self.outcomes else os.O_TRUNC)
        self._file = os.open(self._temporary, mode, 0o644)
        os.ftruncate(self._file, self.nbytes)
        os.pwrite(self._file, header, 0)
        log_mode = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if self.outcomes else os.O_TRUNC)
        self._log = os.open(self._journal, log_mode, 0o644)
        if not self.outcomes:
            self._append(json.dumps(first_line).encode())
        self._sha256 = hashlib.sha256(header)
        self._hashed_nbytes = len(header)
        self._hash_lock = threading.Lock()

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        os.close(self._log)

    def begin(self, name: str) -> TensorWriter:
        """Return a writer at the tensor's first byte; calling this again overwrites the tensor."""
        span = self._places[name]
        sha256 = None
        if self._hash_lock.acquire(blocking=False):
            try:
                if self._hashed_nbytes == span.start:
                    # A copy, for the tensor may yet fail or be begun again.
                    sha256 = self._sha256.copy()
            finally:
                self._hash_lock.release()
        return TensorWriter(self._file, span, sha256)

    def finish(self, writer: TensorWriter, outcome: TensorOutcome) -> None:
        """Note in the journal that a tensor is whole."""
        with self._lock:
            self._append(_OUTCOME.dump_json(outcome))
            self.outcomes[outcome.name] = outcome
        # Hashing what others wrote can be left to whoever does it already; what was hashed on the way cannot.
        if self._hash_lock.acquire(blocking=writer.sha256 is not None):
            try:
                if writer.sha256 is not None and self._hashed_nbytes == writer.span.start:
                    self._sha256, self._hashed_nbytes = writer.sha256, writer.span.start + writer.span.nbytes
                self._hash_finished()
            finally:
                self._hash_lock.release()

    def seal(self) -> str:
        """Make the file durable under its final name and return its sha256 in hex."""
        with self._hash_lock:
            self._hash_finished()
        if self._hashed_nbytes != self.nbytes:
            raise RuntimeError(f"{self.path.name}: sealed with {self._hashed_nbytes} of {self.nbytes} bytes written")
        os.fsync(self._file)
        self._temporary.replace(self.path)
        sync_directory(self.path.parent)
        sha256 = self._sha256.hexdigest()
        remember_sha256(self._file, sha256)
        return sha256

    def forget_journal(self) -> None:
        """Remove the journal, once the shard's own record says that it is done."""
        self._journal.unlink(missing_ok=True)

    def _append(self, line: bytes) -> None:
        os.write(self._log, line + b"\n")

    def _read_journal(self, first_line: dict[str, Any]) -> dict[str, TensorOutcome]:
        if not (self._journal.exists() and self._temporary.exists()):
            return {}
        lines = self._journal.read_bytes().split(b"\n")
        # What follows the last line break was cut off while being written.
        try:
            if len(lines) < 2 or json.loads(lines[0]) != first_line:
                return {}
            outcomes = [_OUTCOME.validate_json(line) for line in lines[1:-1]]
        except ValueError:  # of another version, or damaged: nothing in it is trusted
            return {}
        if lines[-1]:
            os.truncate(self._journal, len(b"\n".join(lines[:-1])) + 1)
        return {outcome.name: outcome for outcome in outcomes}

    def _hash_finished(self) -> None:
        """Hash finished tensors that directly follow what is hashed, reading back what came out of order."""
        for span in self._places.values():
            end = span.start + span.nbytes
            if end <= self._hashed_nbytes:
                continue
            if span.name not in self.outcomes:
                return
            while self._hashed_nbytes < end:
                count = min(_READ_BACK_BYTES, end - self._hashed_nbytes)
                data = os.pread(self._file, count, self._hashed_nbytes)
                self._sha256.update(data)
                self._hashed_nbytes += len(data)


def _boot_id() -> str:
    """Return what changes when the machine restarts; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
