"""Downloaded files in the Hugging Face cache, checked once against the Hub's sizes and sha256."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from mergeline.errors import HubError
from mergeline.sources.repository import RemoteFile
from mergeline.support.digests import file_sha256

logger = logging.getLogger(__name__)

_RECORDS_DIRECTORY = "mergeline-verified"


def fetch_intact(fetch: Callable[[], Path], files: Sequence[RemoteFile], source: str) -> Path:
    """Fetch files, check their sizes and sha256, and fetch damaged files once more.

    Args:
        fetch: Downloads what is missing and returns the snapshot: ``<cache>/models--owner--name/snapshots/<commit>``.
        files: The files that ``fetch`` downloads.
        source: Name of the repository for messages.

    Raises:
        HubError: A file arrived damaged twice, or lies outside the cache.
    """
    directory = fetch()
    damaged = _damaged(directory, files)
    require_inside(directory, [file.path for file in damaged])
    for file in damaged:
        logger.warning("%s: %s is damaged in the cache; fetching it again.", source, file.path)
        _discard(directory, file.path)
    if not damaged:
        return directory
    directory = fetch()
    damaged = _damaged(directory, damaged)
    for file in damaged:
        _discard(directory, file.path)
    if damaged:
        raise HubError(
            f"{source}: {', '.join(file.path for file in damaged)} arrived twice with another size or sha256 than the "
            "Hub declares; its copy there is damaged, so choose another revision or tell its owner."
        )
    return directory


def require_inside(directory: Path, paths: Sequence[str]) -> None:
    """Raise HubError if writing a file of a snapshot, or its blob, would follow a link out of the cache."""
    for path in (*(directory / path for path in paths), directory.parents[1] / "blobs" / "blob"):
        if not _is_inside(directory, path):
            raise HubError(
                f"{path.parent} leads to {path.parent.resolve()}, outside the cache in {directory.parents[1]}; nothing "
                "was written there. Remove the link and run again."
            )


def _is_inside(directory: Path, path: Path) -> bool:
    """Whether ``path`` lies in the repository's folder of the cache, or among the blobs that all repositories share.

    Links in the path to its folder are followed; if the entry is a link itself, that is not.
    """
    folder, repository = path.parent.resolve(), directory.parents[1].resolve()
    return folder.is_relative_to(repository) or folder.is_relative_to(directory.parents[2].resolve() / "blobs")


def _damaged(directory: Path, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        verdicts = pool.map(_is_intact, repeat(directory), files)
        return [file for file, is_intact in zip(files, verdicts, strict=True) if not is_intact]


def _discard(directory: Path, name: str) -> None:
    """Remove a file of a snapshot, with all links and the blob behind it, so that it is fetched again.

    Nothing outside the cache is removed: a link that leads out is removed, its target is not.
    """
    path = directory / name
    while _is_inside(directory, path):
        target = path.parent / path.readlink() if path.is_symlink() else None
        path.unlink(missing_ok=True)
        if target is None:
            return
        path = target


def _is_intact(directory: Path, file: RemoteFile) -> bool:
    """Check a file's size and sha256; the result is recorded with its size and modification time."""
    path = directory / file.path
    if not path.is_file():  # the library lists the files anew, and this list may lack it
        return False
    state = path.stat()
    if state.st_size != file.nbytes:
        return False
    if file.sha256 is None:
        return True
    record = directory.parents[1] / _RECORDS_DIRECTORY / file.sha256
    seen = f"{state.st_size} {state.st_mtime_ns}\n"
    if record.is_file() and record.read_text() == seen:
        return True
    if file_sha256(path) != file.sha256:
        return False
    if not record.is_symlink() and _is_inside(directory, record):
        with contextlib.suppress(OSError):  # a cache that may only be read is hashed every time
            record.parent.mkdir(exist_ok=True)
            record.write_text(seen)
    return True
