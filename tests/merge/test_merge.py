"""What a merge makes of its tensors: special ones, wrong ones, and a directory that is a checkpoint again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergeline.errors import MergeError
from mergeline.sources.checkpoint import open_checkpoint
from tests.builders.slerp_merges import merge, slerp64, tensors_of
from tests.builders.tiny_checkpoints import make_mistral


def test_rows_that_only_the_base_has_are_the_bases_own(recipe: Path, tmp_path: Path) -> None:
    a = make_mistral(tmp_path / "a", 0, vocabulary=66, dtype=torch.float32)
    b = tensors_of(tmp_path / "b")
    merge(recipe, tmp_path / "out")
    merged = tensors_of(tmp_path / "out")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(merged[name][64:], a[name][64:])
        torch.testing.assert_close(merged[name][:64].double(), slerp64(a[name][:64], b[name], 0.3), rtol=0, atol=2**-24)


def test_integer_buffers_are_copied_from_the_base(recipe: Path, tmp_path: Path) -> None:
    for name, value in (("a", 3), ("b", 4)):
        tensors = tensors_of(tmp_path / name)
        tensors["model.positions"] = torch.full((7,), value)
        save_file(tensors, tmp_path / name / "model.safetensors")
    merge(recipe, tmp_path / "out")
    assert tensors_of(tmp_path / "out")["model.positions"].tolist() == [3] * 7


@pytest.mark.parametrize("method", ["slerp", "linear"])
def test_empty_tensors_stay_empty(method: str, recipe: Path, tmp_path: Path) -> None:
    for name in "ab":
        save_file(
            tensors_of(tmp_path / name) | {"model.none": torch.empty(0, 8)}, tmp_path / name / "model.safetensors"
        )
    if method == "linear":
        models = "".join(f"  - {{model: {tmp_path / name}, parameters: {{weight: 1}}}}\n" for name in "ab")
        recipe.write_text(f"merge_method: linear\nmodels:\n{models}")
    merge(recipe, tmp_path / "out")
    assert tensors_of(tmp_path / "out")["model.none"].shape == (0, 8)


def test_not_a_number_is_refused_with_the_tensors_name(recipe: Path, tmp_path: Path) -> None:
    tensors = tensors_of(tmp_path / "b")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, tmp_path / "b" / "model.safetensors")
    with pytest.raises(MergeError, match=r"'model.norm.weight': the result holds NaN .*/a and .*/b"):
        merge(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_overflow_in_float16_is_refused(recipe: Path, tmp_path: Path) -> None:
    tensors = tensors_of(tmp_path / "a")
    tensors["model.norm.weight"][3] = 1e6
    save_file(tensors, tmp_path / "a" / "model.safetensors")
    recipe.write_text(recipe.read_text() + "dtype: float16\n")
    with pytest.raises(MergeError, match="infinite values as F16"):
        merge(recipe, tmp_path / "out")


def test_checkpoint_written_by_a_merge_is_a_checkpoint(recipe: Path, tmp_path: Path) -> None:
    merge(recipe, tmp_path / "out", max_shard_bytes=50_000)
    assert open_checkpoint(str(tmp_path / "out")).tensors.keys() == tensors_of(tmp_path / "out").keys()
