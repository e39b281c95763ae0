"""Compiled steps that are the same for every formula: adding lanes up, counting bits, drawing random numbers."""

from __future__ import annotations

# pyright: basic
from typing import Any

from llvmlite import ir
from numba import njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic
from numpy import float64, uint8, uint32, uint64

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
LOW_BITS = uint32(15)
LOW_MASK = uint32(0x7FFF)


@njit(**_OPTIONS)
def add_lanes(lanes, halves):
    """Add up the lanes of one run in float64 by halves, see :mod:`.summation`."""
    for j in range(16):
        halves[j] = float64(lanes[j]) + float64(lanes[j + 16])
    for j in range(8):
        halves[j] += halves[j + 8]
    for j in range(4):
        halves[j] += halves[j + 4]
    return (halves[0] + halves[2]) + (halves[1] + halves[3])


@njit(**_OPTIONS)
def count_high(magnitudes, counts):
    """Count magnitudes by the upper 16 of their 31 bits."""
    for k in range(magnitudes.size):
        counts[magnitudes[k] >> LOW_BITS] += 1


@njit(**_OPTIONS)
def count_low(magnitudes, high, counts):
    """Count, by their lower bits, the magnitudes whose upper bits are ``high``."""
    for k in range(magnitudes.size):
        if magnitudes[k] >> LOW_BITS == high:
            counts[magnitudes[k] & LOW_MASK] += 1


@njit(**_OPTIONS)
def find_equal(magnitudes, wanted, left):
    """Return the place of the ``left[0]``-th magnitude equal to ``wanted``, or take those seen from ``left`` and -1."""
    equal = uint32(0)
    for k in range(magnitudes.size):
        equal = uint32(equal + uint32(magnitudes[k] == wanted))
    if equal < left[0]:
        left[0] -= equal
        return -1
    for k in range(magnitudes.size):
        if magnitudes[k] == wanted:
            left[0] -= 1
            if left[0] == 0:
                return k
    return -1


@intrinsic
def _multiply_high(context, a, b):
    """Return the upper 64 bits of a product of two 64-bit numbers."""

    def generate(context, builder, signature, args):
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


multiply_high: Any = _multiply_high


@njit(**_OPTIONS)
def philox(counter, key0, key1):
    """Return the four 64-bit words of one counter: Philox-4x64-10 (Salmon et al., SC 2011)."""
    c0, c1, c2, c3 = counter, uint64(0), uint64(0), uint64(0)
    for _ in range(10):
        high0, low0 = multiply_high(uint64(0xD2E7470EE14C6C93), c0), uint64(0xD2E7470EE14C6C93) * c0
        high1, low1 = multiply_high(uint64(0xCA5A826395121157), c2), uint64(0xCA5A826395121157) * c2
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0 += uint64(0x9E3779B97F4A7C15)
        key1 += uint64(0xBB67AE8584CAA73B)
    return c0, c1, c2, c3


@njit(**_OPTIONS)
def keep(key0, key1, start, bound, kept):
    """Write 1 where an element's random 32 bits are below ``bound``, else 0; the first element's index is ``start``."""
    first = uint64(start) // uint64(8)
    skipped = start % 8
    for block in range((skipped + kept.size + 7) // 8):
        # numpy's generator counts up before it draws.
        words = philox(first + uint64(block) + uint64(1), key0, key1)
        at = block * 8 - skipped
        if at >= 0 and at + 8 <= kept.size:
            eight = kept[at : at + 8]
            for i in range(4):
                eight[2 * i] = uint8(uint32(words[i]) < bound)
                eight[2 * i + 1] = uint8(uint32(words[i] >> uint64(32)) < bound)
        else:
            for i in range(8):
                if 0 <= at + i < kept.size:
                    word = words[i // 2] >> uint64(32 * (i % 2))
                    kept[at + i] = uint8(uint32(word) < bound)
