"""Records of a Hub repository: its files at one commit, its history, and uploads to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from mergeline.errors import RepositoryError

RepositoryKind = Literal["model", "dataset"]


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository."""

    path: str
    """Inside the repository, with forward slashes."""
    nbytes: int
    sha256: str | None
    """Hex; None for small files, which the Hub keeps in git."""


@dataclass(frozen=True)
class PinnedRepository:
    """A repository at one commit, whose content never changes."""

    repo_id: str
    commit: str
    """40 hexadecimal digits."""
    kind: RepositoryKind
    license: str | None
    """As the model card declares it; its ``license_name`` where that is ``other``."""
    is_gated: bool
    files: tuple[RemoteFile, ...]
    """In the order of their paths."""
    is_private: bool = False

    def file(self, path: str) -> RemoteFile:
        """Return the file at ``path``; RepositoryError if there is none."""
        require_safe_path(path, self.repo_id)
        for file in self.files:
            if file.path == path:
                return file
        raise RepositoryError(f"{self.repo_id}@{self.commit[:12]} has no file {path!r}; see its file list on the Hub.")


@dataclass(frozen=True)
class CommitRecord:
    """A commit in the history of a branch."""

    commit: str
    title: str
    description: str


@dataclass(frozen=True)
class Upload:
    """One file to be committed."""

    path: str
    """Inside the repository."""
    content: Path | bytes
    """A local file, or the content itself."""
    sha256: str
    """Hex, of the content; known already, so the upload need not hash it."""


def declared_license(card: Any) -> str | None:
    """Return the licence a model card's front matter (a mapping) declares.

    The ``license_name`` where that is ``other``; several joined by a comma.
    """
    declared: object = card.get("license")
    if declared == "other":
        declared = card.get("license_name") or declared
    if isinstance(declared, list):
        return ", ".join(str(item) for item in cast("list[object]", declared))
    return None if declared is None else str(declared)


def require_safe_path(path: str, repo_id: str) -> None:
    """Raise RepositoryError if ``path``, joined to a directory, could lead out of it on any system."""
    is_unsafe = {"", ".", ".."} & set(path.split("/")) or re.search(r"^[A-Za-z]:|[\\\0-\x1f]", path)
    if is_unsafe:
        raise RepositoryError(f"{repo_id}: the path {path!r} could lead out of the repository; it is refused.")
