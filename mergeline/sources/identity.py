"""The identity of a checkpoint: its files, its commit, and a fingerprint of both."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FileDigest:
    """A file by name, size and sha256."""

    name: str
    nbytes: int
    sha256: str | None
    """Hex; None for a local source of which only the header was read."""


@dataclass(frozen=True)
class SourceIdentity:
    """A checkpoint that a merge reads, without any local path."""

    label: str
    """As the recipe names it: a Hub id, or the local path given."""
    repo_id: str | None
    """Hub id, or None for a local directory."""
    commit: str | None
    """40-hex commit on the Hub, or None for a local directory."""
    license: str | None
    """As the source's model card declares it."""
    files: tuple[FileDigest, ...]
    """Its weight files."""
    fingerprint: str
    """sha256 over what identifies the weights before they are read: commit and file hashes on the Hub;
    names, sizes, headers and modification times of a local directory."""
