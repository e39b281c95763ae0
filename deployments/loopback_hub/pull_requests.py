"""Routes on pull requests and discussions: open, list, read, close, merge."""

from __future__ import annotations

from typing import Any

from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.repositories import Discussion, Repository, RepositoryRecord, StoredFile, utc_now
from deployments.loopback_hub.site import Site


def open_discussion(record: RepositoryRecord, title: str, author: str, base: str | None) -> Discussion:
    """Add a discussion to the record; with a ``base`` commit it is a pull request that starts there."""
    discussion = Discussion(len(record.discussions) + 1, title, author, utc_now(), base is not None, base=base)
    record.discussions.append(discussion)
    if base is not None:
        record.refs[f"refs/pr/{discussion.num}"] = base
    return discussion


def create(site: Site, request: Request, kind: str, repository: str) -> Answer:
    """Open a discussion, or a pull request that has no commits yet."""
    user, found, wish = site.signed_in(request), site.readable(request, kind, repository), request.json()
    with found.changing() as record:
        base = found.resolve("main") if wish.get("pullRequest") else None
        discussion = open_discussion(record, str(wish.get("title")), user, base)
    return Answer.of_json(_describe(site, found, discussion))


def index(site: Site, request: Request, kind: str, repository: str) -> Answer:
    """Answer with all discussions that match ``type``, ``status`` and ``author``, newest first."""
    found, query = site.readable(request, kind, repository), request.query
    discussions = [
        _describe(site, found, discussion)
        for discussion in reversed(found.record().discussions)
        if query.get("type", "all") in ("all", "pull_request" if discussion.is_pull_request else "discussion")
        and query.get("status", "all") in ("all", "open" if discussion.status == "open" else "closed")
        and query.get("author", discussion.author) == discussion.author
    ]
    return Answer.of_json({"discussions": discussions, "count": len(discussions), "start": 0})


def details(site: Site, request: Request, kind: str, repository: str, number: str) -> Answer:
    """Answer with one discussion and, for a pull request, the files that stand in the way of merging it."""
    found = site.readable(request, kind, repository)
    discussion = _discussion(found.record(), number)
    answer = _describe(site, found, discussion) | {"events": []}
    if discussion.is_pull_request:
        answer["changes"] = {"base": "refs/heads/main", "mergeCommitId": discussion.merge_commit}
        answer["filesWithConflicts"] = _merged_files(found, discussion)[1] if discussion.status == "open" else []
    return Answer.of_json(answer)


def set_status(site: Site, request: Request, kind: str, repository: str, number: str) -> Answer:
    """Open or close a discussion."""
    user, found, status = site.signed_in(request), site.writable(request, kind, repository), request.json()["status"]
    with found.changing() as record:
        discussion = _discussion(record, number)
        if discussion.status == "merged" or status not in ("open", "closed"):
            raise Refusal(400, f"A {discussion.status} discussion cannot become {status!r}")
        discussion.status = status
    event = {"id": f"{number}-{status}", "type": "status-change", "createdAt": utc_now(), "author": {"name": user}}
    return Answer.of_json({"newStatus": event | {"data": {"status": status}}})


def merge(site: Site, request: Request, kind: str, repository: str, number: str) -> Answer:
    """Merge a pull request into the main branch; 409 if both changed the same file."""
    user, found = site.signed_in(request), site.writable(request, kind, repository)
    with found.changing() as record:
        discussion = _discussion(record, number)
        if not discussion.is_pull_request or discussion.status != "open":
            raise Refusal(400, f"Discussion {number} is not an open pull request")
        files, conflicts = _merged_files(found, discussion)
        if conflicts:
            raise Refusal(409, f"Pull request {number} conflicts with main in {', '.join(conflicts)}")
        message = {"title": f"{discussion.title} (#{number})", "author": user}
        discussion.merge_commit = found.add_commit(record.refs["refs/heads/main"], files, message)
        discussion.status = "merged"
        record.refs["refs/heads/main"] = discussion.merge_commit
    return Answer.of_json({"mergeCommitId": discussion.merge_commit})


def _merged_files(repository: Repository, discussion: Discussion) -> tuple[dict[str, StoredFile], list[str]]:
    """Give main's files with the pull request's changes, and the paths that both changed, each its own way."""
    base = repository.commit(str(discussion.base)).files
    ours, theirs = repository.commit("main").files, repository.commit(f"refs/pr/{discussion.num}").files
    changed = {path for path in base.keys() | theirs.keys() if base.get(path) != theirs.get(path)}
    conflicts = [path for path in changed if ours.get(path) not in (base.get(path), theirs.get(path))]
    kept = {path: file for path, file in ours.items() if path not in changed}
    return kept | {path: theirs[path] for path in changed & theirs.keys()}, sorted(conflicts)


def _discussion(record: RepositoryRecord, number: str) -> Discussion:
    for discussion in record.discussions:
        if str(discussion.num) == number:
            return discussion
    raise Refusal(404, f"Discussion {number} not found")


def _describe(site: Site, repository: Repository, discussion: Discussion) -> dict[str, Any]:
    return {
        "num": discussion.num,
        "title": discussion.title,
        "author": {"name": discussion.author},
        "createdAt": discussion.created,
        "status": discussion.status,
        "isPullRequest": discussion.is_pull_request,
        "pullRequest": discussion.is_pull_request,
        "repo": {"name": repository.id, "type": repository.kind[:-1]},
        "url": f"{site.url(repository)}/discussions/{discussion.num}",
    }
