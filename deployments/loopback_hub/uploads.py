"""Routes for large files: the LFS batch call, and uploads to and downloads from the cdn origin."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.site import Site

_LFS_JSON = {"Content-Type": "application/vnd.git-lfs+json"}


def batch(site: Site, request: Request, kind: str, repository: str) -> Answer:
    """Answer for every object where to upload it, or without ``actions`` if it is there already."""
    site.signed_in(request)
    site.readable(request, kind, repository)
    objects: list[dict[str, Any]] = []
    for pointer in request.json().get("objects", []):
        sha256 = pointer["oid"]
        is_present = site.contents.lfs(sha256).exists()
        actions = {} if is_present else {"actions": {"upload": {"href": f"{site.cdn_endpoint}/upload/{sha256}"}}}
        objects.append({"oid": sha256, "size": pointer["size"], **actions})
    return Answer.of_json({"transfer": "basic", "objects": objects}, headers=_LFS_JSON)


def put_object(site: Site, request: Request, sha256: str) -> Answer:
    """Receive a large file."""
    site.contents.receive_lfs(request, sha256)
    return Answer(headers={"ETag": f'"{sha256}"'})


def get_object(site: Site, request: Request, sha256: str) -> Answer:
    """Send a large file, or its ``Range``."""
    path = site.contents.lfs(sha256)
    if not path.exists():
        raise Refusal(404, "NoSuchKey")
    headers = {"ETag": f'"{sha256}"'}
    if name := request.query.get("filename", "").rpartition("/")[2]:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
    return Answer.of_file(path, request, headers)


def get_xorb(site: Site, request: Request, xorb: str) -> Answer:
    """Send a xorb, or its ``Range``."""
    if site.xet is None or not site.xet.xorb(xorb).exists():
        raise Refusal(404, "NoSuchKey")
    return Answer.of_file(site.xet.xorb(xorb), request)
