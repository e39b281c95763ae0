"""Which tensors lie in which output file, and where: decided from names and sizes alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from mergeline.errors import InputError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class Sized(Protocol):
    """Anything with a size in bytes."""

    @property
    def nbytes(self) -> int: ...


SizedT = TypeVar("SizedT", bound=Sized)


def parse_size(text: str) -> int:
    """Read a size such as ``5GB`` (10^9), ``500MiB`` (2^20) or ``100000`` in bytes.

    Raises:
        InputError: If it is no positive size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or float(match[1]) * unit < 1:
        raise InputError(f"max_shard_size: {text!r} is no size; write for example 5GB, 500MB or 2GiB.")
    return int(float(match[1]) * unit)


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
