"""The dtypes of weights: their names in safetensors files and in recipes, and their sizes."""

from __future__ import annotations

from typing import Literal

BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "C64": 64,
}  # fmt: skip
"""Size of one element of each safetensors dtype this project reads, in bits."""

RecipeDtype = Literal["bfloat16", "float16", "float32", "float64"]
"""Dtypes whose values can be combined, as recipes name them."""

SAFETENSORS_NAMES: dict[RecipeDtype, str] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
"""Their names in safetensors files."""

COMBINABLE = frozenset(SAFETENSORS_NAMES.values())
