"""What carries out recorded formulas on a block of a tensor: compiled loops on a CPU, or torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mergeline.methods._kernels.formula import Arguments, Program
from mergeline.methods._kernels.summation import RUN

ArrayT = TypeVar("ArrayT")


@dataclass(frozen=True)
class Block(Generic[ArrayT]):
    """Some consecutive elements of every input of one output tensor."""

    arrays: tuple[ArrayT, ...]
    """One flat array per input, of the bits stored."""
    dtypes: tuple[str, ...]
    """safetensors' name of each input's dtype."""
    start: int
    """Index of the first element in its tensor: a multiple of the run, see :mod:`.summation`."""
    count: int
    """Elements of each input."""
    row_elements: int | None = None
    """Length of the rows that are summed apart, all whole in the block; None where the tensor is one vector."""

    def __post_init__(self) -> None:
        unit = self.row_elements or RUN
        is_cut_row = self.row_elements is not None and self.count % self.row_elements
        if self.start % unit or is_cut_row:
            raise ValueError(
                f"a block of {self.count} elements from {self.start} on must begin at a multiple of {unit}"
                + (" and hold whole rows." if self.row_elements else ", or sums depend on where blocks are cut.")
            )

    @property
    def rows(self) -> slice:
        """Which rows of the tensor these are."""
        if self.row_elements is None:
            return slice(0, 1)
        return slice(self.start // self.row_elements, (self.start + self.count) // self.row_elements)


class Arithmetic(Protocol[ArrayT]):
    """Carries out programs; holds the scratch of one worker."""

    def sums(self, program: Program, arguments: Arguments, block: Block[ArrayT], totals: NDArray[np.float64],
             *, double: bool) -> None:  # fmt: skip
        """Add every result's sum to ``totals``, of shape (rows of the tensor, results)."""
        ...

    def write(self, program: Program, arguments: Arguments, block: Block[ArrayT], dtype: str, output: ArrayT,
              totals: NDArray[np.float64]) -> int:  # fmt: skip
        """Write the first result as ``dtype``, add the others' sums to ``totals``.

        Returns:
            How many of the numbers written are NaN or infinite.
        """
        ...

    def count(self, program: Program, arguments: Arguments, block: Block[ArrayT], counts: NDArray[np.int64],
              keys: NDArray[np.int64] | None, *, double: bool) -> None:  # fmt: skip
        """Count every result's magnitudes by their upper bits; with ``keys``, by the lower bits below those keys."""
        ...

    def find(self, program: Program, arguments: Arguments, block: Block[ArrayT], left: NDArray[np.int64],
             keys: NDArray[np.int64], places: NDArray[np.int64], *, double: bool) -> None:  # fmt: skip
        """Find the place of the ``left``-th magnitude whose bits equal the key, for results whose place is -1."""
        ...

    def empty(self, count: int, dtype: str) -> ArrayT:
        """Return a new array."""
        ...

    def repeated(self, values: NDArray[np.float64], times: int, dtype: str) -> ArrayT:
        """Return a row of numbers as ``dtype``, so many times over."""
        ...

    def on_host(self, array: ArrayT) -> NDArray[Any]:
        """Return an array of float32 or float64 where numpy can read it."""
        ...


def number_rows(arguments: Arguments, block: Block[Any], dtype: Any) -> NDArray[Any]:
    """Return the numbers for the block's rows, of shape (rows, numbers)."""
    rows = block.rows
    count = rows.stop - rows.start
    table = np.zeros((count, max(1, len(arguments.numbers))), dtype)
    for index, number in enumerate(arguments.numbers):
        table[:, index] = number[rows] if isinstance(number, np.ndarray) else number
    return table


def bound(probability: float) -> int:
    """Return what 32 random bits must be below, for one number in [0, 1); resolved to 2^-32."""
    # A bound of 32 bits is compared faster than one of 33. For a probability of 1, never asked for, it is 1 too low.
    return min(round(probability * 2**32), 2**32 - 1)
