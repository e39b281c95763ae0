"""A tensor's place in the model, read from its name and the config.

There is no list of architectures: any checkpoint whose tensor names number the layers can be planned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_LAYER = re.compile(r"^(?P<stack>(?:[A-Za-z_]\w*\.)*(?:layers|h|blocks|block|layer))\.(?P<index>\d+)\.(?P<rest>.+)$")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|embed_in|word_embeddings|tok_embeddings)\.weight$")
_BEFORE_LAYERS = re.compile(r"(?:^|\.)(?:embed\w*|wte|wpe|word_embeddings\w*|tok_embeddings|position_embeddings)\.")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output)\.(?:weight|bias)$")

_LAYER_COUNT_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


@dataclass(frozen=True)
class TensorPlace:
    """Where in the model a tensor belongs."""

    stack: str | None
    """Name of the list of layers, e.g. ``model.layers``; None outside the layers."""
    layer: int | None
    """Index of the layer, counted from 0; None outside the layers."""
    rest: str
    """The name below its layer, e.g. ``mlp.up_proj.weight``; the whole name outside the layers."""

    @property
    def is_before_layers(self) -> bool:
        return self.layer is None and _BEFORE_LAYERS.search(self.rest) is not None

    def name_in_layer(self, layer: int) -> str:
        """Name the tensor of the same kind in another layer."""
        return self.rest if self.stack is None else f"{self.stack}.{layer}.{self.rest}"


def place_of(name: str) -> TensorPlace:
    """Read a tensor's place from its name."""
    match = _LAYER.match(name)
    if match is None:
        return TensorPlace(None, None, name)
    return TensorPlace(match["stack"], int(match["index"]), match["rest"])


def has_vocabulary_rows(name: str) -> bool:
    """Whether the tensor's first axis counts the tokens of the vocabulary."""
    return _EMBEDDING.search(name) is not None or _HEAD.search(name) is not None


def is_head(name: str) -> bool:
    """Whether the tensor is (part of) the output projection."""
    return _HEAD.search(name) is not None


def input_embedding(names: Iterable[str]) -> str | None:
    """Return the name of the token embedding, if there is one."""
    return next((name for name in names if _EMBEDDING.search(name)), None)


def layer_count(config: Mapping[str, Any]) -> int | None:
    """Return the number of layers a config states, or None if it does not."""
    for key in _LAYER_COUNT_KEYS:
        if isinstance(config.get(key), int):
            return int(config[key])
    return None


def with_layers(config: Mapping[str, Any], donors: Iterable[tuple[Mapping[str, Any], int]]) -> dict[str, Any]:
    """Return the config of a model whose layers are taken from others.

    Args:
        config: The base model's config.
        donors: For each output layer, the config it comes from and its index there.
    """
    chosen = list(donors)
    result = dict(config)
    for key in _LAYER_COUNT_KEYS:
        if key in result:
            result[key] = len(chosen)
    if isinstance(config.get("layer_types"), list):
        # transformers refuses a config whose layer_types and layer count differ.
        result["layer_types"] = [donor["layer_types"][index] for donor, index in chosen]
    return result


def is_tied(config: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether the output projection is the token embedding.

    A config without ``tie_word_embeddings`` is tied if there is no head: transformers' default differs by architecture.
    """
    stated = config.get("tie_word_embeddings")
    return stated if isinstance(stated, bool) else not any(is_head(name) for name in names)


def ordered(names: Iterable[str]) -> list[str]:
    """Sort tensor names in the order of computation: embeddings, layers, final norm, head."""

    def key(name: str) -> tuple[int, str, int, str]:
        place = place_of(name)
        if place.layer is not None:
            return (1, place.stack or "", place.layer, place.rest)
        return (0 if place.is_before_layers else 3 if is_head(name) else 2, "", 0, name)

    return sorted(names, key=key)
