"""The merges whose mergekit results are kept in ``tests/golden``: recipes, and the seeds of their checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SHAPE: dict[str, Any] = {"vocabulary": 32, "layers": 5, "hidden": 16, "intermediate": 24}
"""Small, so that all results together stay near a megabyte; four heads of width four."""

RECIPE_OF_THE_README = {
    "t": [
        {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
        {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
        {"value": 0.5},
    ]
}


@dataclass(frozen=True)
class GoldenInput:
    """One tiny checkpoint, regenerated wherever it is needed."""

    seed: int
    base: str | None = None
    """Name of the input it is fine-tuned from by 2 %; None: unrelated to all others."""


INPUTS = {
    "base": GoldenInput(0),
    "first": GoldenInput(1),
    "sibling": GoldenInput(2, base="first"),
    "stranger": GoldenInput(3),
    "tuned_1": GoldenInput(4, base="base"),
    "tuned_2": GoldenInput(5, base="base"),
    "tuned_3": GoldenInput(6, base="base"),
}


@dataclass(frozen=True)
class GoldenCase:
    """One merge."""

    name: str
    recipe: dict[str, Any]
    """In mergekit's language, with the names of ``INPUTS`` for models."""
    stored: dict[str, str]
    """Input name -> dtype of the checkpoint it is merged from."""


def model(name: str, **parameters: object) -> dict[str, Any]:
    return {"model": name} | ({"parameters": parameters} if parameters else {})


def weighted(weights: dict[str, object], **parameters: object) -> list[dict[str, Any]]:
    return [model(name, weight=weight, **parameters) for name, weight in weights.items()]


def layers_of(names: list[str], start: int, stop: int) -> dict[str, Any]:
    return {"sources": [{"model": name, "layer_range": [start, stop]} for name in names]}


def recipes() -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
    """Yield name, recipe without dtype, and the dtypes to merge in."""
    both = ("bfloat16", "float32")
    for kin in ("sibling", "stranger"):
        recipe = {
            "slices": [layers_of(["first", kin], 0, 5)],
            "merge_method": "slerp",
            "base_model": "first",
            "parameters": RECIPE_OF_THE_README,
        }
        yield f"slerp_recipe_{kin}", recipe, both
    slerp = {"merge_method": "slerp", "base_model": "first"}
    pair = ["first", "stranger"]
    models = [model(name) for name in pair]
    yield "slerp_models", slerp | {"models": models, "parameters": RECIPE_OF_THE_README}, ("bfloat16",)
    slices = [layers_of(pair, 0, 3), layers_of(pair, 3, 5)]
    yield "slerp_restarting_gradient", slerp | {"slices": slices, "parameters": {"t": [0, 1]}}, ("bfloat16",)

    three: dict[str, object] = {"first": 0.6, "sibling": 0.4, "stranger": 0.3}
    linear = {"merge_method": "linear"}
    yield "linear", linear | {"models": weighted(three)}, both
    yield "linear_raw", linear | {"models": weighted(three), "parameters": {"normalize": False}}, both
    yield "linear_gradient", linear | {"models": weighted(three | {"stranger": [0, 1]})}, both

    stack = [layers_of(["first"], 0, 4), layers_of(["stranger"], 1, 5)]
    yield "passthrough_stack", {"merge_method": "passthrough", "slices": stack}, ("bfloat16",)
    scale = [{"filter": "o_proj", "value": 0}, {"filter": "down_proj", "value": 0.7}, {"value": 1}]
    yield "passthrough_scale", {"merge_method": "passthrough", "models": [model("first", scale=scale)]}, ("bfloat16",)

    yield from task_vector_recipes()
    turns: dict[str, object] = {"first": 0.6, "stranger": 0.4}
    yield "nuslerp", {"merge_method": "nuslerp", "models": weighted(turns)}, both
    rows = {"nuslerp_flatten": False, "nuslerp_row_wise": True}
    tuned: dict[str, object] = {"tuned_1": 0.6, "tuned_2": 0.4}
    nuslerp_rows = {"merge_method": "nuslerp", "base_model": "base", "models": weighted(tuned), "parameters": rows}
    yield "nuslerp_rows", nuslerp_rows, ("float32",)


def task_vector_recipes() -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
    """Yield merges of differences from a base model.

    Those that choose elements by size are kept in float32 only: bfloat16 differences are full of ties, and which of two
    equal elements goes is nobody's promise.
    """
    based = {"base_model": "base"}
    tuned: dict[str, object] = {"tuned_1": 0.6, "tuned_2": 0.4, "tuned_3": 0.3}
    arithmetic = {"merge_method": "task_arithmetic", "models": weighted(tuned), "parameters": {"lambda": 0.8}}
    yield "task_arithmetic", based | arithmetic, ("bfloat16", "float32")
    ties = {"merge_method": "ties", "models": weighted(tuned, density=0.5), "parameters": {"normalize": True}}
    yield "ties", based | ties, ("float32",)
    outliers = {"models": weighted(tuned, density=0.7, gamma=0.05)}
    yield "breadcrumbs", based | outliers | {"merge_method": "breadcrumbs"}, ("float32",)
    yield "breadcrumbs_ties", based | outliers | {"merge_method": "breadcrumbs_ties"}, ("float32",)
    stock = {"merge_method": "model_stock", "models": [model(name) for name in tuned]}
    yield "model_stock", based | stock, ("bfloat16", "float32")


def models_of(recipe: dict[str, Any]) -> list[str]:
    """Return the input names a recipe refers to, base model included, each once."""
    entries = [*recipe.get("models", []), *(source for part in recipe.get("slices", []) for source in part["sources"])]
    names = [entry["model"] for entry in entries]
    return list(dict.fromkeys([recipe["base_model"], *names] if "base_model" in recipe else names))


def golden_cases() -> Iterator[GoldenCase]:
    """Yield every case: each recipe in its dtypes, and the slerp recipe again where stored and merged dtypes differ."""
    for name, recipe, dtypes in recipes():
        for dtype in dtypes:
            stored = dict.fromkeys(models_of(recipe), dtype)
            yield GoldenCase(f"{name}.{dtype}", recipe | {"dtype": dtype}, stored)
    recipe = next(recipe for name, recipe, _ in recipes() if name == "slerp_recipe_stranger")
    stored = {"first": "bfloat16", "stranger": "bfloat16"}
    yield GoldenCase("slerp_in_float32", recipe | {"dtype": "float32", "out_dtype": "bfloat16"}, stored)
    # As the parents of the README's recipe are stored: one in bfloat16, the other in float16.
    yield GoldenCase("slerp_of_two_dtypes", recipe | {"dtype": "bfloat16"}, stored | {"stranger": "float16"})
