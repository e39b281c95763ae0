"""Two plain pages for a browser: all repositories, and the files and README.md of one.

Opened with ``?token=...``, they also show private repositories: the browser keeps the token as a cookie, for reading.
"""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.repositories import KINDS
from deployments.loopback_hub.site import Site


def front(site: Site, request: Request) -> Answer:
    """Show all repositories that the user may see."""
    if "token" in request.query:
        return _sign_in(site, request)
    user, sections = site.user(request), []
    for kind in KINDS:
        visible = site.visible(request, kind)
        links = [f"<li><a href='{site.url(repository)}'>{escape(repository.id)}</a>" for repository in visible]
        sections += [f"<h2>{kind}</h2><ul>{''.join(links)}</ul>"] if links else []
    hint = "" if user else "<p>Private repositories appear when this page is opened with <code>?token=...</code>"
    return _page(site, "Local Hub", ("".join(sections) or "<p>No repositories.") + hint)


def repository_page(site: Site, request: Request, kind: str, repository: str, revision: str = "main") -> Answer:
    """Show a repository at a revision."""
    if "token" in request.query:
        return _sign_in(site, request)
    stored = site.readable(request, kind, repository)
    commit, state = stored.commit(revision), stored.state()
    rows = [
        f"<tr><td><a href='{site.url(stored)}/resolve/{commit.sha}/{quote(path)}'>{escape(path)}</a>"
        f"<td align=right>{file.size:,} bytes<td>{'LFS' if file.sha256 else ''}"
        for path, file in commit.files.items()
    ]
    marks = ["private"] * state.private + ["gated"] * bool(state.gated)
    about = f"<p>{escape(commit.title)} · {commit.date[:19]} · <code>{commit.sha}</code> {' '.join(marks)}"
    readme = commit.files.get("README.md")
    text = site.contents.blob(readme.oid).read_text("utf-8", "replace") if readme and not readme.sha256 else ""
    body = f"{about}<table cellpadding=3>{''.join(rows)}</table><pre>{escape(text)}</pre>"
    return _page(site, stored.id, body)


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
