"""What went into a model: the identity of a merge and the manifest that travels with it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

MANIFEST_NAME = "mergeline_manifest.json"
"""Written last into a model directory: its presence means the directory is complete."""

NUMERICS_VERSION = 1
"""Raised whenever the same plan would give other bytes, so that no stale shard is ever reused."""


@dataclass(frozen=True)
class FileRecord:
    """One file by name, size and content."""

    name: str
    nbytes: int
    sha256: str | None
    """Hex; None where only the header was read (a local source before its bytes were hashed)."""


@dataclass(frozen=True)
class SourceRecord:
    """One checkpoint that a merge reads, without any path of one machine."""

    label: str
    """As the recipe names it: a Hub id, or the local path given."""
    repo_id: str | None
    """Hub id, or None for a local directory."""
    commit: str | None
    """40-hex commit on the Hub, or None for a local directory."""
    license: str | None
    """As the source's model card declares it."""
    files: tuple[FileRecord, ...]
    """Its weight files."""
    fingerprint: str
    """sha256 over what identifies the weights before they are read: commit and file hashes on the Hub;
    names, sizes, headers and modification times of a local directory."""


@dataclass(frozen=True)
class Manifest:
    """Everything needed to say, a year later, what a model is made of; see :data:`MANIFEST_NAME`."""

    plan_digest: str
    merge_method: str
    recipe: dict[str, Any]
    """The normalised recipe; its text as written is ``mergekit_config.yml`` beside this file."""
    sources: tuple[SourceRecord, ...]
    shards: tuple[FileRecord, ...]
    other_files: tuple[FileRecord, ...]
    """config.json, tokenizer files and whatever else makes the directory a model."""
    parameter_count: int
    notes: tuple[str, ...]
    """What was decided where the recipe was silent, in sentences."""
    engine_version: str
    numerics_version: int
    versions: dict[str, str]
    """python, torch, safetensors."""
    created_at: str
    """UTC, ISO 8601, seconds."""
    links: dict[str, str] = field(default_factory=dict[str, str])
    """Other records of the same merge, e.g. ``prefect_flow_run_id``."""


def canonical_json(value: object) -> str:
    """Render ``value`` (records, mappings, sequences, scalars) so that equal values give equal text."""

    def plain(item: object) -> object:
        if is_dataclass(item) and not isinstance(item, type):
            return asdict(item)
        raise TypeError(f"{type(item).__name__} has no canonical JSON form")

    return json.dumps(value, default=plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """Return the sha256, in hex, of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256, in hex, of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
