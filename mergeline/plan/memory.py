"""How many elements of a tensor are in memory at once, and the peak memory of a merge."""

from __future__ import annotations

from dataclasses import dataclass

from mergeline.plan.merge_plan import MergePlan, TensorPlan
from mergeline.support.dtypes import BITS


@dataclass(frozen=True)
class StreamSizes:
    """How many elements of each input are in memory at once, per worker."""

    held_elements: int
    """Tensors up to this size are read once and kept in memory for all passes of the method."""
    block_elements: int
    """Larger tensors are read in blocks of this size, anew in every pass."""
    piece_elements: int
    """Elements computed in one call, and on the CPU written in one call."""


CPU_SIZES = StreamSizes(held_elements=16 * 2**20, block_elements=2**20, piece_elements=256 * 2**10)
"""Small enough for the processor's cache."""

GPU_SIZES = StreamSizes(held_elements=16 * 2**20, block_elements=16 * 2**20, piece_elements=16 * 2**20)
"""Large, as every call costs a GPU time."""

_TORCH_BASE_BYTES = 300 * 2**20
"""Resident memory of a process that has imported torch."""


def working_set_nbytes(plan: MergePlan, workers: int, sizes: StreamSizes = CPU_SIZES) -> int:
    """Estimate the peak memory of a merge, in bytes, without the page cache."""

    def need(tensor: TensorPlan) -> int:
        is_held = tensor.element_count <= sizes.held_elements
        count = tensor.element_count if is_held else sizes.block_elements
        width = sum(BITS[item.spec.dtype] for item in tensor.inputs)
        scratch = (len(tensor.inputs) + 3) * 4 * sizes.piece_elements
        return count * width // 8 + scratch

    return _TORCH_BASE_BYTES + workers * max(need(tensor) for shard in plan.shards for tensor in shard.tensors)
