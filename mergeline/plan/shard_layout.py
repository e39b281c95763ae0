"""Which tensors lie in which output file, and where: decided from names and sizes alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergeline.plan.merge_plan import TensorPlan


def pack(tensors: Sequence[TensorPlan], max_bytes: int) -> list[list[TensorPlan]]:
    """Fill shards greedily in order; a tensor larger than ``max_bytes`` gets a shard of its own."""
    shards: list[list[TensorPlan]] = []
    room = 0
    for tensor in tensors:
        if not shards or tensor.nbytes > room:
            shards.append([])
            room = max_bytes
        shards[-1].append(tensor)
        room -= tensor.nbytes
    return shards


def shard_filename(index: int, count: int) -> str:
    """Name shard ``index`` (from 0) of ``count`` as transformers does."""
    return "model.safetensors" if count == 1 else f"model-{index + 1:05d}-of-{count:05d}.safetensors"


def safetensors_header(tensors: Sequence[TensorPlan], metadata: Mapping[str, str]) -> bytes:
    """Render the header of a safetensors file: 8-byte length, then JSON padded with blanks to a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [tensor.offset, tensor.offset + tensor.nbytes],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
