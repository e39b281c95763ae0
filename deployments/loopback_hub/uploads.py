"""Routes for large files: the LFS batch call, whole and multipart uploads, and downloads from the cdn origin."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.site import Site

_LFS_JSON = {"Content-Type": "application/vnd.git-lfs+json"}


def batch(site: Site, request: Request, kind: str, repository: str) -> Answer:
    """Answer, object by object, where to upload or download it; one without ``actions`` is there already."""
    wish = request.json()
    is_upload = wish.get("operation") == "upload"
    site.signed_in(request) if is_upload else None
    (site.readable if is_upload else site.downloadable)(request, kind, repository)
    objects = []
    for wanted in wish.get("objects", []):
        sha256, size = wanted["oid"], wanted["size"]
        answer: dict[str, Any] = {"oid": sha256, "size": size}
        is_present = site.contents.lfs(sha256).exists()
        if is_upload and not is_present:
            answer["actions"] = {"upload": _upload_action(site, sha256, size, wish.get("transfers") or [])}
        elif not is_upload and is_present:
            answer["actions"] = {"download": {"href": f"{site.cdn_endpoint}/lfs/{sha256}"}}
        elif not is_upload:
            answer["error"] = {"code": 404, "message": "Object does not exist"}
        objects.append(answer)
    return Answer.of_json({"transfer": "basic", "objects": objects}, headers=_LFS_JSON)


def complete_multipart(site: Site, request: Request, sha256: str) -> Answer:
    """Join the parts; like a presigned address this asks for no token, and the digest guards it."""
    parts = request.json().get("parts", [])
    site.contents.join_parts(sha256, [int(part["partNumber"]) for part in parts])
    return Answer.of_json({})


def put_object(site: Site, request: Request, sha256: str) -> Answer:
    """Receive a whole large file."""
    site.contents.receive_lfs(request, sha256)
    return Answer(headers={"ETag": f'"{sha256}"'})


def put_part(site: Site, request: Request, sha256: str, number: str) -> Answer:
    """Receive one part of a large file."""
    site.contents.lfs(sha256)
    return Answer(headers={"ETag": f'"{site.contents.receive_part(request, sha256, int(number)).sha256}"'})


def get_object(site: Site, request: Request, sha256: str) -> Answer:
    """Send a large file, or the part of it that ``Range`` names."""
    path = site.contents.lfs(sha256)
    if not path.exists():
        raise Refusal(404, "NoSuchKey")
    headers = {"ETag": f'"{sha256}"'}
    if name := request.query.get("filename", "").rpartition("/")[2]:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
    return Answer.of_file(path, request, headers)


def get_xorb(site: Site, request: Request, xorb: str) -> Answer:
    """Send a piece of the Xet store."""
    if site.xet is None or not site.xet.xorb(xorb).exists():
        raise Refusal(404, "NoSuchKey")
    return Answer.of_file(site.xet.xorb(xorb), request)


def _upload_action(site: Site, sha256: str, size: int, transfers: list[str]) -> dict[str, Any]:
    part_bytes = site.multipart_bytes
    if part_bytes is None or size <= part_bytes or "multipart" not in transfers:
        return {"href": f"{site.cdn_endpoint}/upload/{sha256}"}
    count = -(-size // part_bytes)
    parts = {str(number): f"{site.cdn_endpoint}/upload/{sha256}/{number}" for number in range(1, count + 1)}
    href = f"{site.endpoint}/api/complete_multipart/{sha256}"
    return {"href": href, "header": {"chunk_size": str(part_bytes), **parts}}
