"""sha256 of files, and of records by their canonical JSON."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path

_TICK_SECONDS = 0.02
"""Kernels count times of change in steps of up to 10 ms: of two changes in one step the second does not show."""
_known: dict[tuple[int, int, int, int], str] = {}
"""Device, inode, size and time of change of a file -> sha256 of its content."""


def canonical_json(value: object) -> str:
    """Render ``value`` (dataclasses, mappings, sequences, scalars) so that equal values give equal text.

    Not by pydantic, which writes floats otherwise, NaN as null, and sets in any order: digests depend on every byte.
    """

    def plain(item: object) -> object:
        if is_dataclass(item) and not isinstance(item, type):
            return asdict(item)
        raise TypeError(f"{type(item).__name__} has no canonical JSON form")

    return json.dumps(value, default=plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """Return the sha256, in hex, of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256, in hex, of a file's content, which is read once per process for as long as it is unchanged."""
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        known = _known.get(_identity(state))
        if known is None:
            began = time.time()
            known = hashlib.file_digest(file, "sha256").hexdigest()
            if began - state.st_mtime > _TICK_SECONDS:
                _known[_identity(state)] = known
    return known


def remember_sha256(file: int, sha256: str) -> None:
    """Let :func:`file_sha256` know a digest taken while the open file was written."""
    state = os.fstat(file)
    time.sleep(max(0.0, min(_TICK_SECONDS, _TICK_SECONDS - (time.time() - state.st_mtime))))
    _known[_identity(state)] = sha256


def _identity(state: os.stat_result) -> tuple[int, int, int, int]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
