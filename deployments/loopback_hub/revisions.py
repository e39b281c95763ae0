"""Routes on the names of commits: refs, history, branches, tags, squashing."""

from __future__ import annotations

from typing import Any

from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.repositories import Repository
from deployments.loopback_hub.site import Site


def refs(site: Site, request: Request, kind: str, repository: str) -> Answer:
    """Answer with all branches, tags and pull requests."""
    record = site.readable(request, kind, repository).record()

    def under(prefix: str) -> list[dict[str, str]]:
        names = [ref for ref in record.refs if ref.startswith(prefix)]
        return [{"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": record.refs[ref]} for ref in names]

    answer: dict[str, Any] = {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": []}
    if "include_prs" in request.query:
        answer["pullRequests"] = under("refs/pr/")
    return Answer.of_json(answer)


def history(site: Site, request: Request, kind: str, repository: str, revision: str) -> Answer:
    """Answer with the commits, newest first."""
    found = site.readable(request, kind, repository)
    return Answer.of_json(
        [
            {
                "id": commit.sha,
                "title": commit.title,
                "message": commit.description,
                "date": commit.date,
                "authors": [{"user": commit.author}],
            }
            for commit in found.history(revision)
        ]
    )


def create_branch(site: Site, request: Request, kind: str, repository: str, branch: str) -> Answer:
    """Create a branch at ``startingPoint``, or at the main branch."""
    found, wish = site.writable(request, kind, repository), request.json()
    return _create_ref(found, f"refs/heads/{branch}", wish.get("startingPoint") or "main")


def delete_branch(site: Site, request: Request, kind: str, repository: str, branch: str) -> Answer:
    """Delete a branch; the main branch stays."""
    found = site.writable(request, kind, repository)
    if branch == "main":
        raise Refusal(403, "The main branch cannot be deleted")
    return _delete_ref(found, f"refs/heads/{branch}")


def create_tag(site: Site, request: Request, kind: str, repository: str, revision: str) -> Answer:
    """Tag a revision with the name in the body."""
    found, wish = site.writable(request, kind, repository), request.json()
    if not wish.get("tag"):
        raise Refusal(400, "A tag needs a name")
    return _create_ref(found, f"refs/tags/{wish['tag']}", revision)


def delete_tag(site: Site, request: Request, kind: str, repository: str, tag: str) -> Answer:
    """Delete a tag."""
    return _delete_ref(site.writable(request, kind, repository), f"refs/tags/{tag}")


def squash(site: Site, request: Request, kind: str, repository: str, branch: str) -> Answer:
    """Replace a branch's history by one commit with the same files."""
    found, wish = site.writable(request, kind, repository), request.json()
    with found.changing() as record:
        if f"refs/heads/{branch}" not in record.refs:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        last = found.commit(branch)
        message = {"title": wish.get("message") or f"Super-squash branch {branch!r}", "author": last.author}
        record.refs[f"refs/heads/{branch}"] = found.add_commit(None, last.files, message)
    return Answer.of_json({})


def _create_ref(repository: Repository, ref: str, revision: str) -> Answer:
    with repository.changing() as record:
        if ref in record.refs:
            raise Refusal(409, f"Reference {ref} exists already")
        record.refs[ref] = repository.resolve(revision)
    return Answer.of_json({})


def _delete_ref(repository: Repository, ref: str) -> Answer:
    with repository.changing() as record:
        if record.refs.pop(ref, None) is None:
            raise Refusal(404, f"Invalid rev id: {ref}", "RevisionNotFound")
    return Answer.of_json({})
