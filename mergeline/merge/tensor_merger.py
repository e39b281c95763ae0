"""One tensor at a time, streamed in pieces from the sources through a method's kernel into the output file.

Imported only where tensors are merged: it needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from mergeline.errors import MergeError
from mergeline.merge.measured import Measurements
from mergeline.merge.shard_file import ShardFile, TensorOutcome, TensorWriter
from mergeline.merge.source_files import SourceFiles
from mergeline.methods import METHODS, Kernel
from mergeline.plan.memory import StreamSizes
from mergeline.plan.merge_plan import MergePlan, TensorInput, TensorPlan
from mergeline.support.dtypes import BITS

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


_SMALLEST_BLOCK = 2**16
"""A GPU that has no room for this has no room for merging."""


_OUTPUT = -1
"""Slot of the output's buffer; the inputs' are counted from 0."""


@dataclass(frozen=True)
class _Held:
    """What a buffer holds."""

    item: TensorInput
    start: int
    stop: int
    values: Tensor


@dataclass(frozen=True)
class _Part:
    """Elements of one tensor that are computed alike, and how they are cut."""

    start: int
    stop: int
    inputs: tuple[TensorInput, ...]
    row_elements: int
    """Pieces hold whole multiples of this; 1 unless the kernel wants rows."""
    dtype: torch.dtype
    """Of the arithmetic."""
    is_held: bool = False
    """Whether it will be looked at again and is small enough to be kept until then."""

    @property
    def element_count(self) -> int:
        return self.stop - self.start


_Step = Callable[[list[Tensor], Tensor], None]
"""Takes the inputs' pieces and writes the result's."""


class TensorMerger:
    """One worker's buffers, reused for every tensor it merges."""

    def __init__(
        self, plan: MergePlan, sources: SourceFiles, file: ShardFile, device: str, sizes: StreamSizes,
        on_progress: Callable[[int], object],
    ) -> None:  # fmt: skip
        """Allocate nothing yet.

        Args:
            plan: The whole merge.
            sources: Where inputs are read.
            file: Where results are written.
            device: ``cpu`` or ``cuda:n``.
            sizes: What is in memory at once.
            on_progress: Told the number of bytes just written; negative where they are written anew.
        """
        self._method = METHODS[plan.merge_method]
        self._labels = [source.label for source in plan.sources]
        self._sources, self._file = sources, file
        self._device, self._sizes, self._on_progress = torch.device(device), sizes, on_progress
        self._raw: dict[int, Tensor] = {}
        self._held: dict[int, _Held] = {}
        self._scratch: dict[tuple[int, torch.dtype], Tensor] = {}
        self._written_nbytes = 0
        """Of the tensor under way."""

    def merge(self, tensor: TensorPlan) -> None:
        """Compute one output tensor, write it to its place and note it in the journal.

        Raises:
            MergeError: If a source cannot be read as planned, the result is not finite, or a GPU's memory is too
                small even for small blocks.
        """
        self._written_nbytes = 0
        while True:
            try:
                # Of an empty tensor there is nothing to compute or measure.
                if tensor.is_copied or not tensor.nbytes:
                    self._copy(tensor)
                else:
                    self._compute(tensor)
            except torch.OutOfMemoryError:
                self._shrink(tensor)
            else:
                return

    def _shrink(self, tensor: TensorPlan) -> None:
        """Go on with half the block after a GPU ran out of memory."""
        held, block = self._sizes.held_elements // 2, self._sizes.block_elements // 2
        if block < _SMALLEST_BLOCK:
            raise MergeError(
                f"tensor {tensor.name!r}: {self._device} ran out of memory; run again with fewer workers or "
                "`--device cpu`, finished tensors are kept."
            ) from None
        self._sizes = StreamSizes(held, block, min(block, self._sizes.piece_elements))
        self._scratch.clear()
        self._raw.clear()
        self._held.clear()
        torch.cuda.empty_cache()

    def _copy(self, tensor: TensorPlan) -> None:
        item = tensor.inputs[0]
        writer = self._begin(tensor)
        for start in range(0, tensor.nbytes, self._sizes.block_elements):
            block = self._bytes(_OUTPUT, min(self._sizes.block_elements, tensor.nbytes - start)).numpy().data
            self._sources.read(item, start, block)
            self._write(writer, block)
        self._file.finish(writer, TensorOutcome(tensor.name, "copied", (1.0,), (), (), ()))

    def _compute(self, tensor: TensorPlan) -> None:
        settings = tensor.method_settings()
        kernel = self._method.kernel(settings)
        dtype = _wide_dtype([item.spec.dtype for item in tensor.inputs], tensor.dtype)
        row = settings.shape[-1] if kernel.by_rows and len(settings.shape) > 1 else 1
        part = _Part(0, prod(settings.shape), tensor.inputs, row, dtype)
        writer = self._look(tensor, part, kernel)
        measured = Measurements(len(tensor.inputs), kernel)
        if writer is None:
            writer = self._begin(tensor)
            self._merge_part(tensor, self._kept(part, kernel.passes + 1), measured.step, writer, measured)
        rest = _Part(part.stop, tensor.element_count, tensor.inputs[:1], 1, dtype)
        if rest.element_count:
            self._merge_part(tensor, rest, _take_first, writer)
        self._file.finish(writer, measured.outcome(tensor.name))

    def _look(self, tensor: TensorPlan, part: _Part, kernel: Kernel) -> TensorWriter | None:
        """Show the kernel all pieces as often as it asks.

        Returns:
            What the part was written with, where the kernel could write it in the last of these looks.
        """
        for number in range(kernel.passes):
            looks = kernel.passes + 1 - number
            if looks == 2 and kernel.anticipates(self._first_pieces(part)):
                writer = self._begin(tensor)
                self._merge_part(tensor, part, kernel.anticipate, writer)
                kernel.end_pass(number)
                return writer if kernel.is_as_anticipated else None
            for _, _, blocks in self._blocks(self._kept(part, looks)):
                for pieces, _ in self._pieces(part, blocks):
                    kernel.observe(number, pieces)
            kernel.end_pass(number)
        return None

    def _kept(self, part: _Part, looks: int) -> _Part:
        return replace(part, is_held=looks > 1 and part.element_count <= self._sizes.held_elements)

    def _merge_part(
        self, tensor: TensorPlan, part: _Part, step: _Step, writer: TensorWriter, measured: Measurements | None = None
    ) -> None:
        """Merge and write a part, block by block."""
        width, output_dtype = BITS[tensor.dtype] // 8, _DTYPES[tensor.dtype]
        on_host = self._device.type == "cpu"
        # Infinite or NaN if an element is, so that one look at the end does for the whole part.
        sums: list[Tensor] = []
        for start, stop, blocks in self._blocks(part):
            on_gpu = None if on_host else torch.empty(stop - start, dtype=output_dtype, device=self._device)
            for pieces, position in self._pieces(part, blocks):
                result = self._wide(_OUTPUT, pieces[0].numel(), part.dtype).view(pieces[0].shape)
                step(pieces, result)
                if measured is not None and measured.wants_result:
                    again = [self._widened(i, block, position, part) for i, block in enumerate(blocks)]
                    measured.after(again, result)
                count = result.numel()
                if on_gpu is None:
                    host = self._bytes(_OUTPUT, count * width)
                    piece = host.view(output_dtype)
                else:
                    host, piece = None, on_gpu[position : position + count]
                piece.copy_(result.flatten())
                # float16 overflows in the rounding, the others do not.
                sums.append((piece if tensor.dtype == "F16" else result).sum(dtype=torch.float32))
                if host is not None:
                    self._write(writer, host.numpy().data)
            if on_gpu is not None:
                host = self._bytes(_OUTPUT, (stop - start) * width)
                host.view(output_dtype).copy_(on_gpu, non_blocking=True)
                torch.cuda.current_stream(self._device).synchronize()
                self._write(writer, host.numpy().data)
        if not torch.stack(sums).isfinite().all():
            names = " and ".join(self._labels[item.source] for item in part.inputs)
            raise MergeError(
                f"tensor {tensor.name!r}: the result holds NaN or infinite values as {tensor.dtype}; look at it in "
                f"{names}."
            )

    def _blocks(self, part: _Part) -> Iterator[tuple[int, int, list[Tensor]]]:
        """Read a part's inputs block by block, in their stored dtypes."""
        piece = self._piece_elements(part)
        step = max(piece, self._sizes.block_elements // piece * piece)
        if part.is_held:
            step = part.element_count
        for start in range(part.start, part.stop, step):
            stop = min(start + step, part.stop)
            yield start, stop, [self._read(i, item, start, stop) for i, item in enumerate(part.inputs)]

    def _pieces(self, part: _Part, blocks: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], int]]:
        """Widen blocks piece by piece; with each, its position in the block."""
        for position in range(0, blocks[0].numel(), self._piece_elements(part)):
            yield [self._widened(i, block, position, part) for i, block in enumerate(blocks)], position

    def _first_pieces(self, part: _Part) -> list[Tensor]:
        stop = min(part.start + self._piece_elements(part), part.stop)
        blocks = [self._read(i, item, part.start, stop) for i, item in enumerate(part.inputs)]
        return [self._widened(i, block, 0, part) for i, block in enumerate(blocks)]

    def _piece_elements(self, part: _Part) -> int:
        return max(1, self._sizes.piece_elements // part.row_elements) * part.row_elements

    def _widened(self, slot: int, block: Tensor, position: int, part: _Part) -> Tensor:
        values = block[position : position + self._piece_elements(part)]
        wide = self._wide(slot, values.numel(), part.dtype).copy_(values)
        return wide if part.row_elements == 1 else wide.view(-1, part.row_elements)

    def _read(self, slot: int, item: TensorInput, start: int, stop: int) -> Tensor:
        """Return elements ``start`` to ``stop`` of an input on the device, reading them only if they are not there."""
        held = self._held.get(slot)
        if held is not None and (held.item, held.start, held.stop) == (item, start, stop):
            return held.values
        self._held.pop(slot, None)
        width = BITS[item.spec.dtype] // 8
        raw = self._bytes(slot, (stop - start) * width)
        self._sources.read(item, start * width, raw.numpy().data)
        values = raw.view(_DTYPES[item.spec.dtype])
        if self._device.type != "cpu":
            values = values.to(self._device, non_blocking=True)
        self._held[slot] = _Held(item, start, stop, values)
        return values

    def _begin(self, tensor: TensorPlan) -> TensorWriter:
        # What is written anew is not progress.
        self._on_progress(-self._written_nbytes)
        self._written_nbytes = 0
        return self._file.begin(tensor.name)

    def _write(self, writer: TensorWriter, data: memoryview) -> None:
        writer.write(data)
        self._written_nbytes += len(data)
        self._on_progress(len(data))

    def _bytes(self, slot: int, nbytes: int) -> Tensor:
        """Return the first ``nbytes`` of a host buffer that grows to the largest block asked of it."""
        buffer = self._raw.get(slot)
        if buffer is None or buffer.numel() < nbytes:
            self._held.pop(slot, None)
            buffer = torch.empty(nbytes, dtype=torch.uint8, pin_memory=self._device.type != "cpu")
            self._raw[slot] = buffer
        elif self._device.type != "cpu":
            # A copy to the GPU may still be reading what this buffer held.
            torch.cuda.current_stream(self._device).synchronize()
        return buffer[:nbytes]

    def _wide(self, slot: int, count: int, dtype: torch.dtype) -> Tensor:
        scratch = self._scratch.get((slot, dtype))
        if scratch is None or scratch.numel() < count:
            scratch = torch.empty(count, dtype=dtype, device=self._device)
            self._scratch[slot, dtype] = scratch
        return scratch[:count]


def _take_first(pieces: list[Tensor], result: Tensor) -> None:
    """Leave a single input as it is: it is only rounded."""
    result.copy_(pieces[0])


def _wide_dtype(inputs: Sequence[str], output: str) -> torch.dtype:
    """Return the dtype of the arithmetic: float32, or float64 where that is stored."""
    return torch.float64 if "F64" in (*inputs, output) else torch.float32
