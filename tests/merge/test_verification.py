"""What is recorded of a merge's files, and what verifying them finds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mergeline.errors import VerificationError
from mergeline.merge.shard import Resources
from mergeline.merge.verification import check_loads, verify_directory
from mergeline.sources.checkpoint import open_checkpoint
from tests.builders.slerp_merges import merge


def test_recorded_sha256_is_the_files(recipe: Path, tmp_path: Path) -> None:
    for result in merge(recipe, tmp_path / "out", resources=Resources(workers=3), max_shard_bytes=50_000):
        content = (tmp_path / "out" / result.filename).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (result.nbytes, result.sha256)


@pytest.mark.slow
def test_merge_loads_in_transformers(recipe: Path, tmp_path: Path) -> None:
    merge(recipe, tmp_path / "out", max_shard_bytes=50_000)
    merged = open_checkpoint(str(tmp_path / "out"))
    check_loads(tmp_path / "out", merged)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(VerificationError, match="the model wants"):
        check_loads(tmp_path / "out", merged)


def test_verify_finds_one_flipped_bit(recipe: Path, tmp_path: Path) -> None:
    merge(recipe, tmp_path / "out")
    assert verify_directory(tmp_path / "out").tensor_count == 48
    path = tmp_path / "out" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(VerificationError, match=r"model.safetensors has changed since it was written"):
        verify_directory(tmp_path / "out")
