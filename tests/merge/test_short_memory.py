"""A GPU without room, stood in for by torch's CPU device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergeline.errors import MergeError
from mergeline.merge import tensor_merger
from mergeline.merge.gpu_buffers import TorchBuffers
from mergeline.merge.shard import Resources
from mergeline.plan.memory import StreamSizes
from tests.builders.slerp_merges import SLERP, merge, tensors_of
from tests.builders.tiny_checkpoints import make_mistral


def test_a_gpu_that_runs_short_of_memory_gives_the_same_bytes_from_smaller_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"hidden": 512, "vocabulary": 1024, "intermediate": 64, "layers": 1}
    for seed, name in enumerate("ab"):
        make_mistral(tmp_path / name, seed, dtype=torch.float32, **shape)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(SLERP.format(a=tmp_path / "a", b=tmp_path / "b", t=0.3))
    merge(recipe, tmp_path / "out")
    monkeypatch.setattr(tensor_merger, "buffers_on", ShortOfMemory)
    sizes, written = StreamSizes(2**20, 2**20), list[int]()
    merge(recipe, tmp_path / "short", resources=Resources(sizes=sizes), on_progress=written.append)
    expected, short = tensors_of(tmp_path / "out"), tensors_of(tmp_path / "short")
    assert all(torch.equal(tensor, short[name]) for name, tensor in expected.items())
    assert sum(written) == sum(tensor.nbytes for tensor in expected.values())
    assert min(written) < 0
    monkeypatch.setattr(ShortOfMemory, "limit", 2**12)
    with pytest.raises(MergeError, match="ran out of memory; run again with fewer workers"):
        merge(recipe, tmp_path / "none", resources=Resources(sizes=sizes))


class ShortOfMemory(TorchBuffers):
    """torch's CPU device as a GPU that has no room for large buffers, and once none in the midst of a tensor."""

    limit = 2**17
    blocks = 0

    def __init__(self, device: str) -> None:
        super().__init__("cpu")

    def elements(self, slot: int, count: int, dtype: str) -> torch.Tensor:
        if count > self.limit:
            raise torch.OutOfMemoryError("no room")
        return super().elements(slot, count, dtype)

    def stored(self, part: torch.Tensor) -> memoryview:
        stored = super().stored(part)
        self.blocks += 1
        if self.blocks == 3:
            raise torch.OutOfMemoryError("no room")
        return stored
