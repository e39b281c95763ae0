"""What runs on a GPU against the same on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mergeline.merge.devices import choose_devices
from mergeline.merge.merging import merge_recipe
from mergeline.merge.shard import Resources
from mergeline.methods import METHODS
from mergeline.sources.hub import Hub
from tests.builders.tiny_checkpoints import make_mistral
from tests.methods.test_methods import PARAMETERS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("method", METHODS)
def test_gpu_gives_the_cpus_weights(method: str, dtype: torch.dtype, tmp_path: Path) -> None:
    base = make_mistral(tmp_path / "base", 0, dtype=dtype, hidden=256, intermediate=512)
    for seed, name in ((1, "a"), (2, "b")):
        make_mistral(tmp_path / name, seed, dtype=dtype, hidden=256, intermediate=512, base=base, change=0.3)
    names = {"passthrough": ["a"], "slerp": ["base", "a"]}.get(method, ["a", "b"])
    listed = "".join(f"  - model: {tmp_path / name}\n" for name in names)
    origin = "" if method in ("linear", "passthrough") else f"base_model: {tmp_path / 'base'}\n"
    parameters = PARAMETERS[method].strip("{}")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"merge_method: {method}\n{origin}models:\n{listed}parameters: {{{parameters}}}\n")
    for name, devices in (("cpu", ["cpu"]), ("cuda", list(choose_devices("cuda")))):
        merge_recipe(recipe, tmp_path / name, hub=Hub(), resources=Resources(tuple(devices), workers=2))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("cuda", "cpu"))
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_short_memory_leads_to_smaller_blocks(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        make_mistral(tmp_path / name, seed, vocabulary=32_000, hidden=512, layers=1)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"merge_method: slerp\nbase_model: {tmp_path / 'a'}\nmodels: [{{model: {tmp_path / 'b'}}}]\n"
        "parameters: {t: 0.3}\n"
    )
    merge_recipe(recipe, tmp_path / "cpu", hub=Hub())
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(96 * 2**20 / total)
    try:
        merge_recipe(recipe, tmp_path / "cuda", hub=Hub(), resources=Resources(("cuda:0",)))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("cuda", "cpu"))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
