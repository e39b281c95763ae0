"""Recognise requests that another site's page makes in a person's browser, by headers that no page can set."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from email.message import Message
from ipaddress import ip_address

HOSTS = "MERGELINE_ALLOWED_HOSTS"
"""Environment variable: host names, separated by commas, under which servers are reached from other machines."""

HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_AUTHORITY = re.compile(rf"(?P<name>{HOST_NAME.pattern}|\[(?P<ipv6>[0-9a-f:.]+)\])(:\d+)?")


def reason_to_refuse(
    method: str, headers: Mapping[str, str] | Message, hosts: Collection[str] = (), pages: Collection[str] = ()
) -> str | None:
    """Return why a request is refused that a page of another origin may have made; None for all other requests.

    Programs send neither ``Origin`` nor ``Sec-Fetch-Site``: of their requests only ``Host`` is checked.

    Args:
        method: HTTP method; ``GET`` for a WebSocket.
        headers: Of the request; names in any case.
        hosts: Names the server may be called by, beside ``localhost`` and every address.
        pages: Origins, e.g. ``http://localhost:4200``, whose pages may call it, beside the server's own.
    """
    host = headers.get("host", "").lower()
    if not _is_allowed(host, hosts):
        return f"Host {host!r} is none of this server's names: add it to {HOSTS} where the server is started."
    origin = headers.get("origin")
    if origin is not None:
        # Behind a proxy the page may be https where this server is http.
        scheme, _, authority = origin.lower().partition("://")
        if (scheme in ("http", "https") and authority == host) or origin.lower() in pages:
            return None
        return f"A page of {origin!r} may not call this server."
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return None
    # A link that a person follows from another site is allowed; a frame, an image or a script is not.
    if method in ("GET", "HEAD") and (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == (
        "navigate",
        "document",
    ):
        return None
    return "A page of another origin may not call this server."


def _is_allowed(host: str, hosts: Collection[str]) -> bool:
    if (authority := _AUTHORITY.fullmatch(host)) is None:
        return False
    name = authority["ipv6"] or authority["name"]
    if name == "localhost" or name in hosts:
        return True
    try:
        # An address cannot be made to point elsewhere; a name of another site's can (DNS rebinding).
        ip_address(name)
    except ValueError:
        return False
    return True
