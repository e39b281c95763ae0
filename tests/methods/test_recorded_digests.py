"""The bytes of small merges, recorded: whoever changes them must raise ``NUMERICS_VERSION`` and record them anew.

Recorded by ``MERGELINE_RECORD=1 python -m pytest tests/methods/test_recorded_digests.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mergeline.merge.merging import merge_recipe
from mergeline.methods import METHODS
from mergeline.methods.numerics import NUMERICS_VERSION
from mergeline.sources.hub import Hub
from tests.builders.tiny_checkpoints import make_mistral
from tests.methods.test_methods import PARAMETERS

RECORDED = Path(__file__).parents[1] / "golden" / "digests.json"


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Method -> sha256 over every tensor it gives of bfloat16 models; files and headers do not count."""
    folder = tmp_path_factory.mktemp("digests")
    base = make_mistral(folder / "base", 0)
    for seed, name in ((1, "a"), (2, "b")):
        # Far enough apart that SLERP takes the arc.
        make_mistral(folder / name, seed, base=base, change=0.3)
    return {method: _digest_of_merge(folder, method) for method in METHODS}


def _digest_of_merge(folder: Path, method: str) -> str:
    names = {"passthrough": ["a"], "slerp": ["base", "a"]}.get(method, ["a", "b"])
    listed = "".join(f"  - model: {folder / name}\n" for name in names)
    base = "" if method in ("linear", "passthrough") else f"base_model: {folder / 'base'}\n"
    parameters = PARAMETERS[method].strip("{}")
    recipe = folder / f"{method}.yaml"
    recipe.write_text(f"merge_method: {method}\n{base}models:\n{listed}parameters: {{{parameters}}}\n")
    merged = merge_recipe(recipe, folder / method, hub=Hub())
    sha256 = hashlib.sha256()
    for name, tensor in sorted(load_file(merged.directory / "model.safetensors").items()):
        sha256.update(name.encode() + tensor.view(torch.int16).numpy().tobytes())
    return sha256.hexdigest()


def test_the_same_version_gives_the_same_bytes(digests: dict[str, str]) -> None:
    if os.environ.get("MERGELINE_RECORD"):
        RECORDED.write_text(json.dumps({"numerics_version": NUMERICS_VERSION, "sha256": digests}, indent=1) + "\n")
    recorded = json.loads(RECORDED.read_text())
    assert recorded["numerics_version"] == NUMERICS_VERSION, "the version was raised: record the digests anew"
    assert digests == recorded["sha256"], "bytes have changed: raise NUMERICS_VERSION, then record the digests anew"
