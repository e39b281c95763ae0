"""What changes a Hub: new repositories, their visibility, and atomic commits."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergeline.sources.hub_connection import HubConnection
from mergeline.sources.hub_transport import require_commit
from mergeline.sources.repository import CommitRecord, RepositoryKind, Upload, require_safe_path
from mergeline.sources.xet import xet_or_lfs

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


@dataclass(frozen=True)
class StagedFiles:
    """Files ready to be committed; the contents of large ones are uploaded already."""

    repo_id: str
    operations: tuple[CommitOperationAdd, ...]


class HubCommits(HubConnection):
    """The history of a Hub's repositories, and what adds to it."""

    def create_repository(self, repo_id: str, *, is_private: bool, kind: RepositoryKind = "model") -> bool:
        """Create a repository unless it exists; return whether it was created."""
        from huggingface_hub.errors import HfHubHTTPError

        def create() -> bool:
            api = self.api()
            try:
                api.create_repo(repo_id, private=is_private, repo_type=kind)
            except HfHubHTTPError as error:
                if error.response.status_code == 409:
                    return False
                if error.response.status_code not in (401, 402, 403) or not api.repo_exists(repo_id, repo_type=kind):
                    raise
                return False  # a token that may write to this repository need not be allowed to create others
            return True

        return self.attempt(create, repo_id)

    def set_visibility(self, repo_id: str, *, is_private: bool, kind: RepositoryKind = "model") -> None:
        """Make a repository private or public."""
        self.attempt(lambda: self.api().update_repo_settings(repo_id, private=is_private, repo_type=kind), repo_id)

    def commits(self, repo_id: str, revision: str = "main", kind: RepositoryKind = "model") -> tuple[CommitRecord, ...]:
        """Return a branch's history, newest first."""
        history = self.attempt(
            lambda: self.api().list_repo_commits(repo_id, revision=revision, repo_type=kind),
            repo_id,
            revision,
            attempts=1,  # the library tries again by itself
        )
        place = f"The history of {repo_id} at {self.url}"
        return tuple(
            CommitRecord(require_commit(commit.commit_id, place), commit.title, commit.message) for commit in history
        )

    def stage(self, repo_id: str, uploads: Sequence[Upload], kind: RepositoryKind = "model") -> StagedFiles:
        """Upload large files in parallel; nothing is visible before :meth:`commit`."""
        from huggingface_hub import CommitOperationAdd

        operations: list[CommitOperationAdd] = []
        for upload in uploads:
            require_safe_path(upload.path, repo_id)
            operation = CommitOperationAdd(upload.path, upload.content)
            operation.upload_info.sha256 = bytes.fromhex(upload.sha256)
            operations.append(operation)

        def send() -> None:
            self.api().preupload_lfs_files(repo_id, operations, repo_type=kind, free_memory=False)

        with xet_or_lfs(self, repo_id, "main", kind, "write"):
            self.attempt(send, repo_id, attempts=1)  # the library tries each part of it again by itself
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
        """Commit staged files and deletions to the main branch in one commit.

        The request is sent once: after a TransientHubError the commit may exist, so look at :meth:`commits` first.

        Returns:
            The new commit, or None if the branch has moved past ``parent``.
        """
        from huggingface_hub import CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError

        operations = [*staged.operations, *(CommitOperationDelete(path, is_folder=False) for path in deletions)]

        def send() -> str | None:
            try:
                commit = self.api().create_commit(
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
            return require_commit(commit.oid, f"{self.url}, after a commit to {staged.repo_id},")

        return self.attempt(send, staged.repo_id, attempts=1)
