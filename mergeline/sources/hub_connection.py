"""A Hub's addresses, its client, and how failing requests are explained and tried again."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

from mergeline import __version__
from mergeline.errors import RepositoryError
from mergeline.sources import hub_failures
from mergeline.sources.hub_transport import guarded
from mergeline.sources.repository import RepositoryKind, require_safe_path

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx

_T = TypeVar("_T")


@dataclass(frozen=True)
class HubConnection:
    """A Hub by its address. The token is read from the environment for every request, and is stored nowhere."""

    endpoint: str | None = None
    """Base URL; None: ``$HF_ENDPOINT``, else https://huggingface.co."""

    @property
    def url(self) -> str:
        """The base URL in force now, without a trailing slash."""
        url = (self.endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        if urlsplit(url).scheme not in ("http", "https"):
            raise RepositoryError(f"The Hub's address {url!r} is not an http(s) URL; correct HF_ENDPOINT.")
        return url

    def repository_url(self, repo_id: str, commit: str | None = None, kind: RepositoryKind = "model") -> str:
        """Return the address of a repository's page, at ``commit`` where one is given."""
        page = f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        return f"{page}/tree/{commit}" if commit else page

    def file_url(self, repo_id: str, path: str, commit: str | None = None, kind: RepositoryKind = "model") -> str:
        """Return the address that serves a file's content, at ``commit`` or on the main branch."""
        require_safe_path(path, repo_id)
        return f"{self.repository_url(repo_id, kind=kind)}/resolve/{commit or 'main'}/{quote(path)}"

    def api(self) -> HfApi:
        """Return huggingface_hub's client of this Hub."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.url, library_name="mergeline", library_version=__version__)

    def attempt(
        self, call: Callable[[], _T], repo_id: str, revision: str | None = None, attempts: int = hub_failures.ATTEMPTS
    ) -> _T:
        """Make requests; try again while failures are transient, and raise what they mean for ``repo_id``."""
        hub_failures.keep_signatures_out_of_logs()
        with guarded(self.url):
            return hub_failures.attempt(
                call,
                lambda error: hub_failures.explain(error, hub_url=self.url, repo_id=repo_id, revision=revision),
                attempts,
            )


@contextmanager
def open_stream(url: str, headers: dict[str, str], is_hub: bool) -> Generator[httpx.Response]:
    """Open a GET request; only the Hub itself sees the token, never the storage it redirects to."""
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = headers | authorization() if is_hub else headers
    with get_session().stream("GET", url, headers=headers, timeout=timeout_seconds()) as response:
        hf_raise_for_status(response)
        yield response


def authorization() -> dict[str, str]:
    """Return the headers of a request to the Hub itself, with the token if there is one."""
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers(library_name="mergeline", library_version=__version__)


def timeout_seconds() -> float:
    """Return how long a server may be silent; ``HF_HUB_DOWNLOAD_TIMEOUT`` in the environment raises it."""
    from huggingface_hub import constants

    return constants.HF_HUB_DOWNLOAD_TIMEOUT
