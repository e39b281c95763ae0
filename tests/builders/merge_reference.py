"""Merges computed plainly in float64, from the formulas and from the documented rules of mergekit's recipe language.

Independent of the engine: whole state dicts in memory, one tensor after another, nothing shared with what it checks.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LAYER = re.compile(r"^model\.layers\.(\d+)\.")
COLLINEAR_COSINE = 0.9995


@dataclass(frozen=True)
class Scene:
    """One output tensor's inputs and the way to look up its settings."""

    tensors: dict[str, Tensor]
    """Model -> float64 tensor, the base model included."""
    base: str | None
    number: Callable[..., Any]
    """``number(parameter, model=None, default=None)``: the setting for this tensor."""

    def differences(self) -> dict[str, Tensor]:
        """Each model's difference from the base model."""
        assert self.base is not None
        origin = self.tensors[self.base]
        return {model: tensor - origin for model, tensor in self.tensors.items() if model != self.base}


def slerp(scene: Scene) -> Tensor:
    (other,) = (tensor for model, tensor in scene.tensors.items() if model != scene.base)
    return arc(scene.tensors[scene.base or ""], other, scene.number("t"), collinear_cosine=COLLINEAR_COSINE)


def arc(a: Tensor, b: Tensor, t: float, *, collinear_cosine: float = 1 - 1e-16) -> Tensor:
    """The point at ``t`` of the great circle from ``a`` to ``b``, each one flat vector."""
    cosine = ((a / a.norm()) * (b / b.norm())).sum().clamp(-1, 1)
    if cosine.abs() > collinear_cosine:
        return (1 - t) * a + t * b
    omega = cosine.arccos()
    return (((1 - t) * omega).sin() * a + (t * omega).sin() * b) / omega.sin()


def linear(scene: Scene) -> Tensor:
    weights = {model: scene.number("weight", model) for model in scene.tensors}
    total = sum(weights.values()) if scene.number("normalize", default=True) else 1.0
    return sum((weights[model] * tensor for model, tensor in scene.tensors.items()), torch.tensor(0.0)) / total


def passthrough(scene: Scene) -> Tensor:
    ((model, tensor),) = scene.tensors.items()
    return tensor * scene.number("scale", model, default=1)


def nuslerp(scene: Scene) -> Tensor:
    vectors = scene.differences() if scene.base else scene.tensors
    (first, a), (second, b) = vectors.items()
    weights = scene.number("weight", first), scene.number("weight", second)
    t = weights[1] / sum(weights)
    origin: Tensor | float = scene.tensors[scene.base] if scene.base else 0.0
    if scene.number("nuslerp_flatten", default=True):
        return origin + arc(a, b, t)
    axis = 0 if scene.number("nuslerp_row_wise", default=False) else -1
    a, b = a.movedim(axis, -1), b.movedim(axis, -1)
    pairs = zip(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), strict=True)
    turned = torch.stack([arc(row, other, t) for row, other in pairs])
    return origin + turned.reshape(a.shape).movedim(-1, axis)


def model_stock(scene: Scene) -> Tensor:
    differences = list(scene.differences().values())
    cosines = [(a * b).sum() / (a.norm() * b.norm()) for a, b in itertools.combinations(differences, 2)]
    cosine, count = torch.stack(cosines).mean(), len(differences)
    t = count * cosine / (1 + (count - 1) * cosine)
    return scene.tensors[scene.base or ""] + t * sum(differences) / count


def keep_by_size(difference: Tensor, *, smallest: int, largest: int) -> Tensor:
    """Zero so many of the elements smallest and largest in magnitude."""
    order = difference.abs().flatten().argsort()
    kept = torch.zeros_like(order, dtype=torch.bool)
    kept[order[smallest : len(order) - largest]] = True
    return difference * kept.reshape(difference.shape)


def task_vectors(*, trim: str | None, consensus: bool, normalize: bool) -> Callable[[Scene], Tensor]:
    """Return the merge ``base + lambda * sum of weighted differences``, with its trimming and its vote on signs."""

    def trimmed(scene: Scene, model: str, difference: Tensor) -> Tensor:
        count, density = difference.numel(), scene.number("density", model, default=1.0)
        if trim is None or density >= 1:
            return difference
        if trim == "smallest":
            return keep_by_size(difference, smallest=count - max(1, int(density * count)), largest=0)
        kept, largest = int(density * count), int(scene.number("gamma", model, default=0.01) * count)
        smallest = max(0, count - kept - largest)
        return keep_by_size(difference, smallest=smallest, largest=count - smallest - kept)

    def merge(scene: Scene) -> Tensor:
        weights = torch.tensor([scene.number("weight", model) for model in scene.differences()], dtype=torch.float64)
        moves = torch.stack([trimmed(scene, *item) for item in scene.differences().items()])
        weights = weights.reshape(-1, *[1] * (moves.ndim - 1)).expand_as(moves)
        moves = moves * weights
        if consensus:
            majority = torch.where(moves.sum(0) >= 0, 1.0, -1.0)
            agrees = moves.sign() == majority
            moves, weights = moves * agrees, weights * agrees
        move, total = moves.sum(0), weights.sum(0)
        if scene.number("normalize", default=normalize):
            move = move / torch.where(total == 0, 1.0, total)
        return scene.tensors[scene.base or ""] + scene.number("lambda", default=1.0) * move

    return merge


REFERENCES: dict[str, Callable[[Scene], Tensor]] = {
    "slerp": slerp,
    "linear": linear,
    "passthrough": passthrough,
    "nuslerp": nuslerp,
    "model_stock": model_stock,
    "task_arithmetic": task_vectors(trim=None, consensus=False, normalize=False),
    "ties": task_vectors(trim="smallest", consensus=True, normalize=True),
    "breadcrumbs": task_vectors(trim="both", consensus=False, normalize=False),
    "breadcrumbs_ties": task_vectors(trim="both", consensus=True, normalize=False),
}


def merge_in_float64(recipe: Mapping[str, Any], checkpoints: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Merge whole state dicts as ``recipe`` says; ``checkpoints`` are keyed as the recipe names its models."""
    base: str | None = recipe.get("base_model")
    slices = recipe.get("slices") or [{"sources": recipe["models"]}]
    merged: dict[str, Tensor] = {}
    offset = 0
    for position, part in enumerate(slices):
        ranges = {source["model"]: layer_range(source, checkpoints[source["model"]]) for source in part["sources"]}
        if base is not None:
            ranges.setdefault(base, next(iter(ranges.values())))
        first = next(iter(ranges))
        depth = len(ranges[first])
        for name in checkpoints[first]:
            layer = layer_of(name)
            if layer is None:
                # The embedding comes from the first slice, final norm and head from the last.
                wanted = position == (0 if "embed_tokens" in name else len(slices) - 1)
            else:
                wanted = layer in ranges[first]
            if not wanted:
                continue
            local = layer - ranges[first].start if layer is not None else 0
            # Beside the layers, gradients give their first value; a slice of one layer gets the last.
            fraction = 0.0 if layer is None else local / (depth - 1) if depth > 1 else 1.0
            inputs = {model: renamed(name, ranges[model].start + local) for model in ranges}
            output = renamed(name, offset + local)
            tensors = {model: checkpoints[model][source].double() for model, source in inputs.items()}
            scene = Scene(tensors, base, settings(recipe, part, output, inputs, fraction))
            merged[output] = REFERENCES[recipe["merge_method"]](scene)
        offset += depth
    return merged


def layer_of(name: str) -> int | None:
    match = LAYER.match(name)
    return int(match[1]) if match else None


def renamed(name: str, layer: int) -> str:
    return LAYER.sub(f"model.layers.{layer}.", name)


def layer_range(source: Mapping[str, Any], checkpoint: Mapping[str, Tensor]) -> range:
    every = [0, 1 + max(layer for name in checkpoint if (layer := layer_of(name)) is not None)]
    return range(*source.get("layer_range", every))


def settings(
    recipe: Mapping[str, Any], part: Mapping[str, Any], output: str, inputs: Mapping[str, str], fraction: float
) -> Callable[..., Any]:
    """Return the look-up of one tensor's settings: the source's own, then the slice's, then the recipe's."""

    def number(parameter: str, model: str | None = None, default: Any = None) -> Any:
        own = [source.get("parameters", {}) for source in part["sources"] if source["model"] == model]
        name = output if model is None else inputs[model]
        for scope in [*own, part.get("parameters", {}), recipe.get("parameters", {})]:
            if parameter in scope and (value := value_for(scope[parameter], name, fraction)) is not None:
                return value
        assert default is not None, f"{parameter} is not set for {output}"
        return default

    return number


def value_for(setting: Any, name: str, fraction: float) -> Any:
    """Pick by filter (the first whose text is in the name), then interpolate along the gradient."""
    if isinstance(setting, list) and isinstance(setting[0], dict):
        everything = (None, "*")
        matching = (entry["value"] for entry in setting if (part := entry.get("filter")) in everything or part in name)
        return value_for(next(matching, None), name, fraction)
    if not isinstance(setting, list):
        return setting
    place = fraction * (len(setting) - 1)
    lower = int(place)
    upper = min(lower + 1, len(setting) - 1)
    return setting[lower] + (place - lower) * (setting[upper] - setting[lower])
