from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mergeline.methods._kernels.formula import where
from tests.methods.in_memory import ARITHMETICS, in_memory


def magnitude(x: Any) -> Any:
    return abs(x[0])


def both(x: Any) -> Any:
    return [abs(x[0]), abs(x[1])]


def kept(x: Any, cut: Any) -> Any:
    # 1 and 0 rather than the values: an element that is 0 may be kept.
    return where(cut.keeps(abs(x[0])), 1.0, 0.0)


def taken(values: Tensor, count: int, *, arithmetic: str = "cpu", block: int = 2**18) -> list[float]:
    tensor = in_memory([values], arithmetic=arithmetic, block=block, output=torch.float32)
    ((cut,),) = tensor.inputs.largest(magnitude, [[count]])
    tensor.inputs.write(kept, cut=cut)
    return tensor.result.tolist()


def expected(values: Tensor, count: int) -> list[float]:
    """A stable sort keeps equal magnitudes in order."""
    mask = np.zeros(len(values))
    mask[np.argsort(-np.abs(values.double().numpy()), kind="stable")[:count]] = 1
    return mask.tolist()


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@given(values=st.lists(st.integers(-6, 6).map(lambda k: k / 2), min_size=1, max_size=60), count=st.integers(0, 61))
@settings(deadline=None, max_examples=100)
def test_the_first_of_the_largest_are_taken(arithmetic: str, values: list[float], count: int) -> None:
    # Few distinct values, so that many magnitudes are equal.
    tensor = torch.tensor(values)
    assert taken(tensor, count, arithmetic=arithmetic) == expected(tensor, count)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("count", [1, 123_456, 300_000])
def test_many_numbers_are_told_apart_exactly_in_any_blocks(dtype: torch.dtype, count: int, arithmetic: str) -> None:
    values = torch.randn(300_003, generator=torch.Generator().manual_seed(0)).to(dtype)
    truth = expected(values, count)
    for block in (4096, 12 * 4096, 2**19):
        assert taken(values, count, arithmetic=arithmetic, block=block) == truth


def test_in_float64_magnitudes_are_compared_as_float32() -> None:
    values = torch.tensor([1.0 + 2**-40, 1.0, 1.0 + 2**-41, 0.5], dtype=torch.float64)
    assert taken(values, 2) == [1, 1, 0, 0]


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_several_cuts_of_several_values_in_the_same_looks(arithmetic: str) -> None:
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(10_000, generator=generator).bfloat16() for _ in range(2)]
    inputs = in_memory(values, arithmetic=arithmetic).inputs
    cuts = inputs.largest(both, [[100, 5000], [77]])
    for tensor, of_tensor, counts in zip(values, cuts, [[100, 5000], [77]], strict=True):
        for cut, count in zip(of_tensor, counts, strict=True):
            one = in_memory([tensor], arithmetic=arithmetic, output=torch.float32)
            one.inputs.write(kept, cut=cut)
            assert one.result.tolist() == expected(tensor, count)
