"""Merges of two small models by SLERP, and the same formula in float64."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from mergeline.merge.merging import merge_recipe
from mergeline.merge.shard import ShardResult
from mergeline.sources.hub import Hub

SLERP = "merge_method: slerp\nbase_model: {a}\nmodels:\n  - model: {a}\n  - model: {b}\nparameters: {{t: {t}}}\n"


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in directory.glob("*.safetensors") for name, tensor in load_file(path).items()}


def merge(recipe: Path, output: Path, **options: object) -> list[ShardResult]:
    return list(merge_recipe(recipe, output, hub=Hub(), **options).results)  # type: ignore[arg-type]


def slerp64(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """SLERP in float64 by torch's own functions."""
    a, b = a.double(), b.double()
    omega = torch.arccos(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))
    return (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / torch.sin(omega)
