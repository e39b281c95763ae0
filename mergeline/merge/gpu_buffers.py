"""Memory of a GPU, filled by way of pinned memory of the host. Imported only where a GPU is used: it needs torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mergeline.methods._kernels.arithmetic import Arithmetic
from mergeline.methods._kernels.gpu import DTYPES, TorchArithmetic


class TorchBuffers:
    """Tensors of one device; see :class:`.buffers.Buffers`."""

    out_of_memory: tuple[type[BaseException], ...] = (torch.OutOfMemoryError,)

    def __init__(self, device: str) -> None:
        """Take the device; torch's ``cpu`` stands in for a GPU where there is none."""
        # Several workers share the processor's cores: torch's own threads would only wait for each other.
        torch.set_num_threads(1)
        self._device = torch.device(device)
        self.arithmetic: Arithmetic[Tensor] = TorchArithmetic(device)
        self._raw: dict[int, Tensor] = {}
        self._pinned: Tensor | None = None

    def elements(self, slot: int, count: int, dtype: str) -> Tensor:
        nbytes = count * DTYPES[dtype].itemsize
        if slot not in self._raw or self._raw[slot].numel() < nbytes:
            self._raw.pop(slot, None)
            self._raw[slot] = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        return self._raw[slot][:nbytes].view(DTYPES[dtype])

    def load(self, part: Tensor, read: Callable[[memoryview], None]) -> None:
        host = self._host(part)
        read(host.numpy().data)
        part.view(torch.uint8).copy_(host, non_blocking=True)

    def stored(self, part: Tensor) -> memoryview:
        host = self._host(part)
        host.copy_(part.view(torch.uint8), non_blocking=True)
        self._wait()
        return host.numpy().data

    def forget(self) -> None:
        self._raw.clear()
        self._pinned = None
        torch.cuda.empty_cache()

    def in_use(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(torch.cuda.Stream(self._device)) if self._is_gpu else nullcontext()

    @property
    def _is_gpu(self) -> bool:
        return self._device.type != "cpu"

    def _host(self, part: Tensor) -> Tensor:
        nbytes = part.numel() * part.element_size()
        # A copy may still be under way from or to what this memory held.
        self._wait()
        if self._pinned is None or self._pinned.numel() < nbytes:
            self._pinned = torch.empty(nbytes, dtype=torch.uint8, pin_memory=self._is_gpu)
        return self._pinned[:nbytes]

    def _wait(self) -> None:
        if self._is_gpu:
            torch.cuda.current_stream(self._device).synchronize()
