"""The Hugging Face Hub, or a server that speaks its protocol."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mergeline.errors import RepositoryError, TransientHubError
from mergeline.sources.hub_commits import HubCommits, StagedFiles
from mergeline.sources.hub_connection import authorization, timeout_seconds
from mergeline.sources.hub_transport import require_commit
from mergeline.sources.ranged_read import read_range
from mergeline.sources.repository import (
    CommitRecord,
    PinnedRepository,
    RemoteFile,
    RepositoryKind,
    Upload,
    declared_license,
)
from mergeline.sources.snapshot import fetch_intact, require_inside
from mergeline.sources.xet import xet_or_lfs

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo

__all__ = ["SMALL_FILE_BYTES", "CommitRecord", "Hub", "PinnedRepository", "RemoteFile", "StagedFiles", "Upload"]

SMALL_FILE_BYTES = 32_000_000
"""Limit of ``read_file``, which returns a file as bytes; larger ones are downloaded or read by range."""


class Hub(HubCommits):
    """The Hub's repositories, pinned to a commit: their files are read, downloaded and committed."""

    def whoami(self) -> str:
        """Return the name of the user who owns the token; RepositoryError without one."""

        def ask() -> str:
            account: dict[str, Any] = self.api().whoami()
            return str(account["name"])

        return self.attempt(ask, "your account")

    def resolve(self, repo_id: str, revision: str | None = None, kind: RepositoryKind = "model") -> PinnedRepository:
        """Return the commit that a branch, tag or commit (None: the main branch) names now, with its files.

        Raises:
            RepositoryError: The repository or revision does not exist or may not be read.
            TransientHubError: The Hub could not be reached or failed, several times.
        """
        info = self.attempt(lambda: self._info(repo_id, revision, kind), repo_id, revision)
        commit = require_commit(info.sha, f"{self.url} for {repo_id}@{revision or 'main'}")
        files = self.attempt(lambda: self._listing(repo_id, commit, kind), repo_id, revision, attempts=1)
        return PinnedRepository(
            repo_id=repo_id,
            commit=commit,
            kind=kind,
            license=declared_license(info.card_data or {}),
            is_gated=bool(info.gated),
            files=tuple(sorted(files, key=lambda file: file.path)),
            is_private=bool(info.private),
        )

    def read_file(self, repository: PinnedRepository, path: str) -> bytes:
        """Return a small file's content, checked against the size and sha256 the Hub declares.

        Raises:
            RepositoryError: There is no such file, or it is larger than :data:`SMALL_FILE_BYTES`.
        """
        file = repository.file(path)
        if file.nbytes > SMALL_FILE_BYTES:
            raise RepositoryError(
                f"{repository.repo_id}: {path} has {file.nbytes:,} bytes, expected at most {SMALL_FILE_BYTES:,}; "
                "download it instead."
            )
        address = self.file_url(repository.repo_id, path, repository.commit, repository.kind)

        def fetch() -> bytes:
            from huggingface_hub.utils import get_session, hf_raise_for_status

            response = get_session().get(address, headers=authorization(), timeout=timeout_seconds())
            hf_raise_for_status(response)
            content = response.content
            if len(content) != file.nbytes or file.sha256 not in (None, hashlib.sha256(content).hexdigest()):
                raise TransientHubError(f"{repository.repo_id}: {path} arrived damaged; run again to fetch it anew.")
            return content

        return self.attempt(fetch, repository.repo_id, repository.commit)

    def read_range(self, repository: PinnedRepository, path: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop`` (exclusive) of a file, continuing where a cut connection left off.

        Nothing compares them with the file's sha256, which takes the whole file. HubError if the server ignores ranges.
        """
        file = repository.file(path)
        if not 0 <= start <= stop <= file.nbytes:
            raise RepositoryError(
                f"{repository.repo_id}: {path} has {file.nbytes:,} bytes; bytes {start} to {stop} were asked of it."
            )
        url = self.file_url(repository.repo_id, path, repository.commit, repository.kind)
        received = bytearray()
        return self.attempt(
            lambda: read_range(received, url, start, stop, file.nbytes),
            repository.repo_id,
            repository.commit,
        )

    def download(self, repository: PinnedRepository, paths: Sequence[str], cache_dir: Path | None = None) -> Path:
        """Download the named files, and no others, into the Hugging Face cache; return the snapshot's directory.

        Every file is compared with the Hub's size and sha256 once; a damaged one is fetched once more. Files in the
        cache cost no request.

        Args:
            repository: Where from.
            paths: At least one path inside the repository.
            cache_dir: Cache to use; None: huggingface_hub's own.

        Raises:
            HubError: A file arrived damaged twice.
        """
        return fetch_intact(
            lambda: self._snapshot(repository, paths, cache_dir),
            [repository.file(path) for path in paths],
            source=f"{repository.repo_id} at {self.url}",
        )

    def _info(self, repo_id: str, revision: str | None, kind: RepositoryKind) -> ModelInfo | DatasetInfo:
        ask = self.api().dataset_info if kind == "dataset" else self.api().model_info
        return ask(repo_id, revision=revision, timeout=timeout_seconds())

    def _listing(self, repo_id: str, commit: str, kind: RepositoryKind) -> list[RemoteFile]:
        from huggingface_hub.hf_api import RepoFile

        entries = self.api().list_repo_tree(repo_id, revision=commit, repo_type=kind, recursive=True)
        files = [entry for entry in entries if isinstance(entry, RepoFile)]
        return [RemoteFile(file.path, file.size, file.lfs.sha256 if file.lfs else None) for file in files]

    def _snapshot(self, repository: PinnedRepository, paths: Sequence[str], cache_dir: Path | None) -> Path:
        from huggingface_hub import constants, try_to_load_from_cache
        from huggingface_hub.file_download import repo_folder_name

        repo_id, commit, kind = repository.repo_id, repository.commit, repository.kind
        cached = [
            try_to_load_from_cache(repo_id, path, cache_dir=cache_dir, revision=commit, repo_type=kind)
            for path in paths
        ]
        if isinstance(cached[0], str) and all(isinstance(path, str) for path in cached):
            return Path(cached[0]).parents[len(PurePosixPath(paths[0]).parts) - 1]

        folder = Path(cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type=kind)
        require_inside(folder / "snapshots" / commit, paths)

        def fetch() -> Path:
            directory = self.api().snapshot_download(
                repo_id,
                repo_type=kind,
                revision=commit,
                allow_patterns=[glob.escape(path) for path in paths],
                cache_dir=cache_dir,
            )
            return Path(directory)

        with xet_or_lfs(self, repo_id, commit, kind, "read"):
            return self.attempt(fetch, repo_id, commit)
