"""Routes of an upload: which files are large, and the commit."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from deployments.loopback_hub.cards import problem_of
from deployments.loopback_hub.contents import git_oid, lfs_pointer
from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.repositories import RepositoryState, StoredFile
from deployments.loopback_hub.site import Site

REGULAR_BYTES = 10 * 1024 * 1024
"""Larger files are large files whatever their suffix."""

# fmt: off
_LARGE_SUFFIXES = (
    ".arrow", ".bin", ".ckpt", ".gguf", ".gz", ".h5", ".model", ".msgpack", ".npy", ".npz", ".onnx", ".parquet",
    ".pkl", ".pt", ".pth", ".safetensors", ".zip",
)
# fmt: on
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _LARGE_SUFFIXES).encode()
"""Content of .gitattributes in a new repository."""

Files: TypeAlias = dict[str, StoredFile]


@dataclass(frozen=True)
class Operation:
    """A line of a commit's body after the first."""

    key: str
    """``file``, ``lfsFile`` or ``deletedFile``."""
    path: str
    """Path of the file in the repository."""
    value: dict[str, Any]
    """The line's other fields."""


def preupload(site: Site, request: Request, kind: str, repository: str, revision: str) -> Answer:
    """Answer for every file how to upload it, and with the digest of the present file: clients skip equal files."""
    site.signed_in(request)
    files = site.readable(request, kind, repository).commit(revision).files
    modes = []
    for file in request.json().get("files", []):
        is_large = _is_large(file["path"], file["size"], base64.b64decode(file.get("sample") or ""))
        mode = {"path": file["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
        if present := files.get(file["path"]):
            mode["oid"] = present.sha256 or present.oid
        modes.append(mode)
    return Answer.of_json({"files": modes})


def commit(site: Site, request: Request, kind: str, repository: str, revision: str) -> Answer:
    """Make one commit on a branch; 412 if ``parentCommit`` is not the branch's newest."""
    user, stored = site.signed_in(request), site.writable(request, kind, repository)
    message, operations = _parse(request)
    for operation in operations:
        if operation.key == "lfsFile" and site.xet:
            site.xet.materialise(str(operation.value.get("oid")), site.contents)
    with stored.changing() as state:
        parent = stored.commit(revision)
        expected = message.get("parentCommit")
        if expected and not parent.sha.startswith(expected):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(parent.files)
        for operation in operations:
            _APPLY[operation.key](site, files, operation)
        ref = _branch(state, revision)
        description = {"title": message["summary"], "description": message.get("description", ""), "author": user}
        state.refs[ref] = sha = stored.add_commit(parent.sha, files, description)
    address = f"{site.url(stored)}/commit/{sha}"
    return Answer.of_json({"success": True, "commitOid": sha, "commitUrl": address, "hookOutput": ""})


def _parse(request: Request) -> tuple[dict[str, Any], list[Operation]]:
    """Read the body: one JSON object a line, the first with the commit's message."""
    try:
        lines = [json.loads(line) for line in request.body().splitlines() if line.strip()]
        keyed = [(line["key"], line["value"]) for line in lines]
        operations = [Operation(key, _safe_path(value["path"]), value) for key, value in keyed[1:]]
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(400, f"The commit's body cannot be read: {error!r}") from error
    if not keyed or keyed[0][0] != "header" or not keyed[0][1].get("summary"):
        raise Refusal(400, "A commit begins with a header that has a summary")
    if unknown := {operation.key for operation in operations} - _APPLY.keys():
        raise Refusal(400, f"Unknown operations in the commit: {', '.join(sorted(unknown))}")
    return keyed[0][1], operations


def _safe_path(path: str) -> str:
    if not path or {"", ".", "..", ".git"} & set(path.split("/")):
        raise Refusal(400, f"Not a path for a file in a repository: {path!r}")
    return path


def _branch(state: RepositoryState, revision: str) -> str:
    for ref in (revision, f"refs/heads/{revision}"):
        if ref in state.refs and not ref.startswith("refs/tags/"):
            return ref
    raise Refusal(404, f"{revision} is not a branch; a commit needs one", "RevisionNotFound")


def _add_regular(site: Site, files: Files, operation: Operation) -> None:
    try:
        data = base64.b64decode(operation.value["content"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise Refusal(400, f"{operation.path} has no base64 content: {error!r}") from error
    # An empty file comes this way whatever its name: object stores refuse it.
    if data and _is_large(operation.path, len(data), data[:512]):
        raise Refusal(
            400, f"Your push was rejected because {operation.path} is larger than 10 MiB or binary. Use LFS or Xet."
        )
    if operation.path == "README.md" and (problem := problem_of(data.decode("utf-8", "replace"))):
        raise Refusal(400, problem)
    files[operation.path] = StoredFile(len(data), site.contents.add_blob(data))


def _add_large(site: Site, files: Files, operation: Operation) -> None:
    sha256 = str(operation.value.get("oid"))
    stored = site.contents.lfs(sha256)
    if not stored.exists():
        raise Refusal(400, f"LFS pointer of {operation.path} points to a file that does not exist: {sha256}")
    size = stored.stat().st_size
    if operation.value.get("size", size) != size:
        raise Refusal(400, f"{operation.path} has {size} bytes, not {operation.value['size']}")
    xet_hash = site.xet.hash_of(sha256) if site.xet else None
    files[operation.path] = StoredFile(size, git_oid(lfs_pointer(sha256, size)), sha256, xet_hash)


def _delete_file(site: Site, files: Files, operation: Operation) -> None:
    if files.pop(operation.path, None) is None:
        raise Refusal(404, f"A file with this name doesn't exist: {operation.path}", "EntryNotFound")


def _is_large(path: str, size: int, sample: bytes) -> bool:
    return size > REGULAR_BYTES or PurePosixPath(path).suffix in _LARGE_SUFFIXES or b"\0" in sample


_APPLY: dict[str, Callable[[Site, Files, Operation], None]] = {
    "file": _add_regular,
    "lfsFile": _add_large,
    "deletedFile": _delete_file,
}
