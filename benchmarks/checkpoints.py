"""Checkpoints of true model shapes, filled with random weights or left as holes in sparse files.

    python -m benchmarks.checkpoints DIRECTORY --shape 7B --sparse

A sparse checkpoint has every header and size of the real one and takes no space: reading it gives zeros.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

DTYPES = {"bfloat16": "BF16", "float16": "F16"}
"""Name in config.json -> name in a safetensors header; both take two bytes."""

ELEMENT_BYTES = 2
PERIOD_ELEMENTS = 4 * 2**20 + 3
"""Random weights repeat after so many; odd, so that tensors do not start alike."""


HALFWAY_RECIPE = """\
merge_method: slerp
base_model: {first}
models:
  - model: {first}
  - model: {second}
parameters:
  t: 0.5
dtype: bfloat16
"""
"""Of the checkpoints in the directories ``first`` and ``second``."""


@dataclass(frozen=True)
class ModelShape:
    """A Llama-like model, whose checkpoint depends on nothing else."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int = 32000
    model_type: str = "mistral"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor, in the order of the model."""
        key_value = self.hidden // self.heads * self.key_value_heads
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            block = {
                "input_layernorm": (self.hidden,),
                "mlp.down_proj": (self.hidden, self.intermediate),
                "mlp.gate_proj": (self.intermediate, self.hidden),
                "mlp.up_proj": (self.intermediate, self.hidden),
                "post_attention_layernorm": (self.hidden,),
                "self_attn.k_proj": (key_value, self.hidden),
                "self_attn.o_proj": (self.hidden, self.hidden),
                "self_attn.q_proj": (self.hidden, self.hidden),
                "self_attn.v_proj": (key_value, self.hidden),
            }
            shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
        return shapes | {"model.norm.weight": (self.hidden,), "lm_head.weight": (self.vocabulary, self.hidden)}

    @property
    def parameter_count(self) -> int:
        return sum(map(prod, self.tensors().values()))

    @property
    def nbytes(self) -> int:
        return self.parameter_count * ELEMENT_BYTES

    def config(self, dtype: str) -> dict[str, Any]:
        return {
            "architectures": [f"{self.model_type.capitalize()}ForCausalLM"],
            "model_type": self.model_type,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "num_hidden_layers": self.layers,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": False,
            "torch_dtype": dtype,
        }


SHAPES = {
    "tiny": ModelShape(5, 64, 96, 4, 2, vocabulary=128),
    "0.1B": ModelShape(12, 768, 2048, 12, 4),
    "0.3B": ModelShape(20, 1024, 2816, 16, 4),
    "1.1B": ModelShape(22, 2048, 5632, 32, 4, model_type="llama"),
    "3B": ModelShape(26, 3200, 8640, 32, 32, model_type="llama"),
    "7B": ModelShape(32, 4096, 14336, 32, 8),
    "70B": ModelShape(80, 8192, 28672, 64, 8, vocabulary=128256, model_type="llama"),
    "405B": ModelShape(126, 16384, 53248, 128, 8, vocabulary=128256, model_type="llama"),
}
"""``1.1B`` is TinyLlama-1.1B, ``3B`` OpenLLaMA-3B, ``7B`` Mistral-7B, ``70B`` and ``405B`` Llama 3.1; ``tiny`` shows
what starting up costs."""


class RandomWeights:
    """An endless stream of weights of one dtype that repeats after ``PERIOD_ELEMENTS``.

    Streams of one seed and different changes are parent and fine-tuned child.
    """

    def __init__(self, seed: int, *, change: float = 0.0, change_seed: int = 0, dtype: str = "bfloat16") -> None:
        """Draw the weights: normal, 0.02 wide, moved by ``change`` of that along a second draw."""
        # Sparse checkpoints are made where numpy need not be loaded.
        import numpy as np

        weights = np.random.default_rng(seed).standard_normal(PERIOD_ELEMENTS, dtype=np.float32)
        if change:
            noise = np.random.default_rng([seed, change_seed]).standard_normal(PERIOD_ELEMENTS, dtype=np.float32)
            weights += np.float32(change) * noise
        weights *= np.float32(0.02)
        if dtype == "float16":
            stored = weights.astype(np.float16).view(np.uint16)
        else:
            stored = ((weights.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
        self._period = memoryview(stored.tobytes())
        self._position = 0

    def write(self, file: BinaryIO, nbytes: int) -> None:
        """Append the next ``nbytes`` of weights to ``file``."""
        while nbytes:
            piece = self._period[self._position : self._position + nbytes]
            file.write(piece)
            nbytes -= len(piece)
            self._position = (self._position + len(piece)) % len(self._period)


def write_checkpoint(
    directory: Path,
    shape: ModelShape,
    *,
    weights: RandomWeights | None = None,
    dtype: str = "bfloat16",
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write config.json, the shards and, if there are several, their index.

    Args:
        directory: Made if need be.
        shape: Of the model.
        weights: What fills it; None leaves holes, so that the files take no space and read as zeros.
        dtype: ``bfloat16`` or ``float16``; for ``weights``, the one they were drawn in.
        max_shard_bytes: A shard is closed before the tensor that would exceed this.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(shape.config(dtype), indent=2) + "\n")
    shards = list(_shards(shape, max_shard_bytes))
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(shards, start=1):
        filename = "model.safetensors"
        if len(shards) > 1:
            filename = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys(tensors, filename)
        with (directory / filename).open("wb") as file:
            file.write(_header(tensors, DTYPES[dtype]))
            nbytes = sum(map(prod, tensors.values())) * ELEMENT_BYTES
            if weights is None:
                file.truncate(file.tell() + nbytes)
            else:
                weights.write(file, nbytes)
    if len(shards) > 1:
        index = {"metadata": {"total_size": shape.nbytes}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _shards(shape: ModelShape, max_shard_bytes: int) -> Iterator[dict[str, tuple[int, ...]]]:
    shard: dict[str, tuple[int, ...]] = {}
    filled = 0
    for name, dimensions in shape.tensors().items():
        nbytes = prod(dimensions) * ELEMENT_BYTES
        if shard and filled + nbytes > max_shard_bytes:
            yield shard
            shard, filled = {}, 0
        shard[name] = dimensions
        filled += nbytes
    yield shard


def _header(tensors: dict[str, tuple[int, ...]], dtype: str) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dimensions in tensors.items():
        end = offset + prod(dimensions) * ELEMENT_BYTES
        entries[name] = {"dtype": dtype, "shape": dimensions, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--sparse", action="store_true", help="leave holes instead of weights")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--change", type=float, default=0.0, help="relative size of the fine-tuning, e.g. 0.02")
    parser.add_argument("--change-seed", type=int, default=0, help="of the fine-tuning")
    arguments = parser.parse_args()
    weights = None
    if not arguments.sparse:
        weights = RandomWeights(
            arguments.seed, change=arguments.change, change_seed=arguments.change_seed, dtype=arguments.dtype
        )
    write_checkpoint(arguments.directory, SHAPES[arguments.shape], weights=weights, dtype=arguments.dtype)


if __name__ == "__main__":
    main()
