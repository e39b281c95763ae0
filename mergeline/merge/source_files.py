"""The sources' weight files, opened once each and read at positions by any thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from mergeline.errors import MergeError
from mergeline.plan.merge_plan import TensorInput


class SourceFiles:
    """Reads parts of tensors; where the files are is not part of the plan."""

    def __init__(self, directories: Sequence[Path]) -> None:
        """Take the directory of each of the plan's sources, in their order."""
        self._directories = directories
        self._open: dict[tuple[int, str], int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> SourceFiles:
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, item: TensorInput, start: int, into: memoryview) -> None:
        """Fill ``into`` with the tensor's bytes from ``start`` on.

        Raises:
            MergeError: If the file is gone, unreadable or shorter than planned.
        """
        descriptor = self._descriptor(item)
        done = 0
        while done < len(into):
            count = os.preadv(descriptor, [into[done:]], item.spec.offset + start + done)
            if count == 0:
                path = self._path(item)
                raise MergeError(f"{path}: ends inside tensor {item.spec.name!r}; it changed since it was planned.")
            done += count

    def expect(self, inputs: Sequence[TensorInput], nbytes: int) -> None:
        """Let the system read the first ``nbytes`` of tensors that will be wanted next, while others are merged."""
        for item in inputs:
            os.posix_fadvise(
                self._descriptor(item), item.spec.offset, min(nbytes, item.spec.nbytes), os.POSIX_FADV_WILLNEED
            )

    def _path(self, item: TensorInput) -> Path:
        return self._directories[item.source] / item.spec.file

    def _descriptor(self, item: TensorInput) -> int:
        key = (item.source, item.spec.file)
        with self._lock:
            if key not in self._open:
                try:
                    self._open[key] = os.open(self._path(item), os.O_RDONLY)
                except OSError as problem:
                    raise MergeError(
                        f"{self._path(item)}: cannot be read: {problem.strerror}; fetch the source again."
                    ) from None
            return self._open[key]
