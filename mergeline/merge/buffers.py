"""Memory that blocks of tensors are read into and written from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mergeline.methods._kernels.arithmetic import Arithmetic, ArrayT
from mergeline.methods._kernels.cpu import CpuArithmetic
from mergeline.methods._kernels.source import STORED


class Buffers(Protocol[ArrayT]):
    """One worker's buffers on one device, reused for every tensor it merges."""

    arithmetic: Arithmetic[ArrayT]
    out_of_memory: tuple[type[BaseException], ...]
    """What is raised where the device has no more room; a smaller block may help."""

    def elements(self, slot: int, count: int, dtype: str) -> ArrayT:
        """Return the first elements of a buffer that grows to the largest block asked of it."""
        ...

    def load(self, part: ArrayT, read: Callable[[memoryview], None]) -> None:
        """Fill part of a buffer with what ``read`` writes into the memory it is given."""
        ...

    def stored(self, part: ArrayT) -> memoryview:
        """Return the bytes of part of a buffer; valid until the next call."""
        ...

    def forget(self) -> None:
        """Give all buffers back."""
        ...

    def in_use(self) -> AbstractContextManager[Any]:
        """Return what must be entered by the thread that uses the buffers."""
        ...


class HostBuffers:
    """numpy arrays."""

    out_of_memory: tuple[type[BaseException], ...] = ()

    def __init__(self) -> None:
        """Allocate nothing yet."""
        self.arithmetic: Arithmetic[NDArray[Any]] = CpuArithmetic()
        self._raw: dict[int, NDArray[np.uint8]] = {}

    def elements(self, slot: int, count: int, dtype: str) -> NDArray[Any]:
        nbytes = count * np.dtype(STORED[dtype]).itemsize
        if slot not in self._raw or self._raw[slot].size < nbytes:
            self._raw[slot] = np.empty(nbytes, np.uint8)
        return self._raw[slot][:nbytes].view(STORED[dtype])

    def load(self, part: NDArray[Any], read: Callable[[memoryview], None]) -> None:
        read(part.data.cast("B"))

    def stored(self, part: NDArray[Any]) -> memoryview:
        return part.data.cast("B")

    def forget(self) -> None:
        self._raw.clear()

    def in_use(self) -> AbstractContextManager[Any]:
        return nullcontext()


def buffers_on(device: str) -> Buffers[Any]:
    """Return new buffers on ``cpu`` or ``cuda:n``; only the latter need torch."""
    if device == "cpu":
        return HostBuffers()
    from mergeline.merge.gpu_buffers import TorchBuffers

    return TorchBuffers(device)
