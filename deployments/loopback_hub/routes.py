"""The Hub's addresses: which function answers which method and path."""

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
    revisions,
    uploads,
)
from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.site import Site

# A route is called with what its pattern captured, unquoted, by name.
_Function: TypeAlias = Callable[..., Answer]

_CAPTURES = {
    "kind": "models|datasets",
    # On the Hub's pages models have no prefix.
    "page_kind": "(?:/datasets)?",
    "repository": "[^/]+/[^/]+",
    "path": ".+",
}
_API, _PAGE = "/api/{kind}/{repository}", "{page_kind}/{repository}"

_API_TABLE: list[tuple[str, str, _Function]] = [
    ("GET", "/api/whoami-v2", catalogue.whoami),
    ("POST", "/api/validate-yaml", cards.validate),
    ("POST", "/api/repos/create", catalogue.create),
    ("GET", "/api/{kind}", catalogue.index),
    ("GET", _API, catalogue.information),
    ("GET", f"{_API}/revision/{{revision}}", catalogue.information),
    ("PUT", f"{_API}/settings", catalogue.settings),
    ("GET", f"{_API}/tree/{{revision}}", files.tree),
    ("GET", f"{_API}/tree/{{revision}}/{{path}}", files.tree),
    ("GET", f"{_API}/commits/{{revision}}", revisions.history),
    ("POST", f"{_API}/branch/{{branch}}", revisions.create_branch),
    ("POST", f"{_API}/tag/{{revision}}", revisions.create_tag),
    ("POST", f"{_API}/preupload/{{revision}}", commits.preupload),
    ("POST", f"{_API}/commit/{{revision}}", commits.commit),
    ("GET", f"{_API}/xet-read-token/{{revision}}", cas.read_token),
    ("GET", f"{_API}/xet-write-token/{{revision}}", cas.write_token),
    # What else hf_xet asks for (version 2, global deduplication) is optional: on 404 it goes on without.
    ("POST", "/cas/v1/xorbs/default/{xorb}", cas.put_xorb),
    ("POST", "/cas/v1/shards", cas.post_shard),
    ("GET", "/cas/v1/reconstructions/{xet_hash}", cas.reconstruction),
    ("POST", f"{_PAGE}.git/info/lfs/objects/batch", uploads.batch),
    ("GET", f"{_PAGE}/resolve/{{revision}}/{{path}}", files.resolve),
    ("GET", "/", pages.front),
    ("GET", _PAGE, pages.repository_page),
    ("GET", f"{_PAGE}/tree/{{revision}}", pages.repository_page),
    ("GET", f"{_PAGE}/commit/{{revision}}", pages.repository_page),
]

_CDN_TABLE: list[tuple[str, str, _Function]] = [
    ("GET", "/lfs/{sha256}", uploads.get_object),
    ("PUT", "/upload/{sha256}", uploads.put_object),
    ("GET", "/xorb/{xorb}", uploads.get_xorb),
]


@dataclass(frozen=True)
class Route:
    """A row of a table, ready to be matched."""

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
    # As an object store does beside a signed address: so a token that leaks to it is noticed.
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
