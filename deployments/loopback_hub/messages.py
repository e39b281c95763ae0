"""HTTP requests as routes read them, and the responses they return."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from io import BufferedIOBase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

CHUNK_BYTES = 1 << 20
"""Bodies are read and written in chunks of this size."""

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)


class Refusal(Exception):
    """An error response, raised where its reason is found."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers or {})

    def answer(self) -> Answer:
        """Return the response, with the headers from which clients choose their exception."""
        # A header is one line of Latin-1; the body has the whole message.
        headers = {"X-Error-Message": " ".join(self.message.split()).encode("ascii", "replace").decode()}
        if self.code:
            headers["X-Error-Code"] = self.code
        return Answer.of_json({"error": self.message}, self.status, headers | self.headers)


@dataclass(frozen=True)
class Received:
    """A body that was written to a file."""

    size: int
    """Length in bytes."""
    sha256: str
    """Digest of the bytes as they arrived, 64 hex digits."""


class Request:
    """One request; its body is read once, as bytes, as JSON or into a file."""

    def __init__(self, method: str, target: str, headers: Message, stream: BufferedIOBase) -> None:
        split = urlsplit(target)
        self.method, self.target, self.headers = method, target, headers
        self.path = split.path
        """The path as sent: still quoted, so that ``refs%2Fpr%2F1`` stays one segment."""
        self.query = {name: values[-1] for name, values in parse_qs(split.query).items()}
        self._stream, self._is_read = stream, False

    def body(self) -> bytes:
        """Read the whole body into memory."""
        return b"".join(self._chunks())

    def json(self) -> dict[str, Any]:
        """Read the body as a JSON object; an empty body is an empty object."""
        try:
            return json.loads(self.body() or b"{}")
        except ValueError as error:
            raise Refusal(400, f"The body is not JSON: {error}") from error

    def save_to(self, path: Path) -> Received:
        """Write the body to ``path``."""
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as file:
            for chunk in self._chunks():
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return Received(size, digest.hexdigest())

    def drain(self) -> None:
        """Read a body that no route has read: it would be taken for the next request on this connection."""
        if not self._is_read:
            for _ in self._chunks():
                pass

    def byte_range(self, size: int) -> range | None:
        """Return the range of the ``Range`` header within ``size`` bytes; None without one; 416 if it is empty."""
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None or match.groups() == ("", ""):
            return None
        first, last = match.groups()
        if first and last and int(last) < int(first):
            return None
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            raise Refusal(416, f"No such bytes: {match[0]} of {size}", headers={"Content-Range": f"bytes */{size}"})
        return range(start, stop)

    def _chunks(self) -> Iterator[bytes]:
        self._is_read = True
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            chunk = self._stream.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise ConnectionResetError("the client left in the middle of a body")
            left -= len(chunk)
            yield chunk


@dataclass(frozen=True)
class Answer:
    """An HTTP response whose body is bytes in memory, or a span of a file."""

    status: int = 200
    """HTTP status."""
    body: bytes = b""
    """The body, unless ``file`` is given."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers besides ``Content-Length`` and those that every answer has."""
    file: Path | None = None
    """File to send from."""
    span: range = range(0)
    """Which bytes of ``file``."""

    @property
    def length(self) -> int:
        """Length of the body in bytes."""
        return len(self.span) if self.file else len(self.body)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body."""
        if self.file is None:
            yield self.body
            return
        with self.file.open("rb") as file:
            file.seek(self.span.start)
            for start in range(self.span.start, self.span.stop, CHUNK_BYTES):
                yield file.read(min(CHUNK_BYTES, self.span.stop - start))

    @classmethod
    def of_json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
        """Answer with ``value`` as JSON."""
        headers = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        return cls(status, json.dumps(value).encode(), headers)

    @classmethod
    def of_file(cls, path: Path, request: Request, headers: Mapping[str, str] | None = None) -> Answer:
        """Answer with the file at ``path``, or with the part of it that the request's ``Range`` names."""
        size = path.stat().st_size
        span = request.byte_range(size)
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **(headers or {})}
        if span is None:
            return cls(200, headers=headers, file=path, span=range(size))
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
        return cls(206, headers=headers, file=path, span=span)
