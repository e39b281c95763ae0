"""Who is measured, on which merge, with which command."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARENTS = ("base", "other", "third")
"""Directories of the checkpoints, in the order they are needed."""

OUTPUT = "merged"
FLOOR = "floor"
MERGEKIT = "mergekit"


@dataclass(frozen=True)
class Contender:
    """One way of doing the merge, run in a directory that holds the parents and ``recipe.yaml``."""

    name: str
    command: tuple[str, ...]
    """Writes ``OUTPUT``, a directory with one model's shards."""


def parent_count(method: str) -> int:
    """Return how many of ``PARENTS`` the merge of ``method`` reads."""
    return {"passthrough": 1, "slerp": 2, "linear": 2, "nuslerp": 2}.get(method, 3)


def recipe(method: str, layers: int) -> dict[str, Any]:
    """Return a merge by ``method`` of whole models, in bfloat16."""
    names = [f"./{name}" for name in PARENTS[: parent_count(method)]]
    common: dict[str, Any] = {"merge_method": method, "dtype": "bfloat16"}
    match method:
        case "slerp":
            sources = [{"model": name, "layer_range": [0, layers]} for name in names]
            curves = [
                {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
                {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
                {"value": 0.5},
            ]
            return common | {"slices": [{"sources": sources}], "base_model": names[0], "parameters": {"t": curves}}
        case "passthrough":
            return common | {"models": [{"model": names[0]}]}
        case "linear" | "nuslerp":
            return common | {"models": _weighted(names)}
        case "model_stock":
            return common | {"base_model": names[0], "models": [{"model": name} for name in names[1:]]}
        case "task_arithmetic":
            return common | {"base_model": names[0], "models": _weighted(names[1:])}
        case _:
            return common | {"base_model": names[0], "models": _weighted(names[1:], density=0.5)}


def _weighted(names: list[str], **settings: float) -> list[dict[str, Any]]:
    return [
        {"model": name, "parameters": {"weight": weight, **settings}}
        for name, weight in zip(names, (0.6, 0.4), strict=True)
    ]


def contenders(method: str, *, mergekit: Path, workers: list[int]) -> list[Contender]:
    """Return all contenders; ``mergekit`` is the Python of its environment."""
    mergekit_yaml = mergekit.with_name("mergekit-yaml")
    mergeline = Path(sys.executable).with_name("mergeline")
    ours = [
        Contender(
            f"mergeline, {count} worker{'s' if count > 1 else ''}",
            (str(mergeline), "merge", "recipe.yaml", OUTPUT, "--workers", str(count)),
        )
        for count in workers
    ]
    theirs = Contender(MERGEKIT, (str(mergekit_yaml), "recipe.yaml", OUTPUT, "--no-copy-tokenizer", "--quiet"))
    return [theirs, *ours, _floor(method)]


def _floor(method: str) -> Contender:
    """Read every parent once and write one model: what no merge can avoid."""
    parents = " ".join(f"{shlex.quote(name)}/*.safetensors" for name in PARENTS[: parent_count(method)])
    # `cat`, not `cp`: of a sparse file, `cp` copies nothing.
    script = f"cat {parents} > /dev/null && mkdir {OUTPUT} && cat base/*.safetensors > {OUTPUT}/copy.safetensors"
    return Contender(FLOOR, ("sh", "-c", script))
