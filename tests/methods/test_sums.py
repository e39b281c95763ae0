from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mergeline.methods._kernels.arithmetic import Block
from tests.methods.formulas import chord, moved, products
from tests.methods.in_memory import ARITHMETICS, in_memory

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
SIZES = [0, 1, 31, 32, 33, 4095, 4096, 4097, 70_001]


def pair(count: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    base = torch.randn(count, generator=generator) * 0.02
    return [base.to(dtype), (base + torch.randn(count, generator=generator) * 0.005).to(dtype)]


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", SIZES)
def test_sums_are_close_to_exact_ones(count: int, dtype: torch.dtype, arithmetic: str) -> None:
    tensors = pair(count, dtype)
    x, y = (tensor.double().numpy() for tensor in tensors)
    exact = [math.fsum(terms) for terms in (x * x, y * y, (y - x) ** 2, x * y)]
    # Products are rounded to float32 and added 128 at a time in it; of many, errors cancel.
    tolerance = 1e-15 if dtype is torch.float64 else 3e-7
    assert in_memory(tensors, arithmetic=arithmetic).inputs.sums(products) == pytest.approx(exact, rel=tolerance)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 33, 4096, 12_345])
def test_sums_are_taken_in_the_order_that_is_promised(count: int, dtype: torch.dtype, arithmetic: str) -> None:
    x, _ = (tensor.numpy() for tensor in pair(count, dtype))
    total = 0.0
    for start in range(0, count, 4096):
        lanes = [x.dtype.type(0)] * 32
        for k, value in enumerate(x[start : start + 4096]):
            lanes[k % 32] += value * value
        sums = [float(lane) for lane in lanes]
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [a + b for a, b in zip(sums[:half], sums[half:], strict=True)]
        total += sums[0]
    # Where the result is float32 the arithmetic would be in float64.
    output = torch.bfloat16 if dtype is torch.float32 else None
    inputs = in_memory([torch.from_numpy(x)], arithmetic=arithmetic, output=output).inputs
    assert inputs.sums(lambda x: x[0] * x[0]) == [total]


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_rows_are_summed_apart(arithmetic: str) -> None:
    tensors = [tensor.view(7, 5000) for tensor in pair(35_000, torch.float32)]
    for block in (5000, 10_000, 35_000):
        inputs = in_memory(tensors, arithmetic=arithmetic, block=block, row_elements=5000).inputs
        rows = inputs.row_sums(products)
        for row, ours in enumerate(rows):
            alone = in_memory([tensor[row] for tensor in tensors], arithmetic=arithmetic).inputs
            assert ours.tolist() == alone.sums(products)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_a_number_may_differ_by_row(arithmetic: str) -> None:
    tensors = pair(6 * 100, torch.float32)
    fractions = np.linspace(0.0, 1.0, 6)
    tensor = in_memory(tensors, arithmetic=arithmetic, block=200, row_elements=100)
    tensor.inputs.write(chord, t=fractions)
    t = torch.from_numpy(fractions).repeat_interleave(100)
    x, y = (each.double() for each in tensors)
    assert torch.equal(tensor.result, (x + t * (y - x)).float())


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_how_far_the_result_has_moved_is_summed_while_it_is_written(arithmetic: str) -> None:
    tensors = pair(10_000, torch.bfloat16)
    squares = in_memory(tensors, arithmetic=arithmetic).inputs.write(chord, t=0.3, summed=moved)
    x, y = (tensor.double() for tensor in tensors)
    exact = [(0.3 * (y - x)).square().sum().item(), (0.7 * (y - x)).square().sum().item()]
    assert squares == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_nan_and_infinity_are_not_lost(arithmetic: str) -> None:
    values = torch.zeros(9000)
    values[8999] = math.inf
    assert in_memory([values], arithmetic=arithmetic).inputs.sums(lambda x: x[0]) == [math.inf]
    values[3] = math.nan
    assert math.isnan(in_memory([values], arithmetic=arithmetic).inputs.sums(lambda x: x[0])[0])


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_the_smallest_numbers_are_not_flushed_to_zero(arithmetic: str) -> None:
    values = torch.full((100,), 1e-45)
    assert in_memory([values], arithmetic=arithmetic).inputs.sums(lambda x: x[0])[0] == pytest.approx(
        100 * values[0].item(), rel=1e-12
    )


def test_a_block_that_would_change_the_order_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4096"):
        Block((), (), 100, 200)
    with pytest.raises(ValueError, match="whole rows"):
        Block((), (), 200, 150, 100)
