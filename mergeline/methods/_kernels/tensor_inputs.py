"""The inputs of one output tensor as a merge method sees them: sums, cuts, and the result written.

A method is straight code. Each call below goes once through all blocks of the tensor, wherever they are; what a method
computes between two calls are a few numbers. Norms, distances and how far the result has moved, which every merge
records, are summed on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from mergeline.methods._kernels import selection
from mergeline.methods._kernels.arithmetic import Arithmetic, ArrayT, Block
from mergeline.methods._kernels.distances import Distances, measured, squares
from mergeline.methods._kernels.formula import Formula, record
from mergeline.methods._kernels.selection import ALL, EVERYWHERE, NOTHING, Cut
from mergeline.methods._kernels.source import is_double

Blocks = Callable[[int | None, bool], Iterable[Block[ArrayT]]]
"""Begins a new look: all blocks in order. Told the length of rows that must be whole in their block (None: there are
none), and whether this is the last look."""


class TensorInputs(Generic[ArrayT]):
    """One output tensor's inputs, in blocks."""

    def __init__(
        self, arithmetic: Arithmetic[ArrayT], dtypes: tuple[str, ...], output_dtype: str, element_count: int,
        blocks: Blocks[ArrayT], output: Callable[[Block[ArrayT]], ArrayT], written: Callable[[ArrayT], None],
        row_elements: int | None = None,
    ) -> None:  # fmt: skip
        """Read nothing yet.

        Args:
            arithmetic: What computes, and on which device.
            dtypes: Each input's, by safetensors' names.
            output_dtype: The result's.
            element_count: Of each input.
            blocks: Begins a new look.
            output: Gives a buffer for a block's result.
            written: Takes a buffer once it holds the result.
            row_elements: Length of the last axis; None: the tensor is one row.
        """
        self.dtypes, self.output_dtype, self.element_count = dtypes, output_dtype, element_count
        self.row_elements = row_elements or max(1, element_count)
        self.not_finite = 0
        """NaN and infinite numbers among those written."""
        self.coefficients: tuple[float, ...] | None = None
        """The inputs' weights where the result is a weighted sum of them."""
        self.moved: tuple[float, ...] = ()
        """Euclidean distance of the result from every input; nothing for a single input."""
        self.measured: Distances | None = None
        """Norms and distances of the inputs, once they are known; None for a single input."""
        self._arithmetic, self._blocks, self._output, self._written = arithmetic, blocks, output, written
        self._double = is_double(dtypes, output_dtype)

    @property
    def row_count(self) -> int:
        return self.element_count // self.row_elements

    def sums(self, formula: Formula, **arguments: object) -> list[float]:
        """Return the sum over all elements of each value the formula returns."""
        program, values = record(formula, len(self.dtypes), **arguments)
        totals = np.zeros((1, len(program.results)))
        for block in self._blocks(None, False):
            self._arithmetic.sums(program, values, block, totals, double=self._double)
        return totals[0].tolist()

    def row_sums(self, formula: Formula, **arguments: object) -> NDArray[np.float64]:
        """Return those sums for every row (the last axis), of shape (rows, values)."""
        program, values = record(formula, len(self.dtypes), **arguments)
        totals = np.zeros((self.row_count, len(program.results)))
        for block in self._blocks(self.row_elements, False):
            self._arithmetic.sums(program, values, block, totals, double=self._double)
        return totals

    def column_sums(self, formula: Formula, **arguments: object) -> NDArray[np.float64]:
        """Return those sums for every place in a row, of shape (values, row); row after row is added in float64."""
        program, values = record(formula, len(self.dtypes), **arguments)
        # Written as float64 they are computed in it.
        dtype, nothing = "F64", np.zeros((self.row_count, 0))
        totals = np.zeros((len(program.results), self.row_elements))
        for block in self._blocks(self.row_elements, False):
            scratch = self._arithmetic.empty(block.count, dtype)
            for total, result in zip(totals, program.results, strict=True):
                one = replace(program, results=(result,))
                self._arithmetic.write(one, values, block, dtype, scratch, nothing)
                for row in self._arithmetic.on_host(scratch).reshape(-1, self.row_elements):
                    total += row
        return totals

    def distances(self) -> Distances:
        """Return norms and distances of the inputs, each as one flat vector."""
        if self.measured is None:
            self.measured = measured(self.sums(squares), len(self.dtypes))
        return self.measured

    def largest(self, formula: Formula, wanted: Sequence[Sequence[int]], **arguments: object) -> list[list[Cut]]:
        """Return the cuts above which so many of each returned value's largest magnitudes lie.

        Args:
            formula: Returns one value per entry of ``wanted``.
            wanted: For each value, the counts asked for.
            arguments: The formula's.
        """
        program, values = record(formula, len(self.dtypes), **arguments)
        asked = [(i, count) for i, counts in enumerate(wanted) for count in counts if 0 < count < self.element_count]
        cuts: dict[tuple[int, int], Cut] = {}
        if asked:
            counts = np.zeros((len(program.results), 2**16), np.int64)
            for block in self._blocks(None, False):
                self._arithmetic.count(program, values, block, counts, None, double=self._double)
            # One result per cut from here on: each looks below another key.
            program = replace(program, results=tuple(program.results[i] for i, _ in asked))
            high = [selection.last_bin(counts[i], count) for i, count in asked]
            keys = np.array([key for key, _ in high], np.int64)
            lower = np.zeros((len(asked), 2**selection.LOW_BITS), np.int64)
            for block in self._blocks(None, False):
                self._arithmetic.count(program, values, block, lower, keys, double=self._double)
            low = [selection.last_bin(lower[i], left) for i, (_, left) in enumerate(high)]
            bits = np.array([(key << selection.LOW_BITS) + below for key, (below, _) in zip(keys, low, strict=True)])
            left = np.array([equal for _, equal in low], np.int64)
            is_whole = [lower[i, below] == equal for i, (below, equal) in enumerate(low)]
            places = np.where(is_whole, EVERYWHERE, -1)
            for block in self._blocks(None, False):
                if (places >= 0).all():
                    break
                self._arithmetic.find(program, values, block, left, bits, places, double=self._double)
            found = [selection.cut_at(int(bit), int(place) + 1) for bit, place in zip(bits, places, strict=True)]
            cuts = dict(zip(asked, found, strict=True))
        return [
            [NOTHING if count <= 0 else cuts.get((i, count), ALL) for count in counts]
            for i, counts in enumerate(wanted)
        ]

    def merge(
        self, formula: Formula, *, coefficients: tuple[float, ...] | None = None,
        columns: Sequence[NDArray[np.float64]] = (), **arguments: object,
    ) -> None:  # fmt: skip
        """Write the result, and measure on the way what is not known yet of the inputs and of how it has moved.

        Args:
            formula: Returns one value, the result's. Where one of its numbers is an array, each row has its own.
            coefficients: One per input, where the result is their weighted sum with these: how far it has moved then
                follows from the distances.
            columns: Numbers that differ along a row, each of a row's length; the formula gets them as ``columns``.
            arguments: The formula's.
        """
        count = len(self.dtypes)
        is_measuring, is_moving = count > 1 and self.measured is None, count > 1 and coefficients is None

        def summed(x: Sequence[Any]) -> list[Any]:
            *inputs, result = [*x[:count], x[-1]]
            found = squares(inputs) if is_measuring else []
            return found + ([(result - v) * (result - v) for v in inputs] if is_moving else [])

        sums = self.write(formula, summed=summed, columns=columns, **arguments)
        if is_measuring:
            self.measured = measured(sums[: len(sums) - count * is_moving], count)
        if is_moving:
            self.moved = tuple(map(sqrt, sums[len(sums) - count :]))
        elif self.measured is not None and coefficients is not None:
            squared = [self.measured.squared_distance_of_sum(coefficients, j) for j in range(count)]
            self.moved = tuple(map(sqrt, squared))
        self.coefficients = coefficients

    def write(
        self, formula: Formula, *, summed: Formula | None = None, columns: Sequence[NDArray[np.float64]] = (),
        **arguments: object,
    ) -> list[float]:  # fmt: skip
        """Write what the formula returns; return the sums of further values.

        Args:
            formula: As of :meth:`merge`.
            summed: Called with the inputs and, as the last of them, the value written (before it is rounded).
            columns: As of :meth:`merge`.
            arguments: The formula's.
        """
        count = len(self.dtypes)

        def both(x: tuple[object, ...], **given: object) -> list[object]:
            result = formula(x[:count], **(given | ({"columns": x[count:]} if columns else {})))
            return [result, *(summed((*x[:count], result)) if summed else ())]

        program, values = record(both, count + len(columns), **arguments)
        is_by_row = bool(columns) or any(isinstance(number, np.ndarray) for number in values.numbers)
        totals = np.zeros((self.row_count if is_by_row else 1, len(program.results) - 1))
        for block in self._blocks(self.row_elements if is_by_row else None, True):
            output = self._output(block)
            block = self._with_columns(block, columns) if columns else block
            self.not_finite += self._arithmetic.write(program, values, block, self.output_dtype, output, totals)
            self._written(output)
        return totals.sum(axis=0).tolist()

    def _with_columns(self, block: Block[ArrayT], columns: Sequence[NDArray[np.float64]]) -> Block[ArrayT]:
        """Add inputs that are the same in every row."""
        dtype, rows = "F64" if self._double else "F32", block.count // self.row_elements
        repeated = (self._arithmetic.repeated(column, rows, dtype) for column in columns)
        return replace(block, arrays=(*block.arrays, *repeated), dtypes=(*block.dtypes, *[dtype] * len(columns)))
