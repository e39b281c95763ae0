"""Which tensors lie in which output file, and where: decided from names and sizes alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar


class Sized(Protocol):
    """Anything with a size in bytes."""

    @property
    def nbytes(self) -> int: ...


SizedT = TypeVar("SizedT", bound=Sized)


def pack(items: Sequence[SizedT], max_bytes: int) -> list[list[SizedT]]:
    """Fill shards greedily in order; an item larger than ``max_bytes`` gets a shard of its own."""
    shards: list[list[SizedT]] = []
    room = 0
    for item in items:
        if not shards or item.nbytes > room:
            shards.append([])
            room = max_bytes
        shards[-1].append(item)
        room -= item.nbytes
    return shards


def shard_filename(index: int, count: int) -> str:
    """Name shard ``index`` (from 0) of ``count`` as transformers does."""
    return "model.safetensors" if count == 1 else f"model-{index + 1:05d}-of-{count:05d}.safetensors"


class Placed(Sized, Protocol):
    """A tensor with its place in a shard."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def offset(self) -> int: ...


def safetensors_header(tensors: Sequence[Placed], metadata: Mapping[str, str]) -> bytes:
    """Render the head of a safetensors file: 8-byte length, then JSON padded with blanks to a multiple of 8."""
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
