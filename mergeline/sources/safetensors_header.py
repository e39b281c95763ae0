"""The header of a safetensors file, read and checked; no weight is read here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mergeline.errors import CheckpointError
from mergeline.support.dtypes import BITS

_MAX_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor as its safetensors header describes it."""

    name: str
    """Key in the state dict, e.g. ``model.layers.0.mlp.up_proj.weight``."""
    dtype: str
    """safetensors' name, e.g. ``BF16``."""
    shape: tuple[int, ...]
    file: str
    """Weight file that holds it, relative to the checkpoint."""
    offset: int
    """First byte, counted from the start of the file."""
    nbytes: int
    """Size in the file, in bytes."""


def read_header(place: str, file_nbytes: int, read: Callable[[int], bytes]) -> bytes:
    """Return the JSON header of one safetensors file.

    Args:
        place: Name of the file for messages.
        file_nbytes: Size of the whole file.
        read: Returns the next n bytes of the file.

    Raises:
        CheckpointError: If the file is shorter than its header says, or the header exceeds 100 MB.
    """
    length = int.from_bytes(read(8), "little") if file_nbytes >= 8 else -1
    if not 2 <= length <= min(_MAX_HEADER_BYTES, file_nbytes - 8):
        raise CheckpointError(
            f"{place}: not a safetensors file, or cut short ({file_nbytes:,} bytes); fetch the file again."
        )
    header = read(length)
    if len(header) != length:
        raise CheckpointError(f"{place}: the header is {length:,} bytes, {len(header):,} were read; fetch it again.")
    return header


def add_tensors(tensors: dict[str, TensorSpec], reference: str, file: str, file_nbytes: int, header: bytes) -> None:
    """Add the tensors of a file after checking the header: keys, dtypes, sizes, and no gaps or overlaps."""
    place = f"{reference}/{file}"

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise CheckpointError(f"{place}: the header names a key twice; the file is malformed.")
        return dict(pairs)

    try:
        entries: dict[str, Any] = json.loads(header, object_pairs_hook=without_repeats)
        entries.pop("__metadata__", None)
        specs = [_spec(name, entry, file, 8 + len(header)) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        if isinstance(problem, CheckpointError):
            raise
        raise CheckpointError(f"{place}: the safetensors header is malformed ({problem!r}); fetch it again.") from None
    end = 8 + len(header)
    for spec in sorted(specs, key=lambda spec: (spec.offset, spec.nbytes)):
        expected = math.prod(spec.shape) * BITS[spec.dtype] // 8
        if spec.offset != end or spec.nbytes != expected or min(spec.shape, default=0) < 0:
            raise CheckpointError(f"{place}: tensor {spec.name!r} does not fit its place in the file; fetch it again.")
        end += spec.nbytes
        if spec.name in tensors:
            raise CheckpointError(f"{place}: tensor {spec.name!r} is also in {tensors[spec.name].file}.")
        tensors[spec.name] = spec
    if end != file_nbytes:
        raise CheckpointError(f"{place}: {file_nbytes:,} bytes, its header describes {end:,}; fetch the file again.")


def _spec(name: str, entry: dict[str, Any], file: str, data_start: int) -> TensorSpec:
    start, stop = (int(offset) for offset in entry["data_offsets"])
    dtype = str(entry["dtype"])
    if dtype not in BITS:
        raise ValueError(f"dtype {dtype}")
    return TensorSpec(name, dtype, tuple(int(size) for size in entry["shape"]), file, data_start + start, stop - start)
