"""Files on disk, named by their digests: git blobs and LFS objects."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from deployments.loopback_hub.messages import Refusal, Request

_SHA256 = re.compile(r"[0-9a-f]{64}")


def git_oid(data: bytes) -> str:
    """Return the SHA-1 under which git stores a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the text that git stores in place of a large file."""
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
        self._root, self._incoming = root, root / "incoming"
        # Uploads that were cut off when an earlier server stopped.
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)

    @contextmanager
    def incoming(self) -> Generator[Path]:
        """Yield a temporary path on the same file system; a file that is still there afterwards is deleted."""
        path = self._incoming / uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def blob(self, oid: str) -> Path:
        """Return the path of a git blob."""
        return self._root / "blobs" / oid[:2] / oid

    def add_blob(self, data: bytes) -> str:
        """Store a small file and return its git object id."""
        oid = git_oid(data)
        if not self.blob(oid).exists():
            write_file(self.blob(oid), data)
        return oid

    def lfs(self, sha256: str) -> Path:
        """Return the path of a large file, whether or not it exists."""
        if not _SHA256.fullmatch(sha256):
            raise Refusal(422, f"Not a sha256: {sha256!r}")
        return self._root / "lfs" / sha256[:2] / sha256

    def receive_lfs(self, request: Request, sha256: str) -> None:
        """Store the request's body as the large file ``sha256``; 400 if its digest is another."""
        with self.incoming() as path:
            self.adopt_lfs(path, sha256, request.save_to(path).sha256)

    def adopt_lfs(self, path: Path, expected: str, actual: str) -> None:
        """Rename the complete file at ``path`` to its digest; 400 if that is not the announced one."""
        if actual != expected:
            raise Refusal(400, f"The upload has sha256 {actual}, not {expected}")
        destination = self.lfs(expected)
        destination.parent.mkdir(parents=True, exist_ok=True)
        path.replace(destination)
