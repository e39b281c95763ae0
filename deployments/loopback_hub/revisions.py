"""Routes on history, branches and tags."""

from __future__ import annotations

from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.repositories import Repository
from deployments.loopback_hub.site import Site


def history(site: Site, request: Request, kind: str, repository: str, revision: str) -> Answer:
    """Answer with a revision's commits, newest first."""
    stored = site.readable(request, kind, repository)
    return Answer.of_json(
        [
            {
                "id": commit.sha,
                "title": commit.title,
                "message": commit.description,
                "date": commit.date,
                "authors": [{"user": commit.author}],
            }
            for commit in stored.history(revision)
        ]
    )


def create_branch(site: Site, request: Request, kind: str, repository: str, branch: str) -> Answer:
    """Create a branch at ``startingPoint``, or at the main branch."""
    stored, start = site.writable(request, kind, repository), request.json().get("startingPoint")
    return _create_ref(stored, f"refs/heads/{branch}", start or "main")


def create_tag(site: Site, request: Request, kind: str, repository: str, revision: str) -> Answer:
    """Tag a revision with the name in the body."""
    stored, name = site.writable(request, kind, repository), request.json()["tag"]
    return _create_ref(stored, f"refs/tags/{name}", revision)


def _create_ref(repository: Repository, ref: str, revision: str) -> Answer:
    with repository.changing() as state:
        if ref in state.refs:
            raise Refusal(409, f"Reference {ref} exists already")
        state.refs[ref] = repository.resolve(revision)
    return Answer.of_json({})
