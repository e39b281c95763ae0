"""Byte ranges of a remote file, continued by further requests when a connection is cut."""

from __future__ import annotations

import logging
from typing import Any

from mergeline.errors import HubError
from mergeline.sources import hub_failures
from mergeline.sources.hub_connection import open_stream

logger = logging.getLogger(__name__)

_redirects: dict[str, str] = {}
"""Address on the Hub -> the signed address it redirects to: one redirect per file, not one per tensor."""


def read_range(received: bytearray, url: str, start: int, stop: int, nbytes: int) -> bytes:
    """Return bytes ``start`` to ``stop`` (exclusive) of a file, continuing where a cut connection left off.

    Args:
        received: These bytes as far as earlier calls received them; extended in place.
        url: The file's address on the Hub.
        start: First byte.
        stop: One past the last byte.
        nbytes: Size of the file.

    Raises:
        HubError: The server does not serve ranges.
    """
    while len(received) < stop - start:
        before = len(received)
        try:
            _receive(received, url, start, stop, nbytes)
        except Exception as error:
            if len(received) == before or not hub_failures.is_transport_failure(error):
                raise
            logger.info("%s was cut after %d bytes; continuing.", url, len(received))
    return bytes(received)


def _receive(received: bytearray, url: str, start: int, stop: int, nbytes: int) -> None:
    """Request the missing bytes once and append what arrives to ``received``."""
    position = start + len(received)
    redirect = _redirects.get(url)
    # A compressed answer would count its bytes differently.
    headers = {"Range": f"bytes={position}-{stop - 1}", "Accept-Encoding": "identity"}
    try:
        with open_stream(redirect or url, headers, redirect is None) as response:
            _require_range(response, url, position, stop, nbytes)
            if response.history:
                _redirects[url] = str(response.url)
            for chunk in response.iter_bytes():
                received += chunk
    except Exception as error:
        if redirect is None or hub_failures.status_of(error) not in (401, 403, 404, 410):
            raise
        _redirects.pop(url, None)  # the signature has expired: the next request asks the Hub for a new one
        return
    if not position < start + len(received) <= stop:
        received_now = start + len(received) - position
        raise HubError(f"{url}: {stop - position} bytes expected, {received_now} found; download the file instead.")


def _require_range(response: Any, url: str, position: int, stop: int, nbytes: int) -> None:
    if response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {position}-"):
        return
    if response.status_code == 200 and position == 0 and stop == nbytes:
        return
    raise HubError(
        f"{url}: expected status 206 for bytes {position} to {stop}, found {response.status_code}; this server "
        "does not serve ranges, so download the file instead."
    )
