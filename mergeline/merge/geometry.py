"""Norms, angles and distances between the merged models and the result, measured during the merge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import acos, degrees, sqrt
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from mergeline.merge.shard import ShardResult
from mergeline.merge.shard_file import TensorOutcome
from mergeline.methods.registry import METHODS
from mergeline.plan.merge_plan import MergePlan, TensorPlan
from mergeline.sources.architecture import place_of
from mergeline.support.text import table

GEOMETRY_NAME = "geometry.jsonl"
"""One line of JSON per tensor, beside the model."""


@dataclass(frozen=True)
class TensorGeometry:
    """One output tensor among its inputs, each seen as one flat vector."""

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="constants")
    """A norm of float64 weights may be infinite, which JSON has no number for; the default, null, cannot be read."""

    name: str
    layer: int | None
    """None outside the layers."""
    kind: str
    """The name below its layer without ``.weight``, e.g. ``mlp.up_proj``."""
    branch: str
    """Which case of the method's formula was taken."""
    coefficients: tuple[float, ...] | None
    """One per input, dimensionless; None where the result is no weighted sum of the inputs."""
    cosine: float | None
    """Mean over pairs of the models merged: the models themselves, or their differences from the base model where the
    method merges those; in [-1, 1]. None for a single model."""
    angle: float | None
    """The angle of that cosine, in degrees."""
    norms: tuple[float, ...]
    """Euclidean norm of every input."""
    norm_ratio: float | None
    """Largest norm of an input over the smallest."""
    moved: tuple[float, ...]
    """Distance of the result from every input, as a fraction of that input's norm."""


_GEOMETRY = TypeAdapter(TensorGeometry)


def tensor_geometry(tensor: TensorPlan, outcome: TensorOutcome) -> TensorGeometry:
    """Work out the geometry of one tensor from what was measured while it was merged."""
    place = place_of(tensor.name)
    cosine = _mean_cosine(tensor, outcome)
    smallest = min(outcome.norms, default=0.0)
    return TensorGeometry(
        name=tensor.name,
        layer=place.layer,
        kind=place.rest.removesuffix(".weight"),
        branch=outcome.branch,
        coefficients=outcome.coefficients,
        cosine=cosine,
        angle=None if cosine is None else degrees(acos(cosine)),
        norms=outcome.norms,
        norm_ratio=max(outcome.norms) / smallest if smallest > 0 else None,
        moved=tuple(
            moved / norm if norm > 0 else 0.0 for moved, norm in zip(outcome.moved, outcome.norms, strict=True)
        ),
    )


def merge_geometry(plan: MergePlan, results: Iterable[ShardResult]) -> tuple[TensorGeometry, ...]:
    """Return the geometry of every tensor, in the order of the plan."""
    outcomes = {outcome.name: outcome for result in results for outcome in result.outcomes}
    return tuple(tensor_geometry(tensor, outcomes[tensor.name]) for shard in plan.shards for tensor in shard.tensors)


def geometry_lines(geometry: Iterable[TensorGeometry]) -> str:
    """Render as JSON lines."""
    return "".join(_GEOMETRY.dump_json(tensor).decode() + "\n" for tensor in geometry)


def read_geometry(directory: Path) -> tuple[TensorGeometry, ...]:
    """Read back what a finished merge says of its geometry; nothing where the file is missing."""
    path = directory / GEOMETRY_NAME
    lines = path.read_text().splitlines() if path.exists() else []
    return tuple(_GEOMETRY.validate_json(line) for line in lines)


def summarize(plan: MergePlan, geometry: Sequence[TensorGeometry]) -> list[str]:
    """Say in up to three sentences what the merge did; nothing for a single model."""
    measured = [tensor for tensor in geometry if tensor.cosine is not None]
    if not measured:
        return []
    least = min(measured, key=lambda tensor: tensor.cosine or 0.0)
    mean = sum(tensor.cosine or 0.0 for tensor in measured) / len(measured)
    what = "the models' differences from the base model" if _has_origin(plan) else "the models"
    sentences = [f"Between {what} the cosine is {mean:.5f} on average, least {least.cosine:.5f} ({least.name})."]
    branches = METHODS[plan.merge_method].describe_branches([tensor.branch for tensor in measured])
    sentences += [branches] if branches else []
    moved = ", ".join(f"{distance:.2%} from {label}" for label, distance in distances(plan, geometry))
    sentences.append(f"The result lies {moved} (root mean square over the tensors, of their norm).")
    return sentences


def angle_table(geometry: Sequence[TensorGeometry]) -> str:
    """Draw the angles between the models in degrees, a row per layer and a column per kind of tensor, as Markdown."""
    layered = [tensor for tensor in geometry if tensor.layer is not None and tensor.angle is not None]
    kinds = list(dict.fromkeys(tensor.kind for tensor in layered))
    cells = {(tensor.layer, tensor.kind): f"{tensor.angle:.2f}" for tensor in layered}
    layers = sorted({tensor.layer for tensor in layered if tensor.layer is not None})
    rows = [(str(layer), *(cells.get((layer, kind), "-") for kind in kinds)) for layer in layers]
    outside = [
        (tensor.name, f"{tensor.angle:.2f}") for tensor in geometry if tensor.layer is None and tensor.angle is not None
    ]
    lines = table(("layer", *kinds), rows) if rows else []
    return "\n".join([*lines, "", *(table(("outside the layers", "angle"), outside) if outside else [])]).strip()


def _mean_cosine(tensor: TensorPlan, outcome: TensorOutcome) -> float | None:
    norms, distances = outcome.norms, outcome.distances
    merged = range(1 if tensor.has_origin else 0, len(norms))
    lengths = distances[0] if tensor.has_origin and distances else norms
    cosines = [
        max(-1.0, min(1.0, (lengths[i] ** 2 + lengths[j] ** 2 - distances[i][j] ** 2) / (2 * lengths[i] * lengths[j])))
        for i, j in combinations(merged, 2)
        if lengths[i] > 0 and lengths[j] > 0
    ]
    return sum(cosines) / len(cosines) if cosines else None


def _has_origin(plan: MergePlan) -> bool:
    return any(tensor.has_origin for shard in plan.shards for tensor in shard.tensors)


def distances(plan: MergePlan, geometry: Sequence[TensorGeometry]) -> list[tuple[str, float]]:
    """Return how far the result is from every source: root mean square over the tensors, as a fraction of their norm.

    Returns:
        (label, distance) in the order in which the tensors name the sources.
    """
    squares: dict[str, list[float]] = {}
    tensors = [tensor for shard in plan.shards for tensor in shard.tensors]
    for tensor, seen in zip(tensors, geometry, strict=True):
        for item, moved in zip(tensor.inputs, seen.moved, strict=False):
            squares.setdefault(plan.sources[item.source].label, []).append(moved**2)
    return [(label, sqrt(sum(terms) / len(terms))) for label, terms in squares.items()]
