"""How much of a tensor is in memory at once, and what a whole merge needs."""

from __future__ import annotations

from dataclasses import dataclass

from mergeline.plan.merge_plan import MergePlan, TensorPlan
from mergeline.support.dtypes import BITS


@dataclass(frozen=True)
class StreamSizes:
    """How many elements of each input are in memory at once, per worker."""

    held_elements: int
    """A tensor up to this size is read once and kept, however often a method looks at it."""
    block_elements: int
    """Larger tensors are read in blocks of this size, once for every look."""
    piece_elements: int
    """Computed, and on the CPU written, in one go."""


CPU_SIZES = StreamSizes(held_elements=16 * 2**20, block_elements=2**20, piece_elements=256 * 2**10)
"""Blocks and pieces stay in the processor's cache until they are used."""

GPU_SIZES = StreamSizes(held_elements=16 * 2**20, block_elements=16 * 2**20, piece_elements=16 * 2**20)
"""A GPU wants few large pieces."""

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
