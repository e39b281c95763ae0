"""Failures of the Hub as one-line errors, and retries of those that are transient."""

from __future__ import annotations

import errno
import logging
import random
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mergeline.errors import HubError, MergelineError, RepositoryError, TransientHubError
from mergeline.support.secrets import one_line, without_queries, without_secrets

logger = logging.getLogger(__name__)

ATTEMPTS = 5
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0

TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504, 520, 522, 524})

_TOKEN_REFUSED = "{place} refused the token: set HF_TOKEN to a valid one, or unset it."

_T = TypeVar("_T")


def attempt(
    call: Callable[[], _T], explain: Callable[[Exception], MergelineError] | None = None, attempts: int = ATTEMPTS
) -> _T:
    """Call the Hub; retry with growing delays while its failures are transient.

    The library's own exceptions hold request headers and signed URLs, so they are not chained to what is raised.

    Args:
        call: Makes the request and returns its result.
        explain: Converts exceptions of the Hub's libraries to Mergeline's; None: ``call`` does that itself.
        attempts: Calls at most.
    """
    for attempt_number in range(1, attempts + 1):
        try:
            return call()
        except MergelineError as error:
            failure, requested_delay = error, 0.0
        except Exception as error:
            if explain is None or not _is_request_failure(error):
                raise
            failure = explain(error)
            requested_delay = _requested_delay(error)
        if not isinstance(failure, TransientHubError) or attempt_number == attempts:
            raise failure
        # Half of the delay is random, so that workers refused at the same time do not retry at the same time.
        delay = FIRST_DELAY_SECONDS * 2 ** (attempt_number - 1) * random.uniform(0.5, 1)
        delay = min(max(delay, requested_delay), LONGEST_DELAY_SECONDS)
        logger.warning("%s Attempt %d of %d in %.1f s.", failure, attempt_number + 1, attempts, delay)
        time.sleep(delay)
    raise AssertionError("the last attempt returns or raises")


def explain(error: Exception, *, hub_url: str, repo_id: str, revision: str | None) -> MergelineError:
    """Convert an exception of huggingface_hub, httpx or hf_xet to a one-line error without secrets."""
    if isinstance(error, MergelineError):
        return error
    status = status_of(error)
    place = f"{repo_id} at {hub_url}"
    if isinstance(error.__cause__, Exception) and (status is None and not is_transport_failure(error)):
        # The library wraps what failed: a LocalEntryNotFoundError for any trouble before a download, a RuntimeError
        # for any during an upload.
        return explain(error.__cause__, hub_url=hub_url, repo_id=repo_id, revision=revision)
    for kind, meaning, text in _meanings():
        if isinstance(error, kind):
            return meaning(
                text.format(
                    place=place,
                    repo_id=repo_id,
                    hub_url=hub_url,
                    revision=revision,
                    branch=revision or "main",
                    said=_said(error),
                )
            )
    if status == 401:
        return RepositoryError(_TOKEN_REFUSED.format(place=place))
    if status == 403:
        return RepositoryError(f"{place} does not allow this ({_said(error)}): use a token with the permission for it.")
    if status in TRANSIENT_STATUSES:
        return TransientHubError(f"{_answerer(error, hub_url)} answered {status} for {repo_id}: {_said(error)}.")
    if status is not None:
        return HubError(f"{_answerer(error, hub_url)} answered {status} for {repo_id}: {_said(error)}.")
    if is_transport_failure(error):
        return TransientHubError(
            f"{hub_url} could not be reached for {repo_id} ({type(error).__name__}: {_said(error)}); check the network "
            "and HF_ENDPOINT."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return HubError(f"No space left on the device while fetching {place}; free some and run again.")
    return HubError(f"{place} could not be used ({type(error).__name__}: {_said(error)}).")


def _meanings() -> tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[MergelineError], str], ...]:
    """Return rows of exception class, Mergeline's class and text; the first row that fits counts.

    Built only after a failure: importing the libraries takes longer than ``mergeline --help`` may.
    """
    from huggingface_hub import errors

    xet: Any = sys.modules.get("hf_xet")  # missing on some processors; unless imported, it raised nothing
    refused_by_xet: tuple[type[Exception], ...] = (xet.XetAuthenticationError,) if xet else ()
    return (
        (
            errors.OfflineModeIsEnabled,
            HubError,
            "{place} was not asked: HF_HUB_OFFLINE is set; unset it, or fetch the files beforehand.",
        ),
        (
            errors.GatedRepoError,
            RepositoryError,
            "{place} is gated: accept its conditions at {hub_url}/{repo_id}, then set HF_TOKEN to a token of yours.",
        ),
        (
            errors.RevisionNotFoundError,
            RepositoryError,
            "{place} has no revision {revision!r}: name a branch, a tag or a full commit.",
        ),
        (
            errors.RemoteEntryNotFoundError,
            RepositoryError,
            "{place} lacks a file it should have at {branch}: {said}",
        ),
        (
            errors.RepositoryNotFoundError,
            RepositoryError,
            "{place} does not exist or is private: check the name, or set HF_TOKEN to a token that may read it.",
        ),
        (
            errors.LocalTokenNotFoundError,
            RepositoryError,
            "No token for {hub_url}: set HF_TOKEN, or log in with `hf auth login`.",
        ),
        (errors.HFValidationError, RepositoryError, "{repo_id!r} is not a repository id; expected `owner/name`."),
        (refused_by_xet, RepositoryError, _TOKEN_REFUSED),
    )


def status_of(error: Exception) -> int | None:
    """Return the HTTP status of the response that caused ``error``, if any."""
    response: Any = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def is_transport_failure(error: Exception) -> bool:
    """Whether the connection failed, rather than the request."""
    from huggingface_hub.utils import httpx

    is_transport = isinstance(error, (httpx.TransportError, ConnectionError, TimeoutError))
    return is_transport and not isinstance(error, httpx.UnsupportedProtocol)


def keep_signatures_out_of_logs() -> None:
    """Remove queries of URLs from the libraries' log lines: on the Hub's storage they are signatures."""
    for name in ("httpx2", "httpcore2.http11", "huggingface_hub.file_download", "huggingface_hub.utils._http"):
        logging.getLogger(name).addFilter(_without_secrets_filter)


def _without_secrets_filter(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_secrets(without_queries(record.getMessage())), ()
    return True


def _is_request_failure(error: Exception) -> bool:
    """Whether the Hub's libraries raise such exceptions; anything else is a fault of Mergeline."""
    from huggingface_hub.utils import httpx

    return isinstance(error, (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RuntimeError))


def _said(error: Exception) -> str:
    """Return what the server, else the exception, says: one line of at most 300 characters."""
    text = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return one_line(without_queries(str(text)).strip().rstrip("."))


def _answerer(error: Exception, hub_url: str) -> str:
    """Return scheme and host of the response: the Hub, or the storage it redirects to."""
    parts = urlsplit(str(getattr(getattr(error, "response", None), "url", hub_url)))
    return f"{parts.scheme}://{parts.netloc}"


def _requested_delay(error: Exception) -> float:
    """Return the seconds that the server asks to wait, or 0."""
    headers: Any = getattr(getattr(error, "response", None), "headers", {})
    value = str(headers.get("Retry-After", ""))
    return float(value) if value.isdigit() else 0.0
