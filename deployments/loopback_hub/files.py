"""Routes that read a commit: its tree and its files."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote, urlencode

from deployments.loopback_hub.contents import lfs_pointer
from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.repositories import Commit, StoredFile
from deployments.loopback_hub.site import Site

_PAGE_ENTRIES = 1000


def tree(site: Site, request: Request, kind: str, repository: str, revision: str, path: str = "") -> Answer:
    """Answer with a page of the entries under ``path``, and a ``Link`` to the next page."""
    commit = site.readable(request, kind, repository).commit(revision)
    is_recursive = request.query.get("recursive", "").lower() in ("1", "true")
    entries = _entries_under(commit, path.strip("/"), is_recursive)
    if path.strip("/") and not entries:
        raise Refusal(404, f"{path} does not exist on {revision!r}", "EntryNotFound")
    start = int(request.query.get("cursor", 0))
    stop = start + _PAGE_ENTRIES
    headers = {}
    if stop < len(entries):
        query = urlencode(request.query | {"cursor": str(stop)})
        headers["Link"] = f'<{site.endpoint}{request.path}?{query}>; rel="next"'
    return Answer.of_json(entries[start:stop], headers=headers)


def resolve(site: Site, request: Request, kind: str, repository: str, revision: str, path: str) -> Answer:
    """Send a small file; send the client to the cdn origin for a large one.

    The redirect leads to another origin: clients that ask for metadata follow a redirect within the origin, and then
    miss ``X-Repo-Commit`` in its answer.
    """
    stored = site.downloadable(request, kind, repository)
    commit = stored.commit(revision)
    headers = {"X-Repo-Commit": commit.sha}
    file = commit.files.get(path)
    if file is None:
        raise Refusal(404, "Entry not found", "EntryNotFound", headers)
    headers["ETag"] = f'"{file.oid}"'
    if file.sha256 is None:
        # Always plain text, so that no file runs in a browser.
        headers |= {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
        return Answer.of_file(site.contents.blob(file.oid), request, headers)
    headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.sha256}"'}
    if file.xet_hash and site.xet:
        token_url = f"{site.endpoint}/api/{stored.kind}/{stored.id}/xet-read-token/{commit.sha}"
        headers |= {"X-Xet-Hash": file.xet_hash, "Link": f'<{token_url}>; rel="xet-auth"'}
    location = f"{site.cdn_endpoint}/lfs/{file.sha256}?filename={quote(path)}"
    return Answer(302, headers=headers | {"Location": location})


def _entries_under(commit: Commit, folder: str, is_recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    folders: set[str] = set()
    files: list[dict[str, Any]] = []
    for path, file in commit.files.items():
        if not path.startswith(prefix):
            continue
        parents = path.removeprefix(prefix).split("/")[:-1]
        depth = len(parents) if is_recursive else min(1, len(parents))
        folders |= {prefix + "/".join(parents[: level + 1]) for level in range(depth)}
        if is_recursive or not parents:
            files.append(_file_entry(path, file))
    return [_folder_entry(path) for path in sorted(folders)] + files


def _file_entry(path: str, file: StoredFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": file.size, "oid": file.oid}
    if file.sha256:
        pointer = len(lfs_pointer(file.sha256, file.size))
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": pointer}
    if file.xet_hash:
        entry["xetHash"] = file.xet_hash
    return entry


def _folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
