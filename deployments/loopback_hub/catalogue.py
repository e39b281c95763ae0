"""Routes on whole repositories: who am I, create, delete, settings, access, information, search."""

from __future__ import annotations

import hashlib
from typing import Any

from deployments.loopback_hub.cards import card_of, tags_of
from deployments.loopback_hub.commits import GITATTRIBUTES
from deployments.loopback_hub.contents import lfs_pointer
from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.repositories import KINDS, Repository, StoredFile
from deployments.loopback_hub.site import Site


def whoami(site: Site, request: Request) -> Answer:
    """Answer with the user of the token and the organisations that exist."""
    user = site.signed_in(request)
    namespaces = {repository.namespace for kind in KINDS for repository in site.repositories.of_kind(kind)}
    organisations = [
        {"type": "org", "id": name, "name": name, "fullname": name, "roleInOrg": "admin"}
        for name in sorted(namespaces - set(site.tokens.values()))
    ]
    token = {"displayName": "local", "role": "write"}
    account = {"type": "user", "id": user, "name": user, "fullname": user, "email": f"{user}@localhost"}
    return Answer.of_json(account | {"orgs": organisations, "auth": {"type": "access_token", "accessToken": token}})


def create(site: Site, request: Request) -> Answer:
    """Create a repository; 409 with its address if there is one already."""
    user, wish = site.signed_in(request), request.json()
    kind, repository_id = _named(wish, user)
    site.require_membership(user, repository_id.partition("/")[0])
    private = wish.get("visibility") == "private" or wish.get("private") is True
    try:
        repository = site.repositories.create(kind, repository_id, user, private, GITATTRIBUTES)
    except Refusal as refusal:
        if refusal.status != 409:
            raise
        url = site.url(site.repositories.find(kind, repository_id))
        body = {"error": refusal.message, "url": url, "id": repository_id}
        return Answer.of_json(body, 409, {"X-Error-Message": refusal.message})
    return Answer.of_json({"url": site.url(repository), "name": repository.id, "id": repository.id})


def delete(site: Site, request: Request) -> Answer:
    """Delete a repository."""
    kind, repository_id = _named(request.json(), site.signed_in(request))
    site.repositories.delete(site.writable(request, kind, repository_id))
    return Answer.of_json({})


def settings(site: Site, request: Request, kind: str, repository: str) -> Answer:
    """Change visibility and gate."""
    found, wish = site.writable(request, kind, repository), request.json()
    with found.changing() as record:
        if "visibility" in wish or "private" in wish:
            record.private = wish.get("visibility") == "private" or wish.get("private") is True
        if "gated" in wish:
            if wish["gated"] not in ("auto", "manual", False):
                raise Refusal(400, f"gated must be auto, manual or false, not {wish['gated']!r}")
            record.gated = wish["gated"]
    return Answer.of_json(wish)


def grant_access(site: Site, request: Request, kind: str, repository: str) -> Answer:
    """Let a user through the gate."""
    found, user = site.writable(request, kind, repository), str(request.json().get("user"))
    if user not in site.tokens.values():
        raise Refusal(404, f"User {user!r} not found")
    with found.changing() as record:
        if not record.gated:
            raise Refusal(400, f"{found.id} is not gated")
        record.granted = sorted({*record.granted, user})
    return Answer.of_json({})


def check_access(site: Site, request: Request, kind: str, repository: str) -> Answer:
    """Answer 200 if the files may be read."""
    site.downloadable(request, kind, repository)
    return Answer.of_json({})


def check_write_access(site: Site, request: Request, kind: str, repository: str) -> Answer:
    """Answer 200 if the repository may be changed."""
    site.writable(request, kind, repository)
    return Answer.of_json({})


def information(site: Site, request: Request, kind: str, repository: str, revision: str = "main") -> Answer:
    """Answer with all that the Hub knows of a repository at a revision."""
    found = site.readable(request, kind, repository)
    with_sizes = request.query.get("blobs", "").lower() in ("1", "true")
    return Answer.of_json(_describe(site, found, revision, with_sizes))


def search(site: Site, request: Request, kind: str) -> Answer:
    """Answer with the repositories that match ``search``, ``author`` and ``filter`` (a tag), at most ``limit``."""
    user, query = site.user(request), request.query
    found: list[dict[str, Any]] = []
    for repository in site.repositories.of_kind(kind):
        is_visible = site.belongs(user, repository.namespace) or not repository.record().private
        is_named = query.get("search", "").lower() in repository.id.lower()
        if is_visible and is_named and query.get("author") in (None, repository.namespace):
            found.append(_describe(site, repository, "main", with_sizes=False))
    if "filter" in query:
        found = [description for description in found if query["filter"] in description["tags"]]
    return Answer.of_json(found[: int(query.get("limit", 1000))])


def _named(wish: dict[str, Any], user: str) -> tuple[str, str]:
    """Read kind and id of a repository from the body of a request."""
    return f"{wish.get('type') or 'model'}s", f"{wish.get('organization') or user}/{wish.get('name')}"


def _describe(site: Site, repository: Repository, revision: str, with_sizes: bool) -> dict[str, Any]:
    commit, record = repository.commit(revision), repository.record()
    card = card_of(commit, site.contents)
    return {
        "_id": hashlib.sha1(f"{repository.kind}/{repository.id}".encode()).hexdigest()[:24],
        "id": repository.id,
        **({"modelId": repository.id} if repository.kind == "models" else {}),
        "author": repository.namespace,
        "sha": commit.sha,
        "lastModified": commit.date,
        "createdAt": record.created,
        "private": record.private,
        "gated": record.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags_of(card),
        "cardData": card,
        "library_name": card.get("library_name"),
        "pipeline_tag": card.get("pipeline_tag"),
        "siblings": [_sibling(path, file, with_sizes) for path, file in commit.files.items()],
        "spaces": [],
        "usedStorage": sum(file.size for file in commit.files.values()),
    }


def _sibling(path: str, file: StoredFile, with_sizes: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if with_sizes:
        sibling |= {"size": file.size, "blobId": file.oid}
        if file.sha256:
            pointer = len(lfs_pointer(file.sha256, file.size))
            sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": pointer}
    return sibling
