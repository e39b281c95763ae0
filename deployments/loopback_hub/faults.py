"""Failures that a test orders: the next matching requests are refused, cut off, or answered falsely."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from deployments.loopback_hub.messages import Answer, Request

_counting = threading.Lock()


@dataclass
class Fault:
    """One ordered failure; add it to :attr:`LocalHub.faults`.

    With ``cut_after`` or ``status=None`` the request is served (a commit is made, say); then its response is cut off,
    or changed by ``headers`` and ``body``.
    """

    pattern: str
    """Regular expression searched for in ``"METHOD /path?query"``."""
    status: int | None = 503
    """HTTP status of the refusal; None: the request is served."""
    times: int = 1
    """How many more requests fail; counts down."""
    skip: int = 0
    """How many matching requests are served before the first fails; counts down."""
    cut_after: int | None = None
    """Send this many bytes of the body, then drop the connection."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the refusal, e.g. ``Retry-After``; with ``status=None``, in place of the response's."""
    body: bytes | None = None
    """With ``status=None``, in place of the response's body."""

    @property
    def is_refusal(self) -> bool:
        """Whether the request is not served."""
        return self.cut_after is None and self.status is not None


def fault_for(request: Request, faults: list[Fault]) -> Fault | None:
    """Return the first fault that applies to a request, and count it; None if none does."""
    with _counting:
        for fault in faults:
            if not fault.times or not re.search(fault.pattern, f"{request.method} {request.target}"):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            return fault
    return None


def changed(answer: Answer, fault: Fault) -> Answer:
    """Return the response with the fault's headers and body in place of its own."""
    answer = replace(answer, headers={**answer.headers, **fault.headers})
    return answer if fault.body is None else replace(answer, body=fault.body, file=None)
