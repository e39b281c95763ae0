"""The Hub's addresses: which method and path is answered by which function."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

from deployments.loopback_hub import (
    cards,
    cas,
    catalogue,
    commits,
    files,
    pages,
    pull_requests,
    revisions,
    uploads,
)
from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.site import Site

# A route is called with what its pattern captured, unquoted, by name.
_Function: TypeAlias = Callable[..., Answer]

_CAPTURES = {
    "kind": "models|datasets|spaces",
    # On the Hub's pages models have no prefix.
    "page_kind": "(?:/datasets|/spaces)?",
    "repository": "[^/]+/[^/]+",
    "number": "[0-9]+",
    "path": ".+",
}
_API, _PAGE = "/api/{kind}/{repository}", "{page_kind}/{repository}"

_API_TABLE: list[tuple[str, str, _Function]] = [
    ("GET", "/api/whoami-v2", catalogue.whoami),
    ("POST", "/api/validate-yaml", cards.validate),
    ("POST", "/api/repos/create", catalogue.create),
    ("DELETE", "/api/repos/delete", catalogue.delete),
    ("POST", "/api/complete_multipart/{sha256}", uploads.complete_multipart),
    ("GET", "/api/{kind}", catalogue.search),
    ("GET", _API, catalogue.information),
    ("GET", f"{_API}/revision/{{revision}}", catalogue.information),
    ("PUT", f"{_API}/settings", catalogue.settings),
    ("GET", f"{_API}/auth-check", catalogue.check_access),
    ("GET", f"{_API}/auth-check/write", catalogue.check_write_access),
    ("POST", f"{_API}/user-access-request/grant", catalogue.grant_access),
    ("GET", f"{_API}/tree/{{revision}}", files.tree),
    ("GET", f"{_API}/tree/{{revision}}/{{path}}", files.tree),
    ("POST", f"{_API}/paths-info/{{revision}}", files.paths_info),
    ("GET", f"{_API}/refs", revisions.refs),
    ("GET", f"{_API}/commits/{{revision}}", revisions.history),
    ("POST", f"{_API}/branch/{{branch}}", revisions.create_branch),
    ("DELETE", f"{_API}/branch/{{branch}}", revisions.delete_branch),
    ("POST", f"{_API}/tag/{{revision}}", revisions.create_tag),
    ("DELETE", f"{_API}/tag/{{tag}}", revisions.delete_tag),
    ("POST", f"{_API}/super-squash/{{branch}}", revisions.squash),
    ("POST", f"{_API}/preupload/{{revision}}", commits.preupload),
    ("POST", f"{_API}/commit/{{revision}}", commits.commit),
    ("GET", f"{_API}/discussions", pull_requests.index),
    ("POST", f"{_API}/discussions", pull_requests.create),
    ("GET", f"{_API}/discussions/{{number}}", pull_requests.details),
    ("POST", f"{_API}/discussions/{{number}}/status", pull_requests.set_status),
    ("POST", f"{_API}/discussions/{{number}}/merge", pull_requests.merge),
    ("GET", f"{_API}/xet-read-token/{{revision}}", cas.read_token),
    ("GET", f"{_API}/xet-write-token/{{revision}}", cas.write_token),
    # Everything else that hf_xet tries (version 2, global deduplication) is optional: on 404 it does without.
    ("POST", "/cas/v1/xorbs/default/{xorb}", cas.put_xorb),
    ("GET", "/cas/v1/xorbs/default/{xorb}", cas.head_xorb),
    ("POST", "/cas/v1/shards", cas.post_shard),
    ("GET", "/cas/v1/reconstructions/{xet_hash}", cas.reconstruction),
    ("POST", f"{_PAGE}.git/info/lfs/objects/batch", uploads.batch),
    ("GET", f"{_PAGE}/resolve/{{revision}}/{{path}}", files.resolve),
    ("GET", "/", pages.front),
    ("GET", _PAGE, pages.repository_page),
    ("GET", f"{_PAGE}/tree/{{revision}}", pages.repository_page),
    ("GET", f"{_PAGE}/commit/{{revision}}", pages.repository_page),
    ("GET", f"{_PAGE}/discussions/{{number}}", pages.pull_request_page),
]

_CDN_TABLE: list[tuple[str, str, _Function]] = [
    ("GET", "/lfs/{sha256}", uploads.get_object),
    ("PUT", "/upload/{sha256}", uploads.put_object),
    ("PUT", "/upload/{sha256}/{number}", uploads.put_part),
    ("GET", "/xorb/{xorb}", uploads.get_xorb),
]


@dataclass(frozen=True)
class Route:
    """One row of a table, ready to be matched."""

    method: str
    """HTTP method; GET also answers HEAD."""
    pattern: re.Pattern[str]
    """What the whole quoted path must match."""
    function: _Function
    """What answers."""


def _compiled(table: Sequence[tuple[str, str, _Function]]) -> tuple[Route, ...]:
    def capture(match: re.Match[str]) -> str:
        return f"(?P<{match[1]}>{_CAPTURES.get(match[1], '[^/]+')})"

    return tuple(
        Route(method, re.compile(re.sub(r"\\{(\w+)\\}", capture, re.escape(template))), function)
        for method, template, function in table
    )


_API_ROUTES, _CDN_ROUTES = _compiled(_API_TABLE), _compiled(_CDN_TABLE)


def answer_api(site: Site, request: Request) -> Answer:
    """Answer a request to the API origin."""
    return _answer(_API_ROUTES, site, request)


def answer_cdn(site: Site, request: Request) -> Answer:
    """Answer a request to the origin of large files."""
    # An object store refuses a token beside its signed address; this is how a token that leaks to it is noticed.
    if "Authorization" in request.headers:
        raise Refusal(400, "Only one auth mechanism allowed")
    return _answer(_CDN_ROUTES, site, request)


def _answer(routes: Sequence[Route], site: Site, request: Request) -> Answer:
    method = "GET" if request.method == "HEAD" else request.method
    for route in routes:
        if route.method == method and (match := route.pattern.fullmatch(request.path)):
            captured = {name: unquote(text) for name, text in match.groupdict().items()}
            if "page_kind" in captured:
                captured["kind"] = captured.pop("page_kind").strip("/") or "models"
            return route.function(site, request, **captured)
    raise Refusal(404, f"Nothing answers {request.method} {request.path} here", "RepoNotFound")
