"""Failures ordered in advance: the next matching requests are refused, delayed, cut or answered with lies."""

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

    With ``cut_after`` or ``status=None`` the request is served for real (a commit is made, say), and then its answer
    is cut, late, or changed by ``headers`` and ``body``.
    """

    pattern: str
    """Regular expression searched for in ``"METHOD /path?query"``."""
    status: int | None = 503
    """HTTP status given instead of serving the request."""
    times: int = 1
    """How many more requests fail; counts down."""
    skip: int = 0
    """How many matching requests are served first; counts down."""
    cut_after: int | None = None
    """Send this many bytes of the body, then drop the connection."""
    delay_seconds: float = 0
    """Wait this long before anything else."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the refusal, e.g. ``Retry-After``; with ``status=None``, in place of the real answer's."""
    body: bytes | None = None
    """With ``status=None``, in place of the real answer's body."""

    @property
    def is_refusal(self) -> bool:
        """Whether the request is turned away without being served."""
        return self.cut_after is None and self.status is not None


def fault_for(request: Request, faults: list[Fault]) -> Fault | None:
    """Give the first fault whose turn it is, and count it."""
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
    """Give the real answer with what the fault puts in place of its headers and body."""
    answer = replace(answer, headers={**answer.headers, **fault.headers})
    return answer if fault.body is None else replace(answer, body=fault.body, file=None)
