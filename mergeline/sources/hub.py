"""The Hugging Face Hub, or a server that speaks its protocol; the only user of huggingface_hub."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import glob
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

from mergeline import __version__
from mergeline.errors import RepositoryError, TransientHubError
from mergeline.sources import hub_failures
from mergeline.sources.hub_transport import guarded, require_commit
from mergeline.sources.ranged_read import read_range
from mergeline.sources.repository import (
    CommitRecord,
    PinnedRepository,
    RemoteFile,
    RepositoryKind,
    Upload,
    declared_license,
    require_safe_path,
)
from mergeline.sources.snapshot import fetch_intact, require_inside

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo
    from huggingface_hub.utils import httpx

__all__ = ["SMALL_FILE_BYTES", "CommitRecord", "Hub", "PinnedRepository", "RemoteFile", "StagedFiles", "Upload"]

logger = logging.getLogger(__name__)

SMALL_FILE_BYTES = 32_000_000
"""``read_file`` holds a file in memory; anything larger is downloaded or read by range."""

_T = TypeVar("_T")

_xet_endpoints: dict[tuple[str, str], bool] = {}
"""(Hub, ``read`` or ``write``) -> whether it has Xet storage; asked once per process."""
_xet_switch = threading.Lock()
_transfers_without_xet = 0
_was_xet_disabled = False


@dataclass(frozen=True)
class StagedFiles:
    """Files whose large contents are on the Hub already, waiting for the commit that names them."""

    repo_id: str
    operations: tuple[CommitOperationAdd, ...]


@dataclass(frozen=True)
class Hub:
    """One Hub. The token is read from the environment whenever a request needs it, and is kept nowhere."""

    endpoint: str | None = None
    """Base URL; None: ``$HF_ENDPOINT``, else https://huggingface.co."""

    @property
    def url(self) -> str:
        """The base URL in force now, without a trailing slash."""
        url = (self.endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        if urlsplit(url).scheme not in ("http", "https"):
            raise RepositoryError(f"The Hub's address {url!r} is not an http(s) URL; correct HF_ENDPOINT.")
        return url

    def repository_url(self, repo_id: str, commit: str | None = None, kind: RepositoryKind = "model") -> str:
        """Return the address of a repository's page, at ``commit`` where one is given."""
        page = f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        return f"{page}/tree/{commit}" if commit else page

    def file_url(self, repo_id: str, path: str, commit: str | None = None, kind: RepositoryKind = "model") -> str:
        """Return the address that serves a file's content, at ``commit`` or on the main branch."""
        require_safe_path(path, repo_id)
        return f"{self.repository_url(repo_id, kind=kind)}/resolve/{commit or 'main'}/{quote(path)}"

    def whoami(self) -> str:
        """Return the name of the user who owns the token; RepositoryError without one."""

        def ask() -> str:
            account: dict[str, Any] = self._api().whoami()
            return str(account["name"])

        return self._attempt(ask, "your account")

    def resolve(self, repo_id: str, revision: str | None = None, kind: RepositoryKind = "model") -> PinnedRepository:
        """Pin a branch, tag or commit (None: the main branch) to the commit it names now, with the list of its files.

        Raises:
            RepositoryError: The repository or revision does not exist or may not be read.
            TransientHubError: The Hub could not be reached or failed, several times.
        """
        info = self._attempt(lambda: self._info(repo_id, revision, kind), repo_id, revision)
        commit = require_commit(info.sha, f"{self.url} for {repo_id}@{revision or 'main'}")
        files = self._attempt(lambda: self._listing(repo_id, commit, kind), repo_id, revision, attempts=1)
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

            response = get_session().get(address, headers=_authorization(), timeout=_timeout_seconds())
            hf_raise_for_status(response)
            content = response.content
            if len(content) != file.nbytes or file.sha256 not in (None, hashlib.sha256(content).hexdigest()):
                raise TransientHubError(f"{repository.repo_id}: {path} arrived damaged; run again to fetch it anew.")
            return content

        return self._attempt(fetch, repository.repo_id, repository.commit)

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
        return self._attempt(
            lambda: read_range(received, url, start, stop, file.nbytes, _stream), repository.repo_id, repository.commit
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

    def create_repository(self, repo_id: str, *, is_private: bool, kind: RepositoryKind = "model") -> bool:
        """Create a repository unless it exists; return whether it was created."""
        from huggingface_hub.errors import HfHubHTTPError

        def create() -> bool:
            api = self._api()
            try:
                api.create_repo(repo_id, private=is_private, repo_type=kind)
            except HfHubHTTPError as error:
                if error.response.status_code == 409:
                    return False
                if error.response.status_code not in (401, 402, 403) or not api.repo_exists(repo_id, repo_type=kind):
                    raise
                return False  # a token that may write to this repository need not be allowed to create others
            return True

        return self._attempt(create, repo_id)

    def set_visibility(self, repo_id: str, *, is_private: bool, kind: RepositoryKind = "model") -> None:
        """Make a repository private or public."""
        self._attempt(lambda: self._api().update_repo_settings(repo_id, private=is_private, repo_type=kind), repo_id)

    def commits(self, repo_id: str, revision: str = "main", kind: RepositoryKind = "model") -> tuple[CommitRecord, ...]:
        """Return a branch's history, newest first."""
        history = self._attempt(
            lambda: self._api().list_repo_commits(repo_id, revision=revision, repo_type=kind),
            repo_id,
            revision,
            attempts=1,  # the library tries again by itself
        )
        place = f"The history of {repo_id} at {self.url}"
        return tuple(
            CommitRecord(require_commit(commit.commit_id, place), commit.title, commit.message) for commit in history
        )

    def stage(self, repo_id: str, uploads: Sequence[Upload], kind: RepositoryKind = "model") -> StagedFiles:
        """Upload what is large, in parallel; nothing is visible before :meth:`commit`."""
        from huggingface_hub import CommitOperationAdd

        operations: list[CommitOperationAdd] = []
        for upload in uploads:
            require_safe_path(upload.path, repo_id)
            operation = CommitOperationAdd(upload.path, upload.content)
            operation.upload_info.sha256 = bytes.fromhex(upload.sha256)
            operations.append(operation)

        def send() -> None:
            self._api().preupload_lfs_files(repo_id, operations, repo_type=kind, free_memory=False)

        with self._transport(repo_id, "main", kind, "write"):
            self._attempt(send, repo_id, attempts=1)  # the library tries each part of it again by itself
        return StagedFiles(repo_id, tuple(operations))

    def commit(
        self,
        staged: StagedFiles,
        deletions: Sequence[str] = (),
        *,
        parent: str,
        title: str,
        description: str,
        kind: RepositoryKind = "model",
    ) -> str | None:
        """Commit staged files and deletions to the main branch at once, or not at all.

        Asked of the Hub once only: after a TransientHubError the commit may exist, so look at :meth:`commits` first.

        Returns:
            The new commit, or None if the branch has moved past ``parent``.
        """
        from huggingface_hub import CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError

        operations = [*staged.operations, *(CommitOperationDelete(path, is_folder=False) for path in deletions)]

        def send() -> str | None:
            try:
                made = self._api().create_commit(
                    staged.repo_id,
                    operations,
                    commit_message=title,
                    commit_description=description,
                    parent_commit=parent,
                    repo_type=kind,
                )
            except HfHubHTTPError as error:
                if error.response.status_code == 412:
                    return None
                raise
            return require_commit(made.oid, f"{self.url}, after a commit to {staged.repo_id},")

        return self._attempt(send, staged.repo_id, attempts=1)

    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.url, library_name="mergeline", library_version=__version__)

    def _attempt(
        self, call: Callable[[], _T], repo_id: str, revision: str | None = None, attempts: int = hub_failures.ATTEMPTS
    ) -> _T:
        hub_failures.keep_signatures_out_of_logs()
        with guarded(self.url):
            return hub_failures.attempt(
                call,
                lambda error: hub_failures.explain(error, hub_url=self.url, repo_id=repo_id, revision=revision),
                attempts,
            )

    def _info(self, repo_id: str, revision: str | None, kind: RepositoryKind) -> ModelInfo | DatasetInfo:
        ask = self._api().dataset_info if kind == "dataset" else self._api().model_info
        return ask(repo_id, revision=revision, timeout=_timeout_seconds())

    def _listing(self, repo_id: str, commit: str, kind: RepositoryKind) -> list[RemoteFile]:
        from huggingface_hub.hf_api import RepoFile

        entries = self._api().list_repo_tree(repo_id, revision=commit, repo_type=kind, recursive=True)
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
            directory = self._api().snapshot_download(
                repo_id,
                repo_type=kind,
                revision=commit,
                allow_patterns=[glob.escape(path) for path in paths],
                cache_dir=cache_dir,
            )
            return Path(directory)

        with self._transport(repo_id, commit, kind, "read"):
            return self._attempt(fetch, repo_id, commit)

    @contextmanager
    def _transport(
        self, repo_id: str, revision: str, kind: RepositoryKind, direction: Literal["read", "write"]
    ) -> Generator[None]:
        """Transfer large files by Xet where the Hub has it, else by LFS.

        huggingface_hub takes Xet for granted since 1.0, and its uploads fail on every other Hub. The library's switch
        is one per process, so a transfer with another Hub at the same moment may go by LFS too: slower, not wrong.
        """
        global _transfers_without_xet, _was_xet_disabled
        from huggingface_hub import constants

        if self._attempt(lambda: self._has_xet(repo_id, revision, kind, direction), repo_id, revision):
            yield
            return
        with _xet_switch:
            if not _transfers_without_xet:
                _was_xet_disabled = constants.HF_HUB_DISABLE_XET
            _transfers_without_xet += 1
            constants.HF_HUB_DISABLE_XET = True
        try:
            yield
        finally:
            with _xet_switch:
                _transfers_without_xet -= 1
                if not _transfers_without_xet:
                    constants.HF_HUB_DISABLE_XET = _was_xet_disabled

    def _has_xet(self, repo_id: str, revision: str, kind: RepositoryKind, direction: Literal["read", "write"]) -> bool:
        from huggingface_hub.utils import get_session

        host = urlsplit(self.url).hostname or ""
        if host == "huggingface.co" or host.endswith(".huggingface.co"):
            return True
        known = _xet_endpoints.get((self.url, direction))
        if known is not None:
            return known
        address = f"{self.url}/api/{kind}s/{repo_id}/xet-{direction}-token/{revision}"
        response = get_session().get(address, headers=_authorization(), timeout=_timeout_seconds())
        has_xet = response.status_code == 200 and "casUrl" in response.text
        if has_xet or response.status_code in (404, 405, 501):  # anything else says nothing about the next time
            _xet_endpoints[self.url, direction] = has_xet
        logger.info("%s has %s.", self.url, "Xet storage" if has_xet else "no Xet storage: large files go by LFS")
        return has_xet


@contextmanager
def _stream(url: str, headers: dict[str, str], is_hub: bool) -> Generator[httpx.Response]:
    """Open a GET request; only the Hub itself sees the token, never the storage it redirects to."""
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = headers | _authorization() if is_hub else headers
    with get_session().stream("GET", url, headers=headers, timeout=_timeout_seconds()) as response:
        hf_raise_for_status(response)
        yield response


def _authorization() -> dict[str, str]:
    """Headers of a request to the Hub itself, with the token if there is one."""
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers(library_name="mergeline", library_version=__version__)


def _timeout_seconds() -> float:
    """Longest silence of a server; ``HF_HUB_DOWNLOAD_TIMEOUT`` in the environment raises it."""
    from huggingface_hub import constants

    return constants.HF_HUB_DOWNLOAD_TIMEOUT
