"""One output tensor's inputs read from the sources in blocks, as often as they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic

from mergeline.merge.buffers import Buffers
from mergeline.merge.source_files import SourceFiles
from mergeline.methods._kernels.arithmetic import ArrayT, Block
from mergeline.methods._kernels.summation import RUN
from mergeline.plan.memory import StreamSizes
from mergeline.plan.merge_plan import TensorInput
from mergeline.support.dtypes import BITS


class TensorBlocks(Generic[ArrayT]):
    """Blocks of some elements of every input; kept after the first look where they are few and will be seen again."""

    def __init__(
        self, buffers: Buffers[ArrayT], sources: SourceFiles, inputs: Sequence[TensorInput], start: int, count: int,
        sizes: StreamSizes,
    ) -> None:  # fmt: skip
        """Read nothing yet.

        Args:
            buffers: Where blocks are read to.
            sources: Where from.
            inputs: What.
            start: First element of each input.
            count: How many from there.
            sizes: What is in memory at once.
        """
        self.inputs, self._buffers, self._sources = inputs, buffers, sources
        self._start, self._count, self._sizes = start, count, sizes
        self.dtypes = tuple(item.spec.dtype for item in inputs)
        self._held_count = 0
        """Elements of each input that lie in its buffer from the first on, to be seen again."""

    def look(self, row_elements: int | None, is_last: bool) -> Iterator[Block[ArrayT]]:
        """Yield all blocks in order; with ``row_elements``, of whole rows."""
        unit = row_elements or RUN
        step = max(1, self._sizes.block_elements // unit) * unit
        # What is seen only once goes through a buffer that stays in the processor's cache.
        is_held = self._held_count > 0 or (not is_last and self._count <= self._sizes.held_elements)
        size = self._count if is_held else min(step, self._count)
        arrays: list[Any] = [self._buffers.elements(slot, size, dtype) for slot, dtype in enumerate(self.dtypes)]
        for start in range(0, self._count, step):
            stop = min(start + step, self._count)
            if is_held:
                self._read(arrays, self._held_count, stop, at=self._held_count)
                self._held_count = max(self._held_count, stop)
                parts = [array[start:stop] for array in arrays]
            else:
                self._read(arrays, start, stop, at=0)
                parts = [array[: stop - start] for array in arrays]
            yield Block(tuple(parts), self.dtypes, start, stop - start, row_elements)

    def _read(self, arrays: Sequence[Any], start: int, stop: int, *, at: int) -> None:
        """Read elements ``start`` to ``stop`` to the place ``at``; nothing where they are there already."""
        if start >= stop:
            return
        for item, array in zip(self.inputs, arrays, strict=True):
            first = (self._start + start) * BITS[item.spec.dtype] // 8

            def read(into: memoryview, item: TensorInput = item, first: int = first) -> None:
                self._sources.read(item, first, into)

            self._buffers.load(array[at : at + stop - start], read)
