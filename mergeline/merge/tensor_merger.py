"""One tensor at a time, streamed in blocks from the sources through a method's formulas into the output file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from math import prod, sqrt
from typing import Any

from mergeline.errors import MergeError
from mergeline.merge.buffers import buffers_on
from mergeline.merge.shard_file import ShardFile, TensorOutcome, TensorWriter
from mergeline.merge.source_files import SourceFiles
from mergeline.merge.tensor_blocks import TensorBlocks
from mergeline.methods import METHODS
from mergeline.methods._kernels.tensor_inputs import TensorInputs
from mergeline.plan.memory import StreamSizes
from mergeline.plan.merge_plan import MergePlan, TensorInput, TensorPlan

_SMALLEST_BLOCK = 2**16
"""A GPU that has no room for this has no room for merging."""

_OUTPUT = -1
"""Slot of the output's buffer; the inputs' are counted from 0."""


class TensorMerger:
    """One worker's way to merge tensors, with buffers that are reused for all of them."""

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
        self._device, self._sizes, self._on_progress = device, sizes, on_progress
        self._buffers = buffers_on(device)
        self._written_nbytes = 0
        """Of the tensor under way."""

    def in_use(self) -> AbstractContextManager[Any]:
        """Return what the worker's thread must enter before it merges."""
        return self._buffers.in_use()

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
            except self._buffers.out_of_memory:
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
        self._sizes = StreamSizes(held, block)
        self._buffers.forget()

    def _copy(self, tensor: TensorPlan) -> None:
        item, step = tensor.inputs[0], self._sizes.block_elements
        writer = self._begin(tensor)
        block = memoryview(bytearray(min(step, tensor.nbytes)))
        for start in range(0, tensor.nbytes, step):
            part = block[: min(step, tensor.nbytes - start)]
            self._sources.read(item, start, part)
            self._write(writer, part)
        self._file.finish(writer, TensorOutcome(tensor.name, "copied", (1.0,), (), (), ()))

    def _compute(self, tensor: TensorPlan) -> None:
        settings = tensor.method_settings()
        writer = self._begin(tensor)
        count = prod(settings.shape)
        row_elements = settings.shape[-1] if settings.shape else None
        inputs = self._inputs(tensor, tensor.inputs, 0, count, writer, row_elements)
        branch = self._method.merge(inputs, settings)
        self._refuse_not_finite(tensor, tensor.inputs, inputs)
        if count < tensor.element_count:
            # The rows that only the first input has.
            rest = self._inputs(tensor, tensor.inputs[:1], count, tensor.element_count - count, writer)
            rest.write(_first)
            self._refuse_not_finite(tensor, tensor.inputs[:1], rest)
        self._file.finish(writer, _outcome(tensor.name, branch, inputs))

    def _inputs(
        self, tensor: TensorPlan, items: Sequence[TensorInput], start: int, count: int, writer: TensorWriter,
        row_elements: int | None = None,
    ) -> TensorInputs[Any]:  # fmt: skip
        """Return some elements of a tensor's inputs, whose result goes to the writer."""
        blocks = TensorBlocks(self._buffers, self._sources, items, start, count, self._sizes)
        return TensorInputs(
            self._buffers.arithmetic,
            blocks.dtypes,
            tensor.dtype,
            count,
            blocks.look,
            lambda block: self._buffers.elements(_OUTPUT, block.count, tensor.dtype),
            lambda output: self._write(writer, self._buffers.stored(output)),
            row_elements,
        )

    def _refuse_not_finite(self, tensor: TensorPlan, items: Sequence[TensorInput], inputs: TensorInputs[Any]) -> None:
        if inputs.not_finite:
            names = " and ".join(self._labels[item.source] for item in items)
            raise MergeError(
                f"tensor {tensor.name!r}: the result holds NaN or infinite values as {tensor.dtype}; look at it in "
                f"{names}."
            )

    def _begin(self, tensor: TensorPlan) -> TensorWriter:
        # What is written anew is not progress.
        if self._written_nbytes:
            self._on_progress(-self._written_nbytes)
        self._written_nbytes = 0
        return self._file.begin(tensor.name)

    def _write(self, writer: TensorWriter, data: memoryview) -> None:
        writer.write(data)
        self._written_nbytes += len(data)
        self._on_progress(len(data))


def _first(x: Sequence[Any]) -> Any:
    """Leave a single input as it is: it is only rounded."""
    return x[0]


def _outcome(name: str, branch: str, inputs: TensorInputs[Any]) -> TensorOutcome:
    distances = inputs.measured
    if distances is None:
        return TensorOutcome(name, branch, inputs.coefficients, (), (), ())
    norms = tuple(map(sqrt, distances.squared_norms))
    between = tuple(tuple(map(sqrt, row)) for row in distances.squared)
    return TensorOutcome(name, branch, inputs.coefficients, norms, between, inputs.moved)
