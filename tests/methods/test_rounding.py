"""Stored dtypes to the arithmetic's and back: against numpy, torch, and rounding done in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.methods.formulas import first
from tests.methods.in_memory import ARITHMETICS, in_memory

RNG = np.random.default_rng(0)


def converted(values: Tensor, output: torch.dtype, arithmetic: str = "cpu") -> Tensor:
    tensor = in_memory([values], output=output, arithmetic=arithmetic)
    tensor.inputs.write(first)
    return tensor.result


def same_numbers(ours: Tensor, theirs: Tensor) -> bool:
    """Equal to the bit, signs of zeros included; any NaN equals any other."""
    both = torch.isnan(ours) & torch.isnan(theirs)
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[ours.element_size()]
    return bool(((ours.view(width) == theirs.view(width)) | both).all())


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_every_number_of_16_bits_is_widened_exactly(dtype: torch.dtype, wide: torch.dtype, arithmetic: str) -> None:
    values = torch.from_numpy(np.arange(2**16, dtype=np.uint16)).view(dtype)
    assert same_numbers(converted(values, wide, arithmetic), values.to(wide))


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_number_of_16_bits_comes_back(dtype: torch.dtype, arithmetic: str) -> None:
    values = torch.from_numpy(np.arange(2**16, dtype=np.uint16)).view(dtype)
    assert same_numbers(converted(values, dtype, arithmetic), values)


def awkward_float32() -> Tensor:
    """All kinds of bits, and every number half-way between two 16-bit ones with its neighbours."""
    bits = RNG.integers(0, 2**32, 200_000, dtype=np.uint32)
    halves = [(np.arange(2**16, dtype=np.uint32) << 16) + offset for offset in (0x7FFF, 0x8000, 0x8001)]
    float16 = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = ((float16[:-1].astype(np.float64) + float16[1:]) / 2).astype(np.float32)
    near = [np.nextafter(middles, np.float32(sign * np.inf)) for sign in (-1, 1)]
    top = np.array(
        [65504, 65519.996, 65520, 65536, 3.3895e38, 3.3961e38, 3.4028e38, 1e-45, 2**-25, 2**-133], np.float32
    )
    parts = [*(part.view(np.float32) for part in (bits, *halves)), middles, *near, top, -top]
    return torch.from_numpy(np.concatenate(parts))


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_float32_is_rounded_to_nearest_even(dtype: torch.dtype, arithmetic: str) -> None:
    values = awkward_float32()
    if dtype is torch.float16:
        with np.errstate(over="ignore"):
            expected = torch.from_numpy(values.numpy().astype(np.float16))
    else:
        expected = torch.from_numpy(rounded_to_bfloat16(values.numpy().astype(np.float64)).astype(np.float32)).to(dtype)
    assert same_numbers(converted(values, dtype, arithmetic), expected)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_float64_is_rounded_once(dtype: torch.dtype, arithmetic: str) -> None:
    single = awkward_float32().numpy().astype(np.float64)
    # A hair beside a tie of the 16-bit dtype: rounded to float32 first, it would become the tie.
    values = np.concatenate([single, single * (1 + 2**-40), single * (1 - 2**-40), [1e300, -1e300, 1e-300, 0.0, -0.0]])
    with np.errstate(over="ignore"):
        expected = {
            torch.bfloat16: lambda: torch.from_numpy(rounded_to_bfloat16(values).astype(np.float32)).to(dtype),
            torch.float16: lambda: torch.from_numpy(values.astype(np.float16)),
            torch.float32: lambda: torch.from_numpy(values.astype(np.float32)),
        }[dtype]()
    assert same_numbers(converted(torch.from_numpy(values), dtype, arithmetic), expected)


def rounded_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round float64 to the nearest bfloat16, ties to even, by scaling the last place to 1: all steps are exact."""
    _, exponents = np.frexp(values)
    places = np.maximum(exponents - 1, -126) - 7
    with np.errstate(over="ignore"):
        rounded = np.ldexp(np.rint(np.ldexp(values, -places)), places)
    largest = float(torch.finfo(torch.bfloat16).max)
    return np.where(np.isfinite(values) & (np.abs(rounded) > largest), np.copysign(np.inf, values), rounded)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("output", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_what_is_not_finite_is_counted_as_written(output: torch.dtype, arithmetic: str) -> None:
    values = torch.tensor([1.0, np.nan, -np.inf, 0.0, 7e4, 1e-30, -7e4, np.inf])
    tensor = in_memory([values], output=output, arithmetic=arithmetic)
    tensor.inputs.write(first)
    # 70,000 is beyond float16.
    assert tensor.inputs.not_finite == (5 if output is torch.float16 else 3)
