"""Checks of every request to a Hub: the token stays at the Hub's origin, and no response may name a local path.

huggingface_hub trusts the responses of a Hub. It sends the token to whatever page a listing names as the next one, to
LFS verification addresses and to Xet token addresses, and it uses ETags, commits and digests as file names.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from mergeline.errors import HubError
from mergeline.sources.repository import require_safe_path

if TYPE_CHECKING:
    from huggingface_hub.utils import httpx
    from huggingface_hub.utils._http import CLIENT_FACTORY_T

_SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ETAG = re.compile(rf'(?:W/)?(?:"(?:{_DIGEST.pattern})"|{_DIGEST.pattern})')
_COMMIT_ASKED = re.compile(r"/resolve/([0-9a-f]{40})/")
_IS_LISTING = "mergeline.is_listing"
"""Extension of requests for a file listing; httpx copies extensions to the requests that redirects make."""

_lock = threading.Lock()
_hubs: tuple[str, ...] = ()
"""Addresses of the Hubs of all calls in progress."""
_plain_factory: CLIENT_FACTORY_T | None = None


@contextmanager
def guarded(hub_url: str) -> Generator[None]:
    """Within the context, send the token only to the Hub's origin, and refuse responses that could name a path.

    huggingface_hub has one HTTP client per process, and its threads do not know who called. So two calls at once to
    two Hubs allow each other's origin; outside of all calls the library behaves as it always does.

    Raises:
        HubError: Inside: an answer names the next page or the Xet token on another origin, or holds an ETag, commit
            or digest that is not hexadecimal.
        RepositoryError: Inside: a listing holds a path that could lead out of the repository.
    """
    global _hubs
    with _lock:
        _guard_client()
        _hubs = (*_hubs, hub_url)
    try:
        yield
    finally:
        with _lock:
            place = _hubs.index(hub_url)
            _hubs = _hubs[:place] + _hubs[place + 1 :]


def require_commit(commit: str | None, place: str) -> str:
    """Return ``commit`` if it is 40 hexadecimal digits; else raise HubError."""
    return _require(_SHA1, commit, "a commit", place)


def _guard_client() -> None:
    """Add the checks to huggingface_hub's client, which keeps its proxies and certificates."""
    from huggingface_hub.utils import (
        _http,  # pyright: ignore[reportPrivateUsage]  # the factory in force has no public name
        set_client_factory,
    )

    global _plain_factory
    factory = _http._GLOBAL_CLIENT_FACTORY  # pyright: ignore[reportPrivateUsage]
    if factory is not _guarded_client:
        _plain_factory = factory
        set_client_factory(_guarded_client)


def _guarded_client() -> httpx.Client:
    assert _plain_factory is not None, "set before this factory is"
    client = _plain_factory()
    hooks = client.event_hooks
    client.event_hooks = {
        "request": [_keep_token_home, *hooks["request"]],
        "response": [_refuse_escape, *hooks["response"]],
    }
    return client


def _keep_token_home(request: httpx.Request) -> None:
    """Remove the token from requests to other origins than a Hub's; runs before every request and redirect."""
    hubs = _hubs
    if not hubs:
        return
    if not _is_of(request.url, hubs):
        # Cookies do not know ports or schemes, and a Hub's cookie may be as good as its token.
        for name in ("Authorization", "Cookie"):
            request.headers.pop(name, None)
    elif _is_listing(request.url, hubs):
        request.extensions = {**request.extensions, _IS_LISTING: True}


def _refuse_escape(response: httpx.Response) -> None:
    """Raise HubError for a response that leads to another origin or out of the cache, before anything is written."""
    hubs = _hubs
    if not hubs:
        return
    request = response.request
    place = f"{request.url.copy_with(query=None)}"
    if "X-Repo-Commit" in response.headers:  # even a 404's becomes a folder
        commit = require_commit(response.headers["X-Repo-Commit"], place)
        asked = _COMMIT_ASKED.search(request.url.path)
        if asked and asked[1] != commit:  # the library would record it as another name of that commit
            raise HubError(f"{place} answers for commit {commit}; nothing was written. Ask the Hub's owner.")
    _require_next_page(response, hubs, place)
    if request.method == "HEAD":
        _require_safe_metadata(response, hubs, place)
    if request.extensions.get(_IS_LISTING) and not response.has_redirect_location:
        _require_safe_entries(response, place)


def _require_next_page(response: httpx.Response, hubs: tuple[str, ...], place: str) -> None:
    following = response.links.get("next", {}).get("url")
    if following is None:
        return
    url = _joined(response.request.url, following)
    is_listing = bool(response.request.extensions.get(_IS_LISTING))
    if url is None or not _is_of(url, hubs) or (is_listing and not _is_listing(url, hubs)):
        raise HubError(
            f"{place} names {following.partition('?')[0][:200]!r} as the list's next page, expected a page of the same "
            "list at the same address; it was not followed. Set HF_ENDPOINT to the address that the Hub gives itself."
        )


def _require_safe_metadata(response: httpx.Response, hubs: tuple[str, ...], place: str) -> None:
    """Check what the library uses of a response to HEAD: the blob's name, and the address for Xet tokens."""
    from huggingface_hub import constants

    headers = response.headers
    etag = headers.get("X-Linked-ETag") or headers.get("ETag")
    if etag is not None:
        _require(_ETAG, etag, "an ETag", place)
    if "X-Xet-Hash" not in headers:
        return
    _require(_SHA256, headers["X-Xet-Hash"], "a Xet hash", place)
    route = response.links.get("xet-auth", {}).get("url") or headers.get("X-Xet-Refresh-Route")
    # hf_xet sends the Hub's token there to get one for Xet, and reads addresses otherwise than httpx does: to it
    # http://a\@b/ is on host a. So this compares text. Hugging Face's address is replaced by the endpoint later.
    origins = (f"{urlsplit(hub).scheme}://{urlsplit(hub).netloc}/" for hub in hubs)
    if route is not None and not route.startswith((*origins, constants.HUGGINGFACE_CO_URL_HOME)):
        raise HubError(
            f"{place} names {route.partition('?')[0][:200]!r} as the place for Xet tokens, expected the same address; "
            "the token was not sent there. Set HF_ENDPOINT to the address that the Hub gives itself."
        )


def _require_safe_entries(response: httpx.Response, place: str) -> None:
    response.read()
    try:
        entries: object = response.json()
    except ValueError:
        return  # the library fails on it in its own way
    for entry in cast("list[object]", entries) if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            _require_safe_entry(cast("dict[str, Any]", entry), place)


def _require_safe_entry(entry: dict[str, Any], place: str) -> None:
    if entry.get("type") != "file":
        return
    path = str(entry.get("path", ""))
    require_safe_path(path, place)
    _require(_DIGEST, entry.get("oid"), f"the oid of {path!r}", place)
    lfs: object = entry.get("lfs")
    if isinstance(lfs, dict):
        _require(_SHA256, cast("dict[str, object]", lfs).get("oid"), f"the sha256 of {path!r}", place)
    if entry.get("xetHash") is not None:
        _require(_SHA256, entry["xetHash"], f"the Xet hash of {path!r}", place)


def _require(pattern: re.Pattern[str], value: object, what: str, place: str) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise HubError(
        f"{place} gives {str(value)[:80]!r} as {what}, expected hexadecimal digits; nothing was written. Check that "
        "HF_ENDPOINT names a Hub you trust."
    )


def _is_of(url: httpx.URL, hubs: tuple[str, ...]) -> bool:
    """Whether scheme, host and port are a Hub's."""
    from huggingface_hub.utils import httpx

    return url.is_absolute_url and url.origin in {httpx.URL(hub).origin for hub in hubs}


def _is_listing(url: httpx.URL, hubs: tuple[str, ...]) -> bool:
    """Whether a Hub lists a repository's files at this address."""
    return any(url.path.startswith(f"{urlsplit(hub).path}/api/") and "/tree/" in url.path for hub in hubs)


def _joined(base: httpx.URL, text: str) -> httpx.URL | None:
    """Resolve ``text`` as an address relative to ``base``; None if it is not one."""
    from huggingface_hub.utils import httpx

    try:
        return base.join(text)
    except (httpx.InvalidURL, ValueError):
        return None
