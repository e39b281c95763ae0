"""The same bits from compiled loops and torch, in any blocks, on any instruction set."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from mergeline.methods._kernels.formula import Keep, sqrt
from mergeline.methods._kernels.native import CACHE_VARIABLE
from mergeline.methods._kernels.selection import Cut
from tests.methods.formulas import chord, everything, magnitudes, moved, products, vote
from tests.methods.in_memory import ARITHMETICS, in_memory

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
WIDE = 2**18


def digest(dtype: torch.dtype, *, arithmetic: str = "cpu", block: int = WIDE) -> str:
    """Of sums, cuts, random masks and results over three tensors with ties, outliers, zeros and denormals."""
    generator = torch.Generator().manual_seed(0)
    count = 40_001
    base = torch.randn(count, generator=generator) * 0.02
    base[::97] = 0.0
    base[5::1001] *= 1e3
    base[7::1003] *= 1e-40
    changes = [torch.randn(count, generator=generator) * width for width in (0.0, 0.005, 0.01)]
    tensors = [(base + change).to(dtype) for change in changes]
    found = hashlib.sha256()
    inputs = in_memory(tensors[:2], arithmetic=arithmetic, block=block).inputs
    found.update(repr(inputs.sums(products)).encode())
    for formula, arguments in (
        (chord, {"t": 0.3}),
        (everything, {"numbers": (0.3, 1.7, 2.0), "kept": Keep((3, 4), 0.4), "edge": 17_000}),
    ):
        pair = in_memory(tensors[:2], arithmetic=arithmetic, block=block)
        found.update(repr(pair.inputs.write(formula, summed=moved, **arguments)).encode())
        found.update(pair.result.view(torch.uint8).numpy().tobytes())
    three = in_memory(tensors, arithmetic=arithmetic, block=block)
    cuts: list[Cut] = [cut for (cut,) in three.inputs.largest(magnitudes, [[count // 2], [count // 3]])]
    found.update(repr(cuts).encode())
    sums = three.inputs.write(vote, weights=(0.6, 0.4), cuts=cuts, scale=0.9, normalize=True, summed=moved)
    found.update(repr(sums).encode())
    found.update(three.result.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("block", [4096, 3 * 4096, WIDE])
def test_neither_blocks_nor_torch_change_a_bit(dtype: torch.dtype, arithmetic: str, block: int) -> None:
    assert digest(dtype, arithmetic=arithmetic, block=block) == digest(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["x86-64", "haswell"])
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names of x86 processors")
def test_no_instruction_set_changes_a_bit(processor: str, tmp_path: object) -> None:
    """SSE2 alone, and AVX2 with fused multiply-add and F16C. AVX-512 is this machine's own where it has it."""
    code = "import tests.methods.test_same_bits as t; print(*map(t.digest, t.DTYPES[::2]))"
    environment = os.environ | {"NUMBA_CPU_NAME": processor, CACHE_VARIABLE: str(tmp_path)}
    environment.pop("NUMBA_CPU_FEATURES", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [digest(dtype) for dtype in DTYPES[::2]], done.stderr


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_square_roots_and_quotients_are_the_nearest_numbers(dtype: torch.dtype, arithmetic: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(100_000, generator=generator, dtype=dtype) + 1e-6 for _ in range(2))
    for formula, expected in (
        (lambda x: sqrt(x[0]), np.sqrt(x.numpy())),
        (lambda x: x[0] / x[1], x.numpy() / y.numpy()),
        (lambda x: 1.0 / x[1], 1 / y.numpy()),
    ):
        tensor = in_memory([x, y], arithmetic=arithmetic)
        tensor.inputs.write(formula)
        assert np.array_equal(tensor.result.numpy(), expected)
