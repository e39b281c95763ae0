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
    """Larger tensors are read in blocks of this size, once for every look. All are computed and written in such
    blocks; those of rows hold whole ones."""


CPU_SIZES = StreamSizes(held_elements=16 * 2**20, block_elements=2**17)
"""Blocks stay in the processor's cache until they are used."""

GPU_SIZES = StreamSizes(held_elements=16 * 2**20, block_elements=16 * 2**20)
"""A GPU wants few large blocks."""

_BASE_BYTES = 250 * 2**20
"""Resident memory of a process that has compiled loops; one that finds them compiled takes half of it."""

_COUNTS_BYTES = 2**20
"""Per input: how many elements have which bits, while the largest are looked for."""


def working_set_nbytes(plan: MergePlan, workers: int, sizes: StreamSizes = CPU_SIZES) -> int:
    """Estimate the peak memory of a merge, in bytes, without the page cache."""

    def need(tensor: TensorPlan) -> int:
        block = min(tensor.element_count, max(sizes.block_elements, tensor.shape[-1] if tensor.shape else 1))
        count = tensor.element_count if tensor.element_count <= sizes.held_elements else block
        width = sum(BITS[item.spec.dtype] for item in tensor.inputs)
        # The result and random masks; sums and weights of rows and columns where a method takes them apart.
        beside = block * (8 + len(tensor.inputs)) + 128 * tensor.element_count // max(1, min(tensor.shape or (1,)))
        return count * width // 8 + beside + len(tensor.inputs) * _COUNTS_BYTES

    return _BASE_BYTES + workers * max(need(tensor) for shard in plan.shards for tensor in shard.tensors)
