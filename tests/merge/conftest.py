"""Two small models and the recipe that merges them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.builders.slerp_merges import SLERP
from tests.builders.tiny_checkpoints import make_mistral


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A SLERP of two unrelated float32 models, so that the arc is really taken."""
    for seed, name in enumerate("ab"):
        make_mistral(tmp_path / name, seed, dtype=torch.float32)
    path = tmp_path / "recipe.yaml"
    path.write_text(SLERP.format(a=tmp_path / "a", b=tmp_path / "b", t=0.3))
    return path
