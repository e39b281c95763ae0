from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mergeline.merge.geometry import merge_geometry, summarize
from mergeline.merge.merging import MergedModel, merge_recipe
from mergeline.merge.shard import Resources
from mergeline.methods import METHODS
from mergeline.methods._kernels.distances import DistanceMeter
from mergeline.methods._kernels.random_stream import RandomStream
from mergeline.methods._kernels.selection import Largest
from mergeline.plan.memory import StreamSizes, working_set_nbytes
from mergeline.sources.hub import Hub
from tests.builders.merge_reference import keep_by_size
from tests.builders.tiny_checkpoints import make_mistral

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


@pytest.mark.parametrize("method", METHODS)
def test_pieces_blocks_and_workers_do_not_matter(method: str, models: Path) -> None:
    whole = tensors_of(merged(models, method, "whole"))
    sizes = StreamSizes(held_elements=1100, block_elements=960, piece_elements=96)
    pieced = tensors_of(
        merged(models, method, "pieced", max_shard_bytes=20_000, resources=Resources(workers=3, sizes=sizes))
    )
    for name, tensor in whole.items():
        # Sums over pieces are rounded in other places; what is selected or drawn is the same to the element.
        torch.testing.assert_close(tensor, pieced[name], rtol=0, atol=2**-24)


@pytest.mark.parametrize("flags", ["{nuslerp_flatten: false}", "{nuslerp_flatten: false, nuslerp_row_wise: true}"])
def test_rows_and_columns_are_whole_in_any_piece(flags: str, models: Path) -> None:
    parameters = f"{{weight: 0.4, {flags.strip('{}')}}}"
    whole = tensors_of(merged(models, "nuslerp", "whole", parameters))
    sizes = StreamSizes(held_elements=1100, block_elements=1000, piece_elements=100)
    for name, tensor in tensors_of(
        merged(models, "nuslerp", "pieced", parameters, resources=Resources(sizes=sizes))
    ).items():
        torch.testing.assert_close(tensor, whole[name], rtol=0, atol=2**-24)


@given(
    # Halves and few distinct values, so that many magnitudes are equal.
    st.lists(st.integers(-6, 6).map(lambda k: k / 2), min_size=1, max_size=60),
    st.integers(0, 60),
    st.integers(1, 17),
)
@settings(deadline=None, max_examples=200)
def test_selection_takes_the_first_of_the_largest(values: list[float], count: int, piece: int) -> None:
    tensor, count = torch.tensor(values), min(count, len(values))
    largest = Largest(count)
    for number in range(2):
        for part in tensor.split(piece):
            largest.observe(number, part)
        largest.end_pass(number)
    # A stable sort keeps equal magnitudes in order.
    expected = np.zeros(len(values), dtype=bool)
    expected[np.argsort(-np.abs(values), kind="stable")[:count]] = True
    taken = torch.cat([largest.mask(part) for part in tensor.split(piece)])
    assert taken.tolist() == expected.tolist()


def test_selection_is_exact_among_a_million_normal_numbers() -> None:
    values = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    largest = Largest(123_456)
    for number in range(2):
        for part in values.split(100_000):
            largest.observe(number, part)
        largest.end_pass(number)
    taken = torch.cat([largest.mask(part) for part in values.split(100_000)])
    assert torch.equal(values * taken, keep_by_size(values, smallest=len(values) - 123_456, largest=0))


@given(st.integers(0, 50), st.integers(1, 50))
@settings(deadline=None)
def test_random_stream_is_the_same_from_any_start(start: int, count: int) -> None:
    stream, whole = RandomStream(7, 1, "x.weight"), torch.empty(100)
    expected = stream.keep(0.4, 0, whole)[start : start + count]
    assert torch.equal(stream.keep(0.4, start, torch.empty(count))[: len(expected)], expected)


def test_random_streams_differ_by_seed_model_and_tensor_and_keep_their_share() -> None:
    like = torch.empty(1_000_000)
    streams = [RandomStream(*key) for key in ((0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"))]
    kept = [stream.keep(0.3, 0, like).double() for stream in streams]
    for mask in kept:
        # Five standard deviations of a binomial share.
        assert abs(mask.mean().item() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 1e6)
    for i in range(1, 4):
        assert abs((kept[0] * kept[i]).mean().item() - 0.09) < 5 * math.sqrt(0.09 * 0.91 / 1e6)


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
    meter = DistanceMeter(len(rows))
    meter.observe([vector[:3].clone() for vector in vectors])
    meter.observe([vector[3:].clone() for vector in vectors])
    distances, exact = meter.result(), vectors.double()
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
