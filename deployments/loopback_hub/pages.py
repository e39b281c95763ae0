"""Two plain pages for a person with a browser: all repositories, and the files and README.md of one.

Opened with ``?token=...``, they also show what is private: the browser keeps the token as a cookie, for reading only.
"""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.repositories import KINDS
from deployments.loopback_hub.site import Site


def front(site: Site, request: Request) -> Answer:
    """Show all repositories that the reader may see."""
    if "token" in request.query:
        return _sign_in(site, request)
    user, sections = site.user(request), []
    for kind in KINDS:
        visible = [
            repository
            for repository in site.repositories.of_kind(kind)
            if site.belongs(user, repository.namespace) or not repository.record().private
        ]
        links = [f"<li><a href='{site.url(repository)}'>{escape(repository.id)}</a>" for repository in visible]
        sections += [f"<h2>{kind}</h2><ul>{''.join(links)}</ul>"] if links else []
    hint = "" if user else "<p>Private repositories appear when this page is opened with <code>?token=...</code>"
    return _page(site, "Local Hub", ("".join(sections) or "<p>No repositories.") + hint)


def repository_page(site: Site, request: Request, kind: str, repository: str, revision: str = "main") -> Answer:
    """Show one repository at a revision."""
    if "token" in request.query:
        return _sign_in(site, request)
    found = site.readable(request, kind, repository)
    commit, record = found.commit(revision), found.record()
    rows = [
        f"<tr><td><a href='{site.url(found)}/resolve/{commit.sha}/{quote(path)}'>{escape(path)}</a>"
        f"<td align=right>{file.size:,} bytes<td>{'LFS' if file.sha256 else ''}"
        for path, file in commit.files.items()
    ]
    marks = ["private"] * record.private + ["gated"] * bool(record.gated)
    about = f"<p>{escape(commit.title)} · {commit.date[:19]} · <code>{commit.sha}</code> {' '.join(marks)}"
    readme = commit.files.get("README.md")
    text = site.contents.blob(readme.oid).read_text("utf-8", "replace") if readme and not readme.sha256 else ""
    body = f"{about}<table cellpadding=3>{''.join(rows)}</table><pre>{escape(text)}</pre>"
    return _page(site, found.id, body)


def pull_request_page(site: Site, request: Request, kind: str, repository: str, number: str) -> Answer:
    """Show the newest commit of a pull request."""
    return repository_page(site, request, kind, repository, f"refs/pr/{number}")


def _sign_in(site: Site, request: Request) -> Answer:
    token = request.query["token"]
    if token not in site.tokens:
        raise Refusal(401, "Invalid token")
    # Sent back to the same page without the token, so that it stays out of the browser's history.
    cookie = f"token={token}; Path=/; HttpOnly; SameSite=Lax"
    return Answer(302, headers={"Location": request.path, "Set-Cookie": cookie})


def _page(site: Site, title: str, body: str) -> Answer:
    html = (
        f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title>"
        "<body style='font:16px system-ui;max-width:60rem;margin:2rem auto'>"
        f"<a href='{site.endpoint}/'>Local Hub</a><h1>{escape(title)}</h1>{body}"
    )
    return Answer(body=html.encode(), headers={"Content-Type": "text/html; charset=utf-8"})
