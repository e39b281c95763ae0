"""The choice between Xet and LFS for large files: not every Hub has Xet storage."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

from mergeline.sources.hub_connection import HubConnection, authorization, timeout_seconds
from mergeline.sources.repository import RepositoryKind

logger = logging.getLogger(__name__)

Direction = Literal["read", "write"]

_endpoints: dict[tuple[str, Direction], bool] = {}
"""(Hub, direction) -> whether it has Xet storage; asked once per process."""
_switch = threading.Lock()
_transfers_without_xet = 0
_was_disabled = False


@contextmanager
def xet_or_lfs(
    hub: HubConnection, repo_id: str, revision: str, kind: RepositoryKind, direction: Direction
) -> Generator[None]:
    """Transfer large files by Xet where the Hub has it, else by LFS.

    huggingface_hub takes Xet for granted since 1.0, and its uploads fail on every other Hub. The library's switch is
    one per process, so a transfer with another Hub at the same moment may go by LFS too: slower, not wrong.
    """
    global _transfers_without_xet, _was_disabled
    from huggingface_hub import constants

    if hub.attempt(lambda: _has_xet(hub, repo_id, revision, kind, direction), repo_id, revision):
        yield
        return
    with _switch:
        if not _transfers_without_xet:
            _was_disabled = constants.HF_HUB_DISABLE_XET
        _transfers_without_xet += 1
        constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        with _switch:
            _transfers_without_xet -= 1
            if not _transfers_without_xet:
                constants.HF_HUB_DISABLE_XET = _was_disabled


def _has_xet(hub: HubConnection, repo_id: str, revision: str, kind: RepositoryKind, direction: Direction) -> bool:
    from huggingface_hub.utils import get_session

    host = urlsplit(hub.url).hostname or ""
    if host == "huggingface.co" or host.endswith(".huggingface.co"):
        return True
    known = _endpoints.get((hub.url, direction))
    if known is not None:
        return known
    address = f"{hub.url}/api/{kind}s/{repo_id}/xet-{direction}-token/{revision}"
    response = get_session().get(address, headers=authorization(), timeout=timeout_seconds())
    has_xet = response.status_code == 200 and "casUrl" in response.text
    if has_xet or response.status_code in (404, 405, 501):  # other statuses may be temporary
        _endpoints[hub.url, direction] = has_xet
    logger.info("%s has %s.", hub.url, "Xet storage" if has_xet else "no Xet storage: large files go by LFS")
    return has_xet
