"""The inputs of one output tensor as a merge method sees them: sums, cuts, and the result written.

A method is straight code. Each call below goes once through all blocks of the tensor, wherever they are; what a method
computes between two calls are a few numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from mergeline.methods._kernels import selection
from mergeline.methods._kernels.arithmetic import Arithmetic, ArrayT, Block
from mergeline.methods._kernels.formula import Formula, record
from mergeline.methods._kernels.selection import ALL, EVERYWHERE, NOTHING, Cut
from mergeline.methods._kernels.source import is_double


class TensorInputs(Generic[ArrayT]):
    """One output tensor's inputs, in blocks."""

    def __init__(
        self, arithmetic: Arithmetic[ArrayT], dtypes: tuple[str, ...], output_dtype: str, element_count: int,
        blocks: Callable[[], Iterable[Block[ArrayT]]], output: Callable[[Block[ArrayT]], ArrayT],
        written: Callable[[ArrayT], None],
    ) -> None:  # fmt: skip
        """Read nothing yet.

        Args:
            arithmetic: What computes, and on which device.
            dtypes: Each input's, by safetensors' names.
            output_dtype: The result's.
            element_count: Of each input.
            blocks: Begins a new look: all blocks in order.
            output: Gives a buffer for a block's result.
            written: Takes a buffer once it holds the result.
        """
        self.dtypes, self.output_dtype, self.element_count = dtypes, output_dtype, element_count
        self.not_finite = 0
        """NaN and infinite numbers among those written."""
        self._arithmetic, self._blocks, self._output, self._written = arithmetic, blocks, output, written
        self._double = is_double([*dtypes, output_dtype])

    def sums(self, formula: Formula, **arguments: object) -> list[float]:
        """Return the sum over all elements of each value the formula returns."""
        program, values = record(formula, len(self.dtypes), **arguments)
        totals = np.zeros((1, len(program.results)))
        for block in self._blocks():
            self._arithmetic.sums(program, values, block, totals, double=self._double)
        return totals[0].tolist()

    def row_sums(self, formula: Formula, row_count: int, **arguments: object) -> NDArray[np.float64]:
        """Return those sums for every row, of shape (rows, values)."""
        program, values = record(formula, len(self.dtypes), **arguments)
        totals = np.zeros((row_count, len(program.results)))
        for block in self._blocks():
            self._arithmetic.sums(program, values, block, totals, double=self._double)
        return totals

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
            for block in self._blocks():
                self._arithmetic.count(program, values, block, counts, None, double=self._double)
            # One result per cut from here on: each looks below another key.
            program = replace(program, results=tuple(program.results[i] for i, _ in asked))
            high = [selection.last_bin(counts[i], count) for i, count in asked]
            keys = np.array([key for key, _ in high], np.int64)
            lower = np.zeros((len(asked), 2**selection.LOW_BITS), np.int64)
            for block in self._blocks():
                self._arithmetic.count(program, values, block, lower, keys, double=self._double)
            low = [selection.last_bin(lower[i], left) for i, (_, left) in enumerate(high)]
            bits = np.array([(key << selection.LOW_BITS) + below for key, (below, _) in zip(keys, low, strict=True)])
            left = np.array([equal for _, equal in low], np.int64)
            is_whole = [lower[i, below] == equal for i, (below, equal) in enumerate(low)]
            places = np.where(is_whole, EVERYWHERE, -1)
            for block in self._blocks():
                if (places >= 0).all():
                    break
                self._arithmetic.find(program, values, block, left, bits, places, double=self._double)
            found = [selection.cut_at(int(bit), int(place) + 1) for bit, place in zip(bits, places, strict=True)]
            cuts = dict(zip(asked, found, strict=True))
        return [
            [NOTHING if count <= 0 else cuts.get((i, count), ALL) for count in counts]
            for i, counts in enumerate(wanted)
        ]

    def write(self, formula: Formula, *, summed: Formula | None = None, **arguments: object) -> list[float]:
        """Write what the formula returns; return the sums of further values.

        Args:
            formula: Returns one value.
            summed: Called with the inputs and, as the last of them, the value written (before it is rounded).
            arguments: The formula's.
        """

        def both(x: tuple[object, ...], **given: object) -> list[object]:
            result = formula(x, **given)
            return [result, *(summed((*x, result)) if summed else ())]

        program, values = record(both, len(self.dtypes), **arguments)
        totals = np.zeros((1, len(program.results) - 1))
        for block in self._blocks():
            output = self._output(block)
            self.not_finite += self._arithmetic.write(program, values, block, self.output_dtype, output, totals)
            self._written(output)
        return totals[0].tolist()
