"""A merge's numbers against the formula in float64: rounded once, however the work is cut."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergeline.merge.shard import Resources
from mergeline.plan.memory import StreamSizes
from tests.builders.slerp_merges import SLERP, merge, slerp64, tensors_of
from tests.builders.tiny_checkpoints import make_mistral, mistral_tensors


def test_slerp_is_the_float64_formula_rounded_once(recipe: Path, tmp_path: Path) -> None:
    merge(recipe, tmp_path / "out")
    a, b, merged = (tensors_of(tmp_path / name) for name in ("a", "b", "out"))
    for name, tensor in merged.items():
        # A few float32 roundings of numbers below 0.2 stay below 2^-24.
        torch.testing.assert_close(tensor.double(), slerp64(a[name], b[name], 0.3), rtol=0, atol=2**-24)


@pytest.mark.parametrize(("t", "parent"), [(0, "a"), (1, "b")])
@pytest.mark.parametrize("change", [0.02, 2.0], ids=["siblings", "strangers"])
def test_ends_of_the_arc_are_the_parents_bit_for_bit(
    change: float, t: int, parent: str, recipe: Path, tmp_path: Path
) -> None:
    a = mistral_tensors(0, dtype=torch.float32)
    a["model.norm.weight"][0] = -0.0
    save_file(a, tmp_path / "a" / "model.safetensors")
    make_mistral(tmp_path / "b", 1, dtype=torch.float32, base=a, change=change)
    recipe.write_text(SLERP.format(a=tmp_path / "a", b=tmp_path / "b", t=t))
    merge(recipe, tmp_path / "out")
    expected = tensors_of(tmp_path / parent)
    for name, tensor in tensors_of(tmp_path / "out").items():
        assert torch.equal(tensor.view(torch.int32), expected[name].view(torch.int32))


def test_swapping_the_parents_and_t_gives_the_same_weights(recipe: Path, tmp_path: Path) -> None:
    merge(recipe, tmp_path / "out")
    recipe.write_text(SLERP.format(a=tmp_path / "b", b=tmp_path / "a", t=0.7))
    merge(recipe, tmp_path / "swapped")
    swapped = tensors_of(tmp_path / "swapped")
    for name, tensor in tensors_of(tmp_path / "out").items():
        torch.testing.assert_close(tensor, swapped[name], rtol=0, atol=2**-24)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("block", [100, 8 * 2**20])
def test_blocks_shards_and_workers_change_no_byte(workers: int, block: int, recipe: Path, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        # 14,400 elements and more in most tensors: four blocks of the smallest size.
        make_mistral(tmp_path / name, seed, dtype=torch.float32, hidden=120, vocabulary=120, intermediate=150, layers=1)
    merge(recipe, tmp_path / "out")
    sizes = StreamSizes(held_elements=block, block_elements=block)
    merge(recipe, tmp_path / "other", max_shard_bytes=90_000, resources=Resources(workers=workers, sizes=sizes))
    expected, other = tensors_of(tmp_path / "out"), tensors_of(tmp_path / "other")
    assert expected.keys() == other.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, other[name])
    assert len(list((tmp_path / "other").glob("*.safetensors"))) > 3


def test_progress_adds_up_to_what_is_written_and_the_record_to_the_file(recipe: Path, tmp_path: Path) -> None:
    written: list[int] = []
    (shard,) = merge(recipe, tmp_path / "out", on_progress=written.append)
    assert sum(written) == sum(tensor.nbytes for tensor in tensors_of(tmp_path / "a").values())
    content = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == shard.sha256


def test_mixed_dtypes_are_read_as_stored_and_rounded_once(recipe: Path, tmp_path: Path) -> None:
    a = make_mistral(tmp_path / "a", 0, dtype=torch.bfloat16)
    b = make_mistral(tmp_path / "b", 1, dtype=torch.float16)
    recipe.write_text(SLERP.format(a=tmp_path / "a", b=tmp_path / "b", t=0.3) + "dtype: bfloat16\n")
    merge(recipe, tmp_path / "out")
    for name, tensor in tensors_of(tmp_path / "out").items():
        assert tensor.dtype == torch.bfloat16
        exact = slerp64(a[name], b[name], 0.3)
        assert (tensor != exact.to(torch.bfloat16)).double().mean() < 0.001


@pytest.mark.parametrize("change", [0.02, 2.0], ids=["siblings", "strangers"])
@pytest.mark.parametrize("method", ["slerp", "linear"])
def test_one_in_ten_thousand_at_most_is_not_the_exact_value_rounded_once(
    method: str, change: float, tmp_path: Path
) -> None:
    # Tensors of several million elements, in which float32 sums would lose the angle's last digits.
    shape = {"hidden": 1024, "intermediate": 2816, "layers": 1, "vocabulary": 4096}
    a = make_mistral(tmp_path / "a", 0, **shape)
    b = make_mistral(tmp_path / "b", 1, base=a, change=change, **shape)
    names = [str(tmp_path / name) for name in "ab"]
    # No round numbers: 0.3 of five units in the last place is a tie, which float64 breaks by its own rounding of 0.3.
    t = 0.3141
    weights = [{"model": name, "parameters": {"weight": w}} for name, w in zip(names, (1 - t, t), strict=True)]
    recipe = {"merge_method": method, "models": weights if method == "linear" else [{"model": name} for name in names]}
    recipe |= {} if method == "linear" else {"base_model": names[0], "parameters": {"t": t}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    merge(tmp_path / "recipe.yaml", tmp_path / "out")
    wrong = total = 0
    for name, tensor in tensors_of(tmp_path / "out").items():
        x, y = a[name].double(), b[name].double()
        cosine = torch.nn.functional.cosine_similarity(x.flatten(), y.flatten(), dim=0)
        is_chord = method == "linear" or cosine.abs() > 0.9995
        exact = (1 - t) * x + t * y if is_chord else slerp64(x, y, t)
        wrong += int((tensor != exact.to(torch.bfloat16)).sum())
        total += tensor.numel()
    assert wrong < 1e-4 * total


def test_float64_is_merged_in_float64(recipe: Path, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        make_mistral(tmp_path / name, seed, dtype=torch.float64)
    merge(recipe, tmp_path / "out")
    a, b = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    for name, tensor in tensors_of(tmp_path / "out").items():
        torch.testing.assert_close(tensor, slerp64(a[name], b[name], 0.3), rtol=0, atol=1e-15)


def test_linear_adds_up_weights_per_model_and_normalizes(recipe: Path, tmp_path: Path) -> None:
    models = "".join(
        f"  - {{model: {tmp_path / name}, parameters: {{weight: {weight}}}}}\n" for name, weight in (("a", 1), ("b", 3))
    )
    recipe.write_text(f"merge_method: linear\nmodels:\n{models}")
    merge(recipe, tmp_path / "out")
    a, b = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    for name, tensor in tensors_of(tmp_path / "out").items():
        torch.testing.assert_close(tensor, (a[name] + 3 * b[name]) / 4, rtol=0, atol=2**-24)
