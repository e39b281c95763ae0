from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mergeline.errors import MergeError
from mergeline.merge import tensor_merger
from mergeline.merge.geometry import merge_geometry, summarize
from mergeline.merge.gpu_buffers import TorchBuffers
from mergeline.merge.merging import MergedModel, merge_recipe
from mergeline.merge.shard import Resources
from mergeline.methods import METHODS
from mergeline.methods._kernels import native, source
from mergeline.methods._kernels.arithmetic import bound
from mergeline.methods._kernels.task_vectors import random_keep
from mergeline.plan.memory import StreamSizes, working_set_nbytes
from mergeline.sources.hub import Hub
from tests.builders.tiny_checkpoints import make_mistral
from tests.methods.in_memory import in_memory

PARAMETERS = {
    "slerp": "t: 0.3",
    "nuslerp": "weight: 0.4",
    "linear": "weight: 0.4",
    "passthrough": "scale: 0.5",
    "task_arithmetic": "weight: 0.4",
    "ties": "{weight: 0.4, density: 0.3}",
    "dare_linear": "{weight: 0.4, density: 0.3}",
    "dare_ties": "{weight: 0.4, density: 0.3}",
    "breadcrumbs": "{weight: 0.4, density: 0.7, gamma: 0.05}",
    "breadcrumbs_ties": "{weight: 0.4, density: 0.7, gamma: 0.05}",
    "model_stock": "filter_wise: false",
}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A base model and two fine-tunes of it, float32."""
    base = make_mistral(tmp_path / "base", 0, dtype=torch.float32)
    for seed, name in ((1, "a"), (2, "b")):
        make_mistral(tmp_path / name, seed, dtype=torch.float32, base=base, change=0.3)
    return tmp_path


def merged(models: Path, method: str, output: str, parameters: str = "", **options: object) -> MergedModel:
    names = {"passthrough": ["a"], "slerp": ["base", "a"]}.get(method, ["a", "b"])
    listed = "".join(f"  - model: {models / name}\n" for name in names)
    base = "" if method in ("linear", "passthrough") else f"base_model: {models / 'base'}\n"
    text = f"merge_method: {method}\n{base}models:\n{listed}parameters: {{{_flow(parameters or PARAMETERS[method])}}}\n"
    (models / f"{output}.yaml").write_text(text)
    return merge_recipe(models / f"{output}.yaml", models / output, hub=Hub(), **options)  # type: ignore[arg-type]


def _flow(parameters: str) -> str:
    return parameters.strip("{}")


def tensors_of(merge: MergedModel) -> dict[str, torch.Tensor]:
    return {k: v for path in merge.directory.glob("*.safetensors") for k, v in load_file(path).items()}


def test_every_method_is_tried_here() -> None:
    assert PARAMETERS.keys() == METHODS.keys()


SMALL = StreamSizes(held_elements=10_000, block_elements=4096)
"""Tensors of the large models below are cut into three blocks, and not held."""


@pytest.fixture
def large_models(tmp_path: Path) -> Path:
    """As ``models``, with tensors of several runs of 4,096 elements."""
    shape = {"hidden": 96, "intermediate": 144, "layers": 1, "vocabulary": 100}
    base = make_mistral(tmp_path / "base", 0, dtype=torch.float32, **shape)
    for seed, name in ((1, "a"), (2, "b")):
        make_mistral(tmp_path / name, seed, dtype=torch.float32, base=base, change=0.3, **shape)
    return tmp_path


CASES = {method: (method, parameters) for method, parameters in PARAMETERS.items()} | {
    "nuslerp of rows": ("nuslerp", "{weight: 0.4, nuslerp_flatten: false}"),
    "nuslerp of columns": ("nuslerp", "{weight: 0.4, nuslerp_flatten: false, nuslerp_row_wise: true}"),
    "linear of rows only the first has": ("linear", "weight: 0.4"),
}


@pytest.mark.parametrize("case", CASES)
def test_blocks_workers_and_backend_change_no_bit(
    case: str, large_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, parameters = CASES[case]
    if "first" in case:
        make_mistral(large_models / "b", 2, dtype=torch.float32, hidden=96, intermediate=144, layers=1, vocabulary=90)
    whole = tensors_of(merged(large_models, method, "whole", parameters))
    for workers in (1, 3):
        resources = Resources(workers=workers, sizes=SMALL)
        cut = merged(large_models, method, f"cut{workers}", parameters, max_shard_bytes=50_000, resources=resources)
        assert_same_bits(tensors_of(cut), whole)
    # torch's CPU device stands in for a GPU.
    monkeypatch.setattr(tensor_merger, "buffers_on", lambda device: TorchBuffers("cpu"))
    resources = Resources(sizes=StreamSizes(2**20, 2**20))
    assert_same_bits(tensors_of(merged(large_models, method, "torch", parameters, resources=resources)), whole)


def assert_same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor.view(torch.int32), theirs[name].view(torch.int32)), name


@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("method", [method for method in METHODS if method != "passthrough"])
def test_nan_and_infinity_in_a_parent_never_disappear(method: str, value: float, density: float, models: Path) -> None:
    path = models / "a" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] = value
    save_file(tensors, path, metadata={"format": "pt"})
    parameters = PARAMETERS[method].replace("density: 0.3", f"density: {density}")
    with pytest.raises(MergeError, match=r"'model.norm.weight': the result holds NaN"):
        merged(models, method, "out", parameters)


def test_random_masks_are_numpys_philox_keyed_by_seed_model_and_tensor(models: Path) -> None:
    keep = random_keep(0.3, 7, 1, "x.weight")
    assert keep is not None
    key = np.frombuffer(hashlib.sha256(b"7/1/x.weight").digest()[:16], np.uint64)
    assert keep.key == tuple(key.tolist())
    drawn = np.empty(999, np.uint8)
    native.load(source.keep_source())(*keep.key, 0, bound(keep.probability), drawn)
    words = np.random.Philox(key=key).random_raw(500).view(np.uint32)[:999]
    assert drawn.tolist() == (words < 0.3 * 2**32).tolist()
    keys = {random_keep(0.3, *name).key for name in ((7, 1, "x"), (8, 1, "x"), (7, 2, "x"), (7, 1, "y"))}  # type: ignore[union-attr]
    assert len(keys) == 4


def test_dare_masks_each_difference_and_keeps_its_sum_of_magnitudes(models: Path) -> None:
    base, a = (load_file(models / name / "model.safetensors") for name in ("base", "a"))
    merged(models, "dare_linear", "out", "{weight: 1, density: 0.3}")
    recipe = (models / "out.yaml").read_text().replace(f"  - model: {models / 'b'}\n", "")
    (models / "one.yaml").write_text(recipe)
    one = merge_recipe(models / "one.yaml", models / "one", hub=Hub())
    for name, tensor in tensors_of(one).items():
        whole, thinned = a[name] - base[name], tensor - base[name]
        kept = thinned != 0
        scale = (thinned[kept] / whole[kept]).median()
        # Sums of magnitudes and scale are float32; subtracting the base again costs its last digits.
        torch.testing.assert_close(thinned.abs().sum(), whole.abs().sum(), rtol=1e-3, atol=0)
        torch.testing.assert_close(thinned, whole * scale * kept, rtol=0, atol=2**-21)


def test_seed_decides_what_dare_keeps(models: Path) -> None:
    outputs = [
        tensors_of(merged(models, "dare_ties", f"out{i}", f"{{weight: 1, density: 0.5, seed: {seed}}}"))
        for i, seed in enumerate((1, 1, 2))
    ]
    name = "model.layers.2.mlp.up_proj.weight"
    assert torch.equal(outputs[0][name], outputs[1][name])
    assert not torch.equal(outputs[0][name], outputs[2][name])


@given(st.lists(st.lists(st.floats(-10, 10, width=32), min_size=5, max_size=5), min_size=2, max_size=4),
       st.lists(st.floats(-2, 2), min_size=4, max_size=4))  # fmt: skip
@settings(deadline=None)
def test_distances_follow_the_vectors(rows: list[list[float]], coefficients: list[float]) -> None:
    vectors = torch.tensor(rows)
    distances, exact = in_memory(list(vectors)).inputs.distances(), vectors.double()
    used = coefficients[: len(rows)]
    total = sum((c * v for c, v in zip(used, exact, strict=True)), torch.zeros(5, dtype=torch.float64))
    for i, vector in enumerate(exact):
        # Squares of numbers below 10, five of them, in float32.
        assert distances.squared_norms[i] == pytest.approx(vector.square().sum().item(), abs=1e-3)
        for j, other in enumerate(exact):
            assert distances.dot(i, j) == pytest.approx((vector @ other).item(), abs=2e-3)
            product = (vector - exact[0]) @ (other - exact[0])
            assert distances.dot_of_differences(i, j) == pytest.approx(product.item(), abs=2e-3)
        moved = (total - vector).square().sum().item()
        assert distances.squared_distance_of_sum(used, i) == pytest.approx(moved, abs=5e-2)


@pytest.mark.parametrize("method", ["slerp", "ties", "linear"])
def test_geometry_is_that_of_the_files(method: str, models: Path) -> None:
    result = merged(models, method, "out")
    geometry = merge_geometry(result.plan, result.results)
    written = tensors_of(result)
    labels = [Path(source.label).name for source in result.plan.sources]
    inputs = {name: load_file(models / name / "model.safetensors") for name in labels}
    plans = {tensor.name: tensor for shard in result.plan.shards for tensor in shard.tensors}
    for tensor in geometry:
        names = [labels[item.source] for item in plans[tensor.name].inputs]
        vectors = [inputs[name][tensor.name].double().flatten() for name in names]
        assert tensor.norms == pytest.approx([vector.norm().item() for vector in vectors], rel=1e-6)
        moved = [((written[tensor.name].double().flatten() - v).norm() / v.norm()).item() for v in vectors]
        assert tensor.moved == pytest.approx(moved, abs=1e-5)
        merged_vectors = [v - vectors[0] for v in vectors[1:]] if method == "ties" else vectors
        cosine = torch.nn.functional.cosine_similarity(merged_vectors[0], merged_vectors[1], dim=0).item()
        assert tensor.cosine == pytest.approx(cosine, abs=1e-5)
    assert len(summarize(result.plan, geometry)) == (3 if method == "slerp" else 2)


def test_constant_memory_is_stated_by_the_plan(models: Path) -> None:
    plan = merged(models, "ties", "out").plan
    assert working_set_nbytes(plan, 1) < 400 * 2**20
