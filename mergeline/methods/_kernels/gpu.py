"""Formulas on a GPU: each operation of a program as one torch call on a whole block.

The operations are the CPU's, one by one, and so are their bits: torch's elementwise float32 operations round like the
CPU's, none is contracted with another, and numbers are tensors (dividing by a Python number would multiply by its
reciprocal). Sums keep the order of :mod:`.summation`. It runs on torch's CPU device too, where the tests compare it.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mergeline.methods._kernels import native, source
from mergeline.methods._kernels.arithmetic import Block, bound, number_rows
from mergeline.methods._kernels.formula import Arguments, Operation, Program
from mergeline.methods._kernels.selection import LOW_BITS
from mergeline.methods._kernels.source import is_double
from mergeline.methods._kernels.summation import LANES, RUN

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def _sqrt(values: Tensor) -> Tensor:
    # torch 2.13's float32 square root on a CPU is off by one bit for every fifth number; numpy's and CUDA's are exact.
    return torch.from_numpy(np.sqrt(values.numpy())) if values.device.type == "cpu" else torch.sqrt(values)


_OPERATIONS: dict[str, Any] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "neg": operator.neg,
    "abs": torch.abs, "sqrt": _sqrt, "where": torch.where, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne, "and": operator.and_,
    "or": operator.or_, "not": operator.invert,
}  # fmt: skip


class TorchArithmetic:
    """Programs on one torch device; see :class:`.arithmetic.Arithmetic`."""

    def __init__(self, device: str) -> None:
        """Take the device, ``cpu`` or ``cuda:n``."""
        self.device = torch.device(device)

    def sums(
        self, program: Program, arguments: Arguments, block: Block[Tensor], totals: NDArray[np.float64], *, double: bool
    ) -> None:
        for index, values in enumerate(self._results(program, arguments, block, double)):
            _add_runs(values, totals[block.rows, index])

    def write(
        self, program: Program, arguments: Arguments, block: Block[Tensor], dtype: str, output: Tensor,
        totals: NDArray[np.float64],
    ) -> int:  # fmt: skip
        written, *summed = self._results(program, arguments, block, is_double(block.dtypes, dtype))
        if written.dtype is torch.float64 and dtype in ("BF16", "F16"):
            written = _odd(written)
        output.copy_(written.flatten())
        for index, values in enumerate(summed):
            _add_runs(values, totals[block.rows, index])
        return output.numel() - int(output.isfinite().sum())

    def count(
        self, program: Program, arguments: Arguments, block: Block[Tensor], counts: NDArray[np.int64],
        keys: NDArray[np.int64] | None, *, double: bool,
    ) -> None:  # fmt: skip
        for index, values in enumerate(self._results(program, arguments, block, double)):
            bits = _magnitude_bits(values)
            if keys is None:
                chosen = bits >> LOW_BITS
            else:
                chosen = bits[bits >> LOW_BITS == int(keys[index])] & ((1 << LOW_BITS) - 1)
            counts[index] += torch.bincount(chosen, minlength=counts.shape[1]).cpu().numpy()

    def find(
        self, program: Program, arguments: Arguments, block: Block[Tensor], left: NDArray[np.int64],
        keys: NDArray[np.int64], places: NDArray[np.int64], *, double: bool,
    ) -> None:  # fmt: skip
        for index, values in enumerate(self._results(program, arguments, block, double)):
            if places[index] >= 0:
                continue
            equal = (_magnitude_bits(values) == int(keys[index])).nonzero().flatten()
            if len(equal) >= left[index]:
                places[index] = block.start + int(equal[int(left[index]) - 1])
            left[index] -= min(int(left[index]), len(equal))

    def empty(self, count: int, dtype: str) -> Tensor:
        return torch.empty(count, dtype=DTYPES[dtype], device=self.device)

    def repeated(self, values: NDArray[np.float64], times: int, dtype: str) -> Tensor:
        return torch.from_numpy(values).to(DTYPES[dtype]).repeat(times).to(self.device)

    def on_host(self, array: Tensor) -> NDArray[Any]:
        return array.cpu().numpy()

    def _results(self, program: Program, arguments: Arguments, block: Block[Tensor], double: bool) -> list[Tensor]:
        """Carry out a program; values have the shape (rows, elements of a row)."""
        dtype = torch.float64 if double else torch.float32
        rows = block.rows.stop - block.rows.start
        shape = (rows, block.count // rows)
        table = number_rows(arguments, block, np.float64 if double else np.float32)
        numbers = torch.from_numpy(table).to(self.device)

        def leaf(operation: Operation) -> Tensor:
            index = operation.operands[0] if operation.operands else 0
            if operation.kind == "constant":
                return torch.tensor(index, dtype=dtype, device=self.device)
            index = int(index)
            match operation.kind:
                case "input":
                    return block.arrays[index].to(dtype).view(shape)
                case "mask":
                    return self._mask(arguments, index, block).view(shape)
                case "number":
                    return numbers[:, index : index + 1]
                case "count":
                    return torch.tensor(arguments.counts[index] - block.start, device=self.device)
                case _:
                    return torch.arange(block.count, device=self.device).view(shape)

        last_use = {operand: i for i, op in enumerate(program.operations) if not op.is_leaf for operand in op.operands}
        values: list[Any] = []
        for i, operation in enumerate(program.operations):
            if operation.is_leaf:
                values.append(leaf(operation))
                continue
            operands = [values[int(operand)] for operand in operation.operands]
            single = operation.kind == "single"
            values.append(operands[0].float().to(dtype) if single else _OPERATIONS[operation.kind](*operands))
            for operand in operation.operands:
                if last_use[operand] == i and operand not in program.results:
                    values[int(operand)] = None
        return [values[result].expand(shape) for result in program.results]

    def _mask(self, arguments: Arguments, index: int, block: Block[Tensor]) -> Tensor:
        # Drawn by the CPU's loop: a quarter of the bytes of the elements it is for, and the same bits.
        keep, mask = arguments.masks[index], np.empty(block.count, np.uint8)
        native.load(source.keep_source())(*keep.key, block.start, bound(keep.probability), mask)
        return torch.from_numpy(mask).to(self.device).bool()


def _add_runs(values: Tensor, totals: NDArray[np.float64]) -> None:
    """Add the sum of every row to its total, in the order of :mod:`.summation`."""
    rows, length = values.shape
    runs = -(-length // RUN)
    # A zero added to a lane changes no bit of it: lanes begin at positive zero and never become a negative one.
    padded = torch.nn.functional.pad(values, (0, runs * RUN - length)).view(rows, runs, RUN // LANES, LANES)
    lanes = torch.zeros(rows, runs, LANES, dtype=values.dtype, device=values.device)
    for step in range(RUN // LANES):
        lanes += padded[:, :, step]
    halves = lanes.double()
    while halves.shape[-1] > 1:
        half = halves.shape[-1] // 2
        halves = halves[..., :half] + halves[..., half:]
    # accumulate() adds strictly from the first to the last.
    sequence = np.concatenate([totals[:, None], halves[..., 0].cpu().numpy()], axis=1)
    totals[:] = np.add.accumulate(sequence, axis=1)[:, -1]


def _magnitude_bits(values: Tensor) -> Tensor:
    return values.float().abs().contiguous().view(torch.int32).flatten()


def _odd(values: Tensor) -> Tensor:
    """Round float64 to float32 such that rounding once more is as good as rounding once, see :func:`.odd_f32`."""
    nearest = values.float()
    bits = nearest.view(torch.int32)
    is_beyond = nearest.double().abs() > values.abs()
    odd = torch.where(is_beyond, bits - 1, bits) | 1
    is_kept = (nearest.double() == values) | ~(nearest.isfinite() | is_beyond)
    return torch.where(is_kept, bits, odd).view(torch.float32)
