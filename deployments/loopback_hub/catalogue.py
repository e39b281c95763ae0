"""Routes on whole repositories: create, settings, information, list; and the user of a token."""

from __future__ import annotations

import hashlib
from typing import Any

from deployments.loopback_hub.cards import card_of
from deployments.loopback_hub.commits import GITATTRIBUTES
from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.repositories import Repository
from deployments.loopback_hub.site import Site


def whoami(site: Site, request: Request) -> Answer:
    """Answer with the user of the token."""
    user = site.signed_in(request)
    token = {"displayName": "local", "role": "write"}
    account = {"type": "user", "id": user, "name": user, "fullname": user, "email": f"{user}@localhost"}
    return Answer.of_json(account | {"orgs": [], "auth": {"type": "access_token", "accessToken": token}})


def create(site: Site, request: Request) -> Answer:
    """Create a repository; 409 with its address if there is one already."""
    user, fields = site.signed_in(request), request.json()
    kind, namespace = f"{fields.get('type') or 'model'}s", fields.get("organization") or user
    repository_id = f"{namespace}/{fields.get('name')}"
    site.require_membership(user, namespace)
    private = fields.get("visibility") == "private" or fields.get("private") is True
    try:
        repository = site.repositories.create(kind, repository_id, user, private, GITATTRIBUTES)
    except Refusal as refusal:
        if refusal.status != 409:
            raise
        url = site.url(site.repositories.find(kind, repository_id))
        body = {"error": refusal.message, "url": url, "id": repository_id}
        return Answer.of_json(body, 409, {"X-Error-Message": refusal.message})
    return Answer.of_json({"url": site.url(repository), "name": repository.id, "id": repository.id})


def settings(site: Site, request: Request, kind: str, repository: str) -> Answer:
    """Change visibility and gate."""
    stored, fields = site.writable(request, kind, repository), request.json()
    with stored.changing() as state:
        if "visibility" in fields or "private" in fields:
            state.private = fields.get("visibility") == "private" or fields.get("private") is True
        state.gated = fields.get("gated", state.gated)
    return Answer.of_json(fields)


def information(site: Site, request: Request, kind: str, repository: str, revision: str = "main") -> Answer:
    """Answer with a repository's settings, card and files at a revision."""
    return Answer.of_json(_describe(site, site.readable(request, kind, repository), revision))


def index(site: Site, request: Request, kind: str) -> Answer:
    """Answer with all repositories that the user may see."""
    visible = site.visible(request, kind)
    return Answer.of_json([_describe(site, repository, "main") for repository in visible])


def _describe(site: Site, repository: Repository, revision: str) -> dict[str, Any]:
    commit, state = repository.commit(revision), repository.state()
    card = card_of(commit, site.contents)
    return {
        "_id": hashlib.sha1(f"{repository.kind}/{repository.id}".encode()).hexdigest()[:24],
        "id": repository.id,
        **({"modelId": repository.id} if repository.kind == "models" else {}),
        "author": repository.namespace,
        "sha": commit.sha,
        "lastModified": commit.date,
        "createdAt": state.created,
        "private": state.private,
        "gated": state.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "cardData": card,
        "library_name": card.get("library_name"),
        "pipeline_tag": card.get("pipeline_tag"),
        "siblings": [{"rfilename": path} for path in commit.files],
        "spaces": [],
        "usedStorage": sum(file.size for file in commit.files.values()),
    }
