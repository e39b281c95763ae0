"""Formulas on a CPU: compiled loops over numpy arrays."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeline.methods._kernels import native, source
from mergeline.methods._kernels.arithmetic import Block, bound, number_rows
from mergeline.methods._kernels.formula import Arguments, Program
from mergeline.methods._kernels.native import Loop
from mergeline.methods._kernels.summation import LANES, RUN

Array = NDArray[Any]


class CpuArithmetic:
    """Scratch of one worker; see :class:`.arithmetic.Arithmetic`."""

    def __init__(self) -> None:
        """Allocate what does not grow with the block."""
        self._halves = np.zeros(LANES // 2)
        self._not_finite = np.zeros(1, np.int64)
        self._masks: list[NDArray[np.uint8]] = []
        self._lanes: dict[str, Array] = {}
        self._bits = np.zeros((0, RUN), np.uint32)

    def sums(
        self, program: Program, arguments: Arguments, block: Block[Array], totals: NDArray[np.float64], *, double: bool
    ) -> None:
        loop = _sums_loop(program, block.dtypes, double)
        common = self._common(arguments, block, double)
        loop(*common, self._lanes_of(len(program.results), double), self._halves, totals[block.rows])

    def write(
        self, program: Program, arguments: Arguments, block: Block[Array], dtype: str, output: Array,
        totals: NDArray[np.float64],
    ) -> int:  # fmt: skip
        loop = _write_loop(program, block.dtypes, dtype)
        double = source.is_double(block.dtypes, dtype)
        common = self._common(arguments, block, double)
        lanes = self._lanes_of(max(1, len(program.results) - 1), double)
        if output.size != block.count:
            raise ValueError(f"a block of {block.count} elements has an output of {output.size}")
        self._not_finite[0] = 0
        loop(*common, output, self._not_finite, lanes, self._halves, totals[block.rows])
        return int(self._not_finite[0])

    def count(
        self, program: Program, arguments: Arguments, block: Block[Array], counts: NDArray[np.int64],
        keys: NDArray[np.int64] | None, *, double: bool,
    ) -> None:  # fmt: skip
        look = 0 if keys is None else 1
        keys = np.zeros(len(program.results), np.int64) if keys is None else keys
        self._look(look, program, arguments, block, counts, keys, np.zeros_like(keys), double)

    def find(
        self, program: Program, arguments: Arguments, block: Block[Array], left: NDArray[np.int64],
        keys: NDArray[np.int64], places: NDArray[np.int64], *, double: bool,
    ) -> None:  # fmt: skip
        self._look(2, program, arguments, block, left.reshape(-1, 1), keys, places, double)

    def empty(self, count: int, dtype: str) -> Array:
        return np.empty(count, source.STORED[dtype])

    def repeated(self, values: NDArray[np.float64], times: int, dtype: str) -> Array:
        return np.tile(values.astype(source.STORED[dtype]), times)

    def on_host(self, array: Array) -> Array:
        return array

    def _look(
        self, look: int, program: Program, arguments: Arguments, block: Block[Array], counts: NDArray[np.int64],
        keys: NDArray[np.int64], places: NDArray[np.int64], double: bool,
    ) -> None:  # fmt: skip
        loop = _count_loop(program, block.dtypes, double)
        if len(self._bits) < len(program.results):
            self._bits = np.zeros((len(program.results), RUN), np.uint32)
        common = self._common(arguments, block, double)
        loop(*common, look, block.start, keys, self._bits, counts, places)

    def _common(self, arguments: Arguments, block: Block[Array], double: bool) -> list[Array]:
        if any(array.size != block.count for array in block.arrays):
            sizes = [array.size for array in block.arrays]
            raise ValueError(f"a block of {block.count} elements has arrays of {sizes}")
        positions = np.array([count - block.start for count in arguments.counts] or [0], np.int64)
        return [
            *block.arrays,
            *self._kept(arguments, block),
            number_rows(arguments, block, np.float64 if double else np.float32),
            positions.clip(-1, 2**31 - 1),
        ]

    def _kept(self, arguments: Arguments, block: Block[Array]) -> list[Array]:
        for index, keep in enumerate(arguments.masks):
            if index == len(self._masks) or len(self._masks[index]) < block.count:
                self._masks[index : index + 1] = [np.zeros(block.count, np.uint8)]
            _keep_loop()(*keep.key, block.start, bound(keep.probability), self._masks[index][: block.count])
        return [mask[: block.count] for mask in self._masks[: len(arguments.masks)]]

    def _lanes_of(self, count: int, double: bool) -> Array:
        key = "f8" if double else "f4"
        if key not in self._lanes or len(self._lanes[key]) < count:
            self._lanes[key] = np.zeros((count, LANES), key)
        return self._lanes[key]


# A program is looked up for every block: its source is made once.
@cache
def _sums_loop(program: Program, dtypes: tuple[str, ...], double: bool) -> Loop:
    return native.load(source.sums_source(program, dtypes, double=double))


@cache
def _write_loop(program: Program, dtypes: tuple[str, ...], output: str) -> Loop:
    return native.load(source.write_source(program, dtypes, output))


@cache
def _count_loop(program: Program, dtypes: tuple[str, ...], double: bool) -> Loop:
    return native.load(source.count_source(program, dtypes, double=double))


@cache
def _keep_loop() -> Loop:
    return native.load(source.keep_source())
