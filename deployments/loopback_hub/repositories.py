"""Repositories on disk: settings, refs and commits, each a JSON file; a commit holds its whole file table."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments.loopback_hub.contents import Contents, write_file
from deployments.loopback_hub.messages import Refusal

KINDS = ("models", "datasets")
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True)
class StoredFile:
    """One file of a commit."""

    size: int
    """Length in bytes."""
    oid: str
    """git object id of the file or, for a large file, of its LFS pointer."""
    sha256: str | None = None
    """Digest of a large file; None for one that git holds itself."""
    xet_hash: str | None = None
    """Name of a large file in the Xet store, if it came through Xet."""


@dataclass(frozen=True)
class Commit:
    """A commit with its whole table of files."""

    sha: str
    """40 hex digits."""
    parent: str | None
    """The commit before; None for the first."""
    title: str
    """First line of the message."""
    description: str
    """The rest of the message."""
    author: str
    """User name."""
    date: str
    """When it was made, ISO 8601, UTC."""
    files: Mapping[str, StoredFile]
    """Every file, by path, not only what changed."""


@dataclass
class RepositoryState:
    """A repository's settings and refs: all of it that may change."""

    private: bool
    """Whether only members of its namespace may see it."""
    created: str
    """When it was created, ISO 8601, UTC."""
    gated: str | bool = False
    """False, ``auto`` or ``manual``, as the Hub says it."""
    refs: dict[str, str] = field(default_factory=dict)
    """Full ref name, e.g. ``refs/heads/main`` -> commit."""


def utc_now() -> str:
    """Return the present time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class Repository:
    """A repository in its folder; every call reads the disk."""

    def __init__(self, kind: str, repository_id: str, folder: Path, lock: threading.RLock) -> None:
        self.kind, self.id, self.folder, self._lock = kind, repository_id, folder, lock

    @property
    def namespace(self) -> str:
        """The user or organisation it belongs to."""
        return self.id.partition("/")[0]

    @property
    def exists(self) -> bool:
        """Whether it was created and not deleted."""
        return (self.folder / "repository.json").exists()

    def state(self) -> RepositoryState:
        """Read settings and refs."""
        try:
            content = json.loads((self.folder / "repository.json").read_text())
        except FileNotFoundError:
            raise Refusal(404, "Repository not found", "RepoNotFound") from None
        # Folders of earlier versions have more fields.
        return RepositoryState(**{name: content[name] for name in ("private", "created", "gated", "refs")})

    @contextmanager
    def changing(self) -> Generator[RepositoryState]:
        """Yield settings and refs for changes, alone; they are saved unless the block raises."""
        with self._lock:
            state = self.state()
            yield state
            self.save(state)

    def save(self, state: RepositoryState) -> None:
        """Write settings and refs."""
        write_file(self.folder / "repository.json", json.dumps(asdict(state), indent=1).encode())

    def resolve(self, revision: str) -> str:
        """Return the sha of a branch, tag, full ref or (shortened) commit."""
        refs = self.state().refs
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in refs:
                return refs[ref]
        if _COMMIT.fullmatch(revision):
            for path in (self.folder / "commits").glob(f"{revision}*.json"):
                return path.stem
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(self, revision: str) -> Commit:
        """Read the commit that ``revision`` names."""
        sha = self.resolve(revision)
        fields = json.loads((self.folder / "commits" / f"{sha}.json").read_text())
        files = {path: StoredFile(**file) for path, file in fields.pop("files").items()}
        return Commit(sha=sha, **fields, files=files)

    def history(self, revision: str) -> Iterator[Commit]:
        """Yield the commit that ``revision`` names and all before it, newest first."""
        sha: str | None = revision
        while sha is not None:
            commit = self.commit(sha)
            yield commit
            sha = commit.parent

    def add_commit(self, parent: str | None, files: Mapping[str, StoredFile], message: Mapping[str, str]) -> str:
        """Write a commit that no ref names yet and return its sha; ``message`` has title, description and author."""
        fields: dict[str, Any] = {
            "parent": parent,
            "title": message["title"],
            "description": message.get("description", ""),
            "author": message["author"],
            "date": utc_now(),
            "files": {path: asdict(files[path]) for path in sorted(files)},
        }
        # Two equal commits within one second are still two commits.
        sha = hashlib.sha1(json.dumps([self.kind, self.id, time.time_ns(), fields]).encode()).hexdigest()
        write_file(self.folder / "commits" / f"{sha}.json", json.dumps(fields).encode())
        return sha


class Repositories:
    """All repositories under ``root``."""

    def __init__(self, root: Path, contents: Contents) -> None:
        self._root, self._contents, self._lock = root / "repositories", contents, threading.RLock()

    def find(self, kind: str, repository_id: str) -> Repository:
        """Return the repository, whether or not it exists."""
        if kind not in KINDS or not _ID.fullmatch(repository_id):
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return Repository(kind, repository_id, self._root / kind / repository_id, self._lock)

    def of_kind(self, kind: str) -> list[Repository]:
        """Return all models or datasets in the order of their names."""
        folders = sorted(path.parent for path in (self._root / kind).glob("*/*/repository.json"))
        return [self.find(kind, f"{folder.parent.name}/{folder.name}") for folder in folders]

    def create(self, kind: str, repository_id: str, author: str, private: bool, gitattributes: bytes) -> Repository:
        """Create a repository with the Hub's own first commit; 409 if there is one."""
        if kind not in KINDS or not _ID.fullmatch(repository_id):
            raise Refusal(400, f"Not a name for a repository: {kind}/{repository_id}")
        repository = self.find(kind, repository_id)
        with self._lock:
            if repository.exists:
                raise Refusal(409, f"You already created this {kind[:-1]} repo: {repository_id}")
            first = {".gitattributes": StoredFile(len(gitattributes), self._contents.add_blob(gitattributes))}
            sha = repository.add_commit(None, first, {"title": "initial commit", "author": author})
            repository.save(RepositoryState(private, utc_now(), refs={"refs/heads/main": sha}))
        return repository
