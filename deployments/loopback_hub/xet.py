"""The Xet store: files cut into chunks, chunks packed into xorbs, and shards that say which chunks make which file.

The server never unpacks a chunk. It keeps xorbs and shards as clients send them, and tells a client which bytes of
which xorbs to fetch. Formats: the Xet protocol specification of the Hub's documentation, shard and xorb chapters.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.loopback_hub.contents import Contents, write_file
from deployments.loopback_hub.messages import Refusal

TOKEN_SECONDS = 3600
"""How long a Xet token is valid, by what clients are told."""

_HASH = re.compile(r"[0-9a-f]{64}")
_SHARD_HEADER_BYTES = 48
# Every entry of a shard's file section: a hash and four little-endian numbers.
_SHARD_ENTRY = struct.Struct("<32s4I")
_END_OF_FILES = b"\xff" * 32
_HAS_VERIFICATION, _HAS_METADATA = 1 << 31, 1 << 30
_CHUNK_HEADER_BYTES = 8


@dataclass(frozen=True)
class Term:
    """Consecutive chunks of a xorb that make up part of a file."""

    xorb: str
    """Name of the xorb."""
    size: int
    """Length of that part of the file, in bytes."""
    chunks: range
    """Indices of the chunks in the xorb."""


@dataclass(frozen=True)
class XetFile:
    """A file as a shard describes it."""

    xet_hash: str
    """Its hash in the Xet store."""
    sha256: str
    """Digest of its contents."""
    terms: tuple[Term, ...]
    """Its parts in order."""

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return sum(term.size for term in self.terms)


class XetStore:
    """Xorbs and shards under ``root``; an index of the shards' files is kept in memory."""

    def __init__(self, root: Path) -> None:
        self._xorbs, self._shards, self._lock = root / "xorbs", root / "shards", threading.Lock()
        self._by_sha256: dict[str, XetFile] = {}
        self._by_xet_hash: dict[str, XetFile] = {}
        self.read_token, self.write_token = secrets.token_hex(16), secrets.token_hex(16)
        self.address = ""
        """Address of the store; known once the server listens."""
        for path in sorted(self._shards.glob("*.mdb")):
            self._index(path.read_bytes())

    def xorb(self, name: str) -> Path:
        """Return the path of a xorb, whether or not it exists."""
        if not _HASH.fullmatch(name):
            raise Refusal(400, f"Not a Xet hash: {name!r}")
        return self._xorbs / name

    def add_shard(self, data: bytes) -> None:
        """Store a shard and index its files."""
        try:
            self._index(data)
        except struct.error as error:
            raise Refusal(400, f"The shard ends too early: {error}") from error
        write_file(self._shards / f"{hashlib.sha256(data).hexdigest()}.mdb", data)

    def hash_of(self, sha256: str) -> str | None:
        """Return the Xet hash of a file; None if it did not come through Xet."""
        file = self._by_sha256.get(sha256)
        return file.xet_hash if file else None

    def file(self, xet_hash: str) -> XetFile:
        """Return a file by its Xet hash."""
        try:
            return self._by_xet_hash[xet_hash]
        except KeyError:
            raise Refusal(404, f"No file {xet_hash} in this store") from None

    def reconstruction(self, file: XetFile, span: range, xorb_address: str) -> dict[str, Any]:
        """Return which bytes of which xorbs, below ``xorb_address``, contain the bytes ``span`` of a file."""
        terms: list[dict[str, Any]] = []
        fetches: dict[str, list[dict[str, Any]]] = {}
        offset, start = 0, 0
        for term in file.terms:
            if start < span.stop and start + term.size > span.start:
                if not terms:
                    offset = span.start - start
                chunks = {"start": term.chunks.start, "end": term.chunks.stop}
                packed = self._span(term)
                terms.append({"hash": term.xorb, "unpacked_length": term.size, "range": chunks})
                url_range = {"start": packed.start, "end": packed.stop - 1}
                fetch = {"range": chunks, "url": f"{xorb_address}/{term.xorb}", "url_range": url_range}
                fetches.setdefault(term.xorb, []).append(fetch)
            start += term.size
        return {"offset_into_first_range": offset, "terms": terms, "fetch_info": fetches}

    def materialise(self, sha256: str, contents: Contents) -> None:
        """Write a file that came through Xet as an LFS object, for clients without Xet; checks its digest."""
        file = self._by_sha256.get(sha256)
        if file is None or contents.lfs(sha256).exists():
            return
        import hf_xet  # a compiled module without stubs, hence the two exceptions below

        session = hf_xet.XetSession()  # pyright: ignore[reportAttributeAccessIssue]
        info = hf_xet.XetFileInfo(file.xet_hash, file.size)  # pyright: ignore[reportAttributeAccessIssue]
        access = {"endpoint": self.address, "token": self.read_token}
        expiry = int(time.time()) + TOKEN_SECONDS
        with contents.incoming() as path:
            with session.new_file_download_group(**access, token_expiry_unix_secs=expiry) as downloads:
                downloads.start_download_file(info, str(path))
            with path.open("rb") as written:
                actual = hashlib.file_digest(written, "sha256").hexdigest()
            contents.adopt_lfs(path, sha256, actual)

    def _index(self, shard: bytes) -> None:
        files = _files_of(shard)
        for file in files:
            if missing := {term.xorb for term in file.terms if not self.xorb(term.xorb).exists()}:
                raise Refusal(400, f"The shard needs xorbs that were never uploaded: {', '.join(sorted(missing))}")
        with self._lock:
            self._by_sha256 |= {file.sha256: file for file in files}
            self._by_xet_hash |= {file.xet_hash: file for file in files}

    def _span(self, term: Term) -> range:
        """Return the bytes of the term's chunks in the xorb, found by reading every chunk header before their end."""
        start = stop = 0
        with self.xorb(term.xorb).open("rb") as file:
            for chunk in range(term.chunks.stop):
                if chunk == term.chunks.start:
                    start = stop
                file.seek(stop)
                packed_bytes = int.from_bytes(file.read(_CHUNK_HEADER_BYTES)[1:4], "little")
                stop += _CHUNK_HEADER_BYTES + packed_bytes
        return range(start, stop)


def _files_of(shard: bytes) -> list[XetFile]:
    files: list[XetFile] = []
    position = _SHARD_HEADER_BYTES

    def next_entry() -> tuple[bytes, int, int, int, int]:
        nonlocal position
        position += _SHARD_ENTRY.size
        return _SHARD_ENTRY.unpack_from(shard, position - _SHARD_ENTRY.size)

    while True:
        name, flags, count, _, _ = next_entry()
        if name == _END_OF_FILES:
            return files
        terms: list[Term] = []
        for _ in range(count):
            xorb, _, size, first, stop = next_entry()
            terms.append(Term(_hex(xorb), size, range(first, stop)))
        if flags & _HAS_VERIFICATION:
            position += count * _SHARD_ENTRY.size
        if flags & _HAS_METADATA:
            files.append(XetFile(_hex(name), _hex(next_entry()[0]), tuple(terms)))


def _hex(digest: bytes) -> str:
    # Xet prints a hash as four little-endian 64-bit numbers.
    return "".join(digest[start : start + 8][::-1].hex() for start in range(0, 32, 8))
