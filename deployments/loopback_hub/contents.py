"""Bytes on disk, named by their digests: git blobs, LFS objects and the parts of uploads."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from deployments.loopback_hub.messages import PIECE_BYTES, Received, Refusal, Request

_SHA256 = re.compile(r"[0-9a-f]{64}")


def git_oid(data: bytes) -> str:
    """Give the SHA-1 under which git stores a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Give the text that git stores in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def write_file(path: Path, data: bytes) -> None:
    """Write ``path`` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.write_bytes(data)
    temporary.replace(path)


class Contents:
    """The content-addressed files under ``root``."""

    def __init__(self, root: Path) -> None:
        self._root, self._incoming, self._parts = root, root / "incoming", root / "parts"
        # What an earlier run was receiving when it stopped has no name yet and never will.
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)

    @contextmanager
    def incoming(self) -> Generator[Path]:
        """Lend a temporary path on the same file system; what is not renamed away is deleted."""
        path = self._incoming / uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def blob(self, oid: str) -> Path:
        """Give the path of a git blob."""
        return self._root / "blobs" / oid[:2] / oid

    def add_blob(self, data: bytes) -> str:
        """Store a small file; gives its git object id."""
        oid = git_oid(data)
        if not self.blob(oid).exists():
            write_file(self.blob(oid), data)
        return oid

    def lfs(self, sha256: str) -> Path:
        """Give the path of a large file, whether or not it is there."""
        if not _SHA256.fullmatch(sha256):
            raise Refusal(422, f"Not a sha256: {sha256!r}")
        return self._root / "lfs" / sha256[:2] / sha256

    def receive_lfs(self, request: Request, sha256: str) -> None:
        """Store the request's body as the large file ``sha256``, if that is what it is."""
        with self.incoming() as path:
            self.adopt_lfs(path, sha256, request.save_to(path).sha256)

    def receive_part(self, request: Request, sha256: str, number: int) -> Received:
        """Store the request's body as part ``number`` of a large file."""
        with self.incoming() as path:
            received = request.save_to(path)
            part = self._parts / sha256 / str(number)
            part.parent.mkdir(parents=True, exist_ok=True)
            path.replace(part)
        return received

    def join_parts(self, sha256: str, numbers: Sequence[int]) -> None:
        """Join uploaded parts into the large file ``sha256`` and forget the parts."""
        if self.lfs(sha256).exists():
            return  # a retried completion, or the same file from a second client
        parts = [self._parts / sha256 / str(number) for number in numbers]
        if missing := [part.name for part in parts if not part.exists()]:
            raise Refusal(400, f"Parts {', '.join(missing)} of {sha256} were never uploaded")
        with self.incoming() as path:
            with path.open("wb") as whole:
                for part in parts:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, whole, PIECE_BYTES)
            with path.open("rb") as whole:
                found = hashlib.file_digest(whole, "sha256").hexdigest()
            self.adopt_lfs(path, sha256, found)
        shutil.rmtree(self._parts / sha256, ignore_errors=True)

    def adopt_lfs(self, path: Path, expected: str, found: str) -> None:
        """Rename the finished file at ``path`` to its digest, which must be the one that was announced."""
        if found != expected:
            raise Refusal(400, f"The upload has sha256 {found}, not {expected}")
        destination = self.lfs(expected)
        destination.parent.mkdir(parents=True, exist_ok=True)
        path.replace(destination)
