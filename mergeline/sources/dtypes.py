"""The dtypes of safetensors files."""

from __future__ import annotations

BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "C64": 64,
}  # fmt: skip
"""Size of one element of each safetensors dtype this project reads, in bits."""


FLOATING = ("F64", "F32", "F16", "BF16")
"""Dtypes whose values can be combined."""
