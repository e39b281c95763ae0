"""Publish a finished model directory on the Hub in one commit; the same contents are never committed twice."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mergeline import __version__
from mergeline.errors import HubError, OutputError, VerificationError
from mergeline.merge.manifest import MANIFEST_NAME
from mergeline.sources import hub_failures
from mergeline.sources.hub import Hub, PinnedRepository, Upload
from mergeline.support.digests import digest, file_sha256
from mergeline.support.secrets import holds_secret, is_secret_file

logger = logging.getLogger(__name__)

_WEIGHTS = (".safetensors", ".safetensors.index.json")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")


@dataclass(frozen=True)
class Publication:
    """A model on the Hub."""

    repo_id: str
    """With its owner."""
    commit: str
    """40 hexadecimal digits."""
    url: str
    """The repository's page at that commit."""
    was_already_published: bool
    """Whether the commit was there already, from an earlier call or an attempt of this call whose answer was lost."""


def publish_directory(
    directory: Path,
    repo_id: str,
    *,
    hub: Hub,
    plan_digest: str,
    private: bool = True,
    message: str | None = None,
    extra_files: Mapping[str, bytes] = MappingProxyType({}),
) -> Publication:
    """Commit a finished model directory to the main branch of a Hub repository, which is created if need be.

    The commit's description names the plan and the digest of all contents. If the last publication on the branch has
    the same contents, nothing is committed; commits that others made on top of it stay. Files of an earlier
    publication that this one lacks are deleted in the same commit.

    Args:
        directory: What a merge wrote; hidden files are left out.
        repo_id: ``owner/name``, or ``name`` for the token's own user.
        hub: The Hub to publish on.
        plan_digest: Identity of the merge.
        private: Whether a new repository is private. An existing public one stays public; an existing private one is
            made public by False.
        message: First line of the commit.
        extra_files: Path in the repository -> content, beside the directory's files or in their place.

    Raises:
        OutputError: The directory is incomplete, or holds something that must not be published.
        VerificationError: A shard differs from what the manifest says.
        RepositoryError: The token may not write there.
        HubError: Somebody else committed in between, or the Hub failed.
    """
    uploads = _uploads(directory, extra_files)
    content_digest = digest({upload.path: upload.sha256 for upload in uploads})
    if "/" not in repo_id:
        repo_id = f"{hub.whoami()}/{repo_id}"
    hub.create_repository(repo_id, is_private=private)
    commit = _published_commit(hub, repo_id, content_digest)
    was_already_published = commit is not None
    if commit is None:
        title = message or f"Publish a merge made by Mergeline {__version__}"
        description = f"mergeline-plan: {plan_digest}\nmergeline-content: {content_digest}"
        commit, was_already_published = _commit(hub, repo_id, uploads, content_digest, title, description)
    _settle_visibility(hub, hub.resolve(repo_id, commit), private)
    url = hub.repository_url(repo_id, commit)
    logger.info("%s %s", "Already published:" if was_already_published else "Published", url)
    return Publication(repo_id, commit, url, was_already_published)


def _commit(
    hub: Hub, repo_id: str, uploads: Sequence[Upload], content_digest: str, title: str, description: str
) -> tuple[str, bool]:
    """Return the commit with ``uploads``, and whether it was already published; see :class:`Publication`."""
    head = hub.resolve(repo_id)
    stale = _stale_paths(hub, head, {upload.path for upload in uploads})
    staged = hub.stage(repo_id, uploads)

    def commit_unless_published() -> tuple[str, bool]:
        # An earlier attempt may have made the commit although its answer was lost.
        published = _published_commit(hub, repo_id, content_digest)
        if published is not None:
            return published, True
        made = hub.commit(staged, stale, parent=head.commit, title=title, description=description)
        if made is not None:
            return made, made == head.commit
        published = _published_commit(hub, repo_id, content_digest)
        if published is None:
            raise HubError(
                f"{repo_id} at {hub.url}: somebody else committed after {head.commit[:12]}, so nothing was committed; "
                "look at that commit, then publish again."
            )
        return published, True

    return hub_failures.attempt(commit_unless_published)


def _published_commit(hub: Hub, repo_id: str, content_digest: str) -> str | None:
    """Return the branch's last publication if it has these contents; commits that people made after it may follow."""
    for commit in hub.commits(repo_id):
        match = re.search(r"^mergeline-content: ([0-9a-f]{64})\s*$", commit.description, re.MULTILINE)
        if match is not None:
            return commit.commit if match[1] == content_digest else None
    return None


def _stale_paths(hub: Hub, head: PinnedRepository, new_paths: set[str]) -> list[str]:
    """Return the files of an earlier publication that this one lacks; files that people added stay."""
    paths = {file.path for file in head.files}
    earlier: set[str] = set()
    if MANIFEST_NAME in paths:
        with suppress(OutputError):  # a manifest that cannot be read lists no files to delete
            manifest = _read_manifest(hub.read_file(head, MANIFEST_NAME), f"{head.repo_id}/{MANIFEST_NAME}")
            earlier = {*_listed(manifest, "shards"), *_listed(manifest, "other_files")}
    earlier |= {path for path in paths if path.endswith(_WEIGHTS) and "/" not in path}
    earlier |= {path for path in paths if path.startswith("eval/")}
    return sorted((earlier & paths) - new_paths)


def _settle_visibility(hub: Hub, repository: PinnedRepository, private: bool) -> None:
    if private and not repository.is_private:
        logger.warning("%s is public already and stays public; make it private on the Hub.", repository.repo_id)
    elif not private and repository.is_private:
        hub.set_visibility(repository.repo_id, is_private=False)
        logger.info("%s is public now.", repository.repo_id)


def _uploads(directory: Path, extra_files: Mapping[str, bytes]) -> list[Upload]:
    """Check every file to be published and return them in the order of their paths."""
    manifest_path = directory / MANIFEST_NAME
    if not manifest_path.is_file():
        raise OutputError(
            f"{directory} is not a finished merge: {MANIFEST_NAME}, written last, is missing; run `mergeline merge` "
            "again and it continues where it stopped."
        )
    shards = _listed(_read_manifest(manifest_path.read_bytes(), str(manifest_path)), "shards")
    paths = {path.relative_to(directory).as_posix(): path for path in _regular_files(directory)}
    contents: dict[str, Path | bytes] = dict(sorted({**paths, **extra_files}.items()))
    problems = [
        f"{directory}/{path} {problem}; it is not published, so move it elsewhere."
        for path, content in contents.items()
        if (problem := _objection(path, content, shards))
    ]
    problems += [f"{directory}/{path} is missing; merge again." for path in shards if path not in contents]
    if problems:
        raise OutputError(problems)
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = pool.map(_sha256, contents.values())
        uploads = [Upload(path, contents[path], sha256) for path, sha256 in zip(contents, digests, strict=True)]
    for upload in uploads:
        if shards.get(upload.path) not in (None, upload.sha256):
            raise VerificationError(
                f"{directory}/{upload.path}: expected sha256 {shards[upload.path]} as in {MANIFEST_NAME}, found "
                f"{upload.sha256}; it was changed after the merge, so merge again."
            )
    return uploads


def _regular_files(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _regular_files(path)
        elif path.is_symlink() or path.is_file():
            yield path


def _objection(path: str, content: Path | bytes, shards: Mapping[str, str | None]) -> str | None:
    """Return why a file must not be published; None if it may be."""
    name = path.rpartition("/")[2].lower()
    if isinstance(content, Path) and content.is_symlink():
        root = content.parents[path.count("/")].resolve()
        if not content.resolve().is_relative_to(root) or not content.is_file():
            return "is a link that leads out of the directory"
    if is_secret_file(name):
        return "is named like a secret"
    if name.endswith(_PICKLE_SUFFIXES):
        return "is named like a pickle, which can run code when it is loaded"
    if name.endswith(".safetensors"):
        return f"is not among the shards of {MANIFEST_NAME}" if shards and path not in shards else None
    data = content if isinstance(content, bytes) else content.read_bytes()
    if re.match(rb"\x80[\x02-\x05]", data) or (data.startswith(b"PK\x03\x04") and b"data.pkl" in data[:4096]):
        return "holds a pickle, which can run code when it is loaded"
    if holds_secret(data):
        return "holds what looks like an access token or a private key"
    return None


def _sha256(content: Path | bytes) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_sha256(content)


def _read_manifest(content: bytes, where: str) -> Mapping[str, Any]:
    try:
        manifest: Any = json.loads(content)
        for key in ("shards", "other_files"):
            _listed(manifest, key)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise OutputError(f"{where} is not a manifest ({type(error).__name__}: {error}); merge again.") from None
    return manifest


def _listed(manifest: Mapping[str, Any], key: str) -> dict[str, str | None]:
    """Return name -> sha256 of the files a manifest lists under ``key``."""
    return {str(file["name"]): file.get("sha256") for file in manifest.get(key, ())}
