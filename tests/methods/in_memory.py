"""Tensors in memory as a merge method's inputs, on either arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mergeline.methods._kernels.arithmetic import Block
from mergeline.methods._kernels.cpu import CpuArithmetic
from mergeline.methods._kernels.gpu import DTYPES, TorchArithmetic
from mergeline.methods._kernels.source import STORED
from mergeline.methods._kernels.tensor_inputs import TensorInputs

ARITHMETICS = {"cpu": CpuArithmetic, "torch": lambda: TorchArithmetic("cpu")}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass
class InMemory:
    """A tensor's inputs and its result so far."""

    inputs: TensorInputs[Any]
    parts: list[Any]
    output_dtype: torch.dtype

    @property
    def result(self) -> Tensor:
        parts = [part if isinstance(part, Tensor) else torch.from_numpy(part) for part in self.parts]
        return torch.cat(parts).view(self.output_dtype) if parts else torch.empty(0, dtype=self.output_dtype)


def in_memory(
    tensors: Sequence[Tensor], *, arithmetic: str = "cpu", block: int = 2**18, output: torch.dtype | None = None,
    row_elements: int | None = None,
) -> InMemory:  # fmt: skip
    """Show tensors to a method in blocks of so many elements."""
    flat = [tensor.flatten().contiguous() for tensor in tensors]
    dtypes = tuple(NAMES[tensor.dtype] for tensor in flat)
    output_dtype = output or flat[0].dtype
    count = flat[0].numel()
    if arithmetic == "cpu":
        arrays: list[Any] = [bits_of(tensor) for tensor in flat]
    else:
        arrays = flat

    def blocks(row: int | None, is_last: bool) -> Iterator[Block[Any]]:
        for start in range(0, count, block):
            stop = min(start + block, count)
            yield Block(tuple(array[start:stop] for array in arrays), dtypes, start, stop - start, row)

    def buffer(part: Block[Any]) -> Any:
        if arithmetic == "cpu":
            return np.empty(part.count, STORED[NAMES[output_dtype]])
        return torch.empty(part.count, dtype=output_dtype)

    parts: list[Any] = []
    inputs: TensorInputs[Any] = TensorInputs(
        ARITHMETICS[arithmetic](), dtypes, NAMES[output_dtype], count, blocks, buffer, parts.append, row_elements
    )
    return InMemory(inputs, parts, output_dtype)


def bits_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor's numbers as they are stored."""
    width = {2: torch.uint16}.get(tensor.element_size())
    return (tensor.view(width) if width else tensor).numpy()
