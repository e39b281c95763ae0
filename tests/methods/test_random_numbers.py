from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergeline.methods._kernels import native, source
from mergeline.methods._kernels.arithmetic import bound
from mergeline.methods._kernels.formula import Keep, where
from tests.methods.in_memory import ARITHMETICS, in_memory


def numpys(key: tuple[int, int], start: int, count: int, probability: float) -> np.ndarray:
    """The same stream from numpy's generator, drawn from its beginning."""
    words = np.random.Philox(key=np.array(key, np.uint64)).random_raw((start + count + 1) // 2).view(np.uint32)
    return words[start : start + count] < np.uint32(bound(probability))


@given(st.tuples(*[st.integers(0, 2**64 - 1)] * 2), st.integers(0, 100), st.integers(0, 70), st.floats(0, 0.99))
@settings(deadline=None)
def test_stream_is_numpys_from_any_start(key: tuple[int, int], start: int, count: int, probability: float) -> None:
    drawn = np.empty(count, np.uint8)
    native.load(source.keep_source())(*key, start, bound(probability), drawn)
    assert drawn.tolist() == numpys(key, start, count, probability).tolist()


def kept(x: Any, keep: Any) -> Any:
    return where(keep, x[0], 0.0)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_a_formula_keeps_what_the_stream_says_in_any_blocks(arithmetic: str) -> None:
    values = torch.arange(1.0, 50_001.0)
    mask = torch.from_numpy(numpys((5, 2**63 + 1), 0, len(values), 0.3))
    for block in (4096, 2**16):
        tensor = in_memory([values], arithmetic=arithmetic, block=block)
        tensor.inputs.write(kept, keep=Keep((5, 2**63 + 1), 0.3))
        assert torch.equal(tensor.result, values * mask)
