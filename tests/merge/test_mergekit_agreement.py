"""Our merges against mergekit 0.1.5's results for the same recipes and checkpoints; see ``tests/golden/README.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from mergeline.cli.command_line import main
from mergeline.methods import METHODS
from tests.builders.merge_reference import merge_in_float64
from tests.builders.tiny_checkpoints import make_mistral, mistral_tensors, tensors_sha256

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDENS: dict[str, Any] = json.loads((GOLDEN / "goldens.json").read_text())
FLOAT32_ROUNDINGS = 8 * 2.0**-24
"""Relative to the largest weight: what a few float32 operations may leave where terms cancel, and how near the middle
between two bfloat16 values they may round to either."""


@dataclass(frozen=True)
class Merged:
    """One recipe's result three times over."""

    ours: dict[str, Tensor]
    mergekits: dict[str, Tensor]
    exact: dict[str, Tensor]
    """float64, never rounded."""
    our_config: dict[str, Any]
    golden: dict[str, Any]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Tensor]]]:
    """The goldens' inputs, written into the working directory and keyed as the recipes name them."""
    workspace = tmp_path_factory.mktemp("goldens")
    written: dict[str, dict[str, Tensor]] = {}
    for stored_name, sha256 in GOLDENS["inputs_sha256"].items():
        name, dtype = stored_name.split(".")
        source, shape = GOLDENS["inputs"][name], GOLDENS["shape"]
        base = None
        if source["base"]:
            base = mistral_tensors(GOLDENS["inputs"][source["base"]]["seed"], dtype=torch.float32, **shape)
        directory = workspace / stored_name
        tensors = make_mistral(directory, source["seed"], dtype=getattr(torch, dtype), base=base, **shape)
        assert tensors_sha256(tensors) == sha256, f"{stored_name}: torch's generator gives other numbers than it did"
        written[f"./{stored_name}"] = tensors
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        yield written


@pytest.fixture(scope="module", params=GOLDENS["cases"])
def merged(request: pytest.FixtureRequest, checkpoints: dict[str, dict[str, Tensor]]) -> Merged:
    golden = GOLDENS["cases"][request.param]
    if golden["recipe"]["merge_method"] not in METHODS:
        pytest.skip("method not built yet")
    recipe, out = Path(f"{request.param}.yaml"), Path(f"{request.param}.merged")
    recipe.write_text(yaml.safe_dump(golden["recipe"], sort_keys=False))
    assert main(["merge", str(recipe), str(out)]) == 0
    return Merged(
        ours={name: tensor for shard in sorted(out.glob("*.safetensors")) for name, tensor in load_file(shard).items()},
        mergekits=load_file(GOLDEN / f"{request.param}.safetensors"),
        exact=merge_in_float64(golden["recipe"], checkpoints),
        our_config=json.loads((out / "config.json").read_text()),
        golden=golden,
    )


def units_in_the_last_place(a: Tensor, b: Tensor) -> Tensor:
    """Count the bfloat16 values between ``a`` and ``b``, elementwise; both zeros are one value."""

    def rank(tensor: Tensor) -> Tensor:
        bits = tensor.contiguous().view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    return (rank(a) - rank(b)).abs()


def test_names_shapes_and_dtypes_are_mergekits(merged: Merged) -> None:
    def described(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
        return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}

    assert described(merged.ours) == described(merged.mergekits)


def test_config_counts_the_layers_as_mergekit_does(merged: Merged) -> None:
    assert merged.our_config["num_hidden_layers"] == merged.golden["num_hidden_layers"]


def test_every_element_is_mergekits_to_the_last_place(merged: Merged) -> None:
    """bfloat16: one unit in the last place wherever mergekit itself is right to one unit; float32: 1e-6."""
    for name, mergekits in merged.mergekits.items():
        ours, exact = merged.ours[name], merged.exact[name]
        if mergekits.dtype == torch.float32:
            torch.testing.assert_close(ours, mergekits, rtol=0, atol=1e-6)
            continue
        is_right = units_in_the_last_place(mergekits, exact.bfloat16()) <= 1
        is_close = units_in_the_last_place(ours, mergekits) <= 1
        is_remainder = (ours.double() - mergekits.double()).abs() <= FLOAT32_ROUNDINGS * exact.abs().max()
        assert (is_close | is_remainder | ~is_right).all(), name


def test_no_element_is_further_from_the_exact_value_than_mergekits(merged: Merged) -> None:
    for name, exact in merged.exact.items():
        our_error = (merged.ours[name].double() - exact).abs()
        mergekits_error = (merged.mergekits[name].double() - exact).abs()
        assert (our_error <= mergekits_error + FLOAT32_ROUNDINGS * exact.abs().max()).all(), name


def test_error_of_the_whole_model_is_not_larger_than_mergekits(merged: Merged) -> None:
    def mean_square_error(tensors: dict[str, Tensor]) -> float:
        squares = [(tensors[name].double() - exact).square().flatten() for name, exact in merged.exact.items()]
        return torch.cat(squares).mean().item()

    # One part in a million: elements half-way between two bfloat16 values may go either way.
    assert mean_square_error(merged.ours) <= mean_square_error(merged.mergekits) * (1 + 1e-6)


def test_goldens_cover_the_branch_for_collinear_weights_and_the_arc(checkpoints: dict[str, dict[str, Tensor]]) -> None:
    def cosines(other: str) -> list[float]:
        pairs = zip(checkpoints["./first.bfloat16"].values(), checkpoints[other].values(), strict=True)
        return [torch.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item() for a, b in pairs]

    # 2 % apart is 0.9998 on average; a vector of 16 elements may fall on either side.
    collinear = [cosine > 0.9995 for cosine in cosines("./sibling.bfloat16")]
    assert sum(collinear) > 0.9 * len(collinear)
    assert max(abs(cosine) for cosine in cosines("./stranger.bfloat16")) < 0.9995
