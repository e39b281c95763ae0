"""Stored numbers to float32 or float64 and back, compiled: exact upwards, nearest even downwards.

A bfloat16 or float16 number is held as its 16 bits. Nothing here needs an instruction that an older processor lacks:
LLVM's own half-precision conversion calls a library function (``__extendhfsf2``) where F16C is missing.
"""

# pyright: basic
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic
from numpy import float32, float64, uint32, uint64

_INLINE: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}


def _bitcast(source: types.Type, target: types.Type, llvm_type: ir.Type):  # type: ignore[no-untyped-def]
    @intrinsic
    def cast(context, x):  # type: ignore[no-untyped-def]
        return target(source), lambda context, builder, signature, args: builder.bitcast(args[0], llvm_type)

    return cast


float32_of: Any = _bitcast(types.uint32, types.float32, ir.FloatType())
bits_of: Any = _bitcast(types.float32, types.uint32, ir.IntType(32))
bits64_of: Any = _bitcast(types.float64, types.uint64, ir.IntType(64))


@njit(**_INLINE)
def from_bf16(x):
    return float32_of(uint32(uint32(x) << uint32(16)))


@njit(**_INLINE)
def from_f16(x):
    sign = uint32((uint32(x) & uint32(0x8000)) << uint32(16))
    # Exponent and fraction, moved to where float32 has them.
    moved = uint32((uint32(x) & uint32(0x7FFF)) << uint32(13))
    # The exponent's bias grows from 15 to 127; of an infinity or NaN the exponent stays at the top.
    normal = uint32(moved + uint32(0x38000000))
    top = uint32(moved | uint32(0x7F800000))
    # A subnormal m is m * 2^-24: as 2^-14 (1 + m / 1024) less 2^-14, which is exact and meets no float32 subnormal.
    small = bits_of(float32_of(uint32(moved + uint32(0x38800000))) - float32_of(uint32(0x38800000)))
    bits = small if moved < uint32(0x00800000) else normal
    bits = top if moved >= uint32(0x0F800000) else bits
    return float32_of(uint32(bits | sign))


@njit(**_INLINE)
def from_f32(x):
    return x


@njit(**_INLINE)
def from_f64(x):
    return x


@njit(**_INLINE)
def to_bf16(x):
    u = bits_of(x)
    rounded = uint32(uint32(u + uint32(0x7FFF) + ((u >> uint32(16)) & uint32(1))) >> uint32(16))
    # Rounding up the bits of a NaN could make an infinity or a zero of it.
    is_nan = uint32(u & uint32(0x7FFFFFFF)) > uint32(0x7F800000)
    return uint32(uint32(0x7FC0) if is_nan else rounded)


@njit(**_INLINE)
def to_f16(x):
    u = uint32(bits_of(x) & uint32(0x7FFFFFFF))
    sign = uint32(uint32(bits_of(x) >> uint32(16)) & uint32(0x8000))
    normal = uint32(uint32(u - uint32(0x38000000) + uint32(0xFFF) + ((u >> uint32(13)) & uint32(1))) >> uint32(13))
    # Added to 0.5, whose unit in the last place is float16's smallest subnormal, a number is rounded to that.
    small = uint32(bits_of(float32_of(u) + float32_of(uint32(0x3F000000))) - uint32(0x3F000000))
    bits = small if u < uint32(0x38800000) else normal
    bits = uint32(0x7C00) if u >= uint32(0x477FF000) else bits
    bits = uint32(0x7E00) if u > uint32(0x7F800000) else bits
    return uint32(bits | sign)


@njit(**_INLINE)
def to_f32(x):
    return float32(x)


@njit(**_INLINE)
def to_f64(x):
    return float64(x)


@njit(**_INLINE)
def odd_f32(x):
    """Round float64 to float32 such that rounding once more is as good as rounding once.

    Toward zero, with the last bit set where that is not exact ("round to odd"): float32 has more than two bits beyond
    what bfloat16 and float16 keep, so the second rounding sees which side of a tie the number was on.
    """
    nearest = float32(x)
    u = bits_of(nearest)
    is_beyond = abs(float64(nearest)) > abs(x)
    toward_zero = uint32(u - uint32(1)) if is_beyond else u
    is_exact = float64(nearest) == x
    is_number = uint32(u & uint32(0x7FFFFFFF)) < uint32(0x7F800000)
    odd = uint32(toward_zero | uint32(1))
    return nearest if is_exact or not (is_number or is_beyond) else float32_of(odd)


@njit(**_INLINE)
def is_bad_bf16(x):
    return uint32((uint32(x) & uint32(0x7F80)) == uint32(0x7F80))


@njit(**_INLINE)
def is_bad_f16(x):
    return uint32((uint32(x) & uint32(0x7C00)) == uint32(0x7C00))


@njit(**_INLINE)
def is_bad_f32(x):
    return uint32((bits_of(x) & uint32(0x7F800000)) == uint32(0x7F800000))


@njit(**_INLINE)
def is_bad_f64(x):
    return uint32((bits64_of(x) & uint64(0x7FF0000000000000)) == uint64(0x7FF0000000000000))
