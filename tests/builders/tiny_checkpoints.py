"""Mistral-shaped checkpoints of a few thousand parameters, the same bits on every machine for the same seed.

Used by the engine's tests and by ``benchmarks/mergekit_goldens.py``, which stores only what mergekit made of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

HEADS = 4
KEY_VALUE_HEADS = 2
AMPLITUDE = 0.35
"""Weights are uniform on [-0.175, 0.175): a standard deviation of 0.1, as in a trained model's matrices."""


def mistral_shapes(*, vocabulary: int, layers: int, hidden: int, intermediate: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a Mistral checkpoint, in the order of the model."""
    key_value = hidden // HEADS * KEY_VALUE_HEADS
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.self_attn.q_proj.weight": (hidden, hidden),
            f"{prefix}.self_attn.k_proj.weight": (key_value, hidden),
            f"{prefix}.self_attn.v_proj.weight": (key_value, hidden),
            f"{prefix}.self_attn.o_proj.weight": (hidden, hidden),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
            f"{prefix}.mlp.gate_proj.weight": (intermediate, hidden),
            f"{prefix}.mlp.up_proj.weight": (intermediate, hidden),
            f"{prefix}.mlp.down_proj.weight": (hidden, intermediate),
        }
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def mistral_tensors(
    seed: int,
    *,
    vocabulary: int = 64,
    layers: int = 5,
    hidden: int = 32,
    intermediate: int = 48,
    dtype: torch.dtype = torch.bfloat16,
    base: Mapping[str, torch.Tensor] | None = None,
    change: float = 0.02,
) -> dict[str, torch.Tensor]:
    """Return the state dict of a checkpoint whose bits depend on the arguments alone.

    Args:
        seed: Of the weights.
        vocabulary: Rows of the embedding and of the head.
        layers: Transformer blocks.
        hidden: Width, a multiple of ``HEADS``.
        intermediate: Width of the MLP.
        dtype: Stored floating-point type.
        base: State dict this one is fine-tuned from: each tensor is ``base + change * noise`` where the shapes are
            equal, and new where they are not.
        change: Size of the fine-tuning relative to the weights; 0.02 leaves the two checkpoints nearly collinear.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    shapes = mistral_shapes(vocabulary=vocabulary, layers=layers, hidden=hidden, intermediate=intermediate)
    for name, shape in shapes.items():
        # Uniform, not normal: torch's normal numbers go through log and cos and differ between instruction sets.
        weights = (torch.rand(shape, generator=generator) - 0.5) * AMPLITUDE
        if base is not None and name in base and base[name].shape == weights.shape:
            weights = base[name].float() + weights * change
        tensors[name] = weights.to(dtype)
    return tensors


def make_mistral(
    path: Path,
    seed: int,
    *,
    vocabulary: int = 64,
    layers: int = 5,
    hidden: int = 32,
    intermediate: int = 48,
    dtype: torch.dtype = torch.bfloat16,
    base: Mapping[str, torch.Tensor] | None = None,
    change: float = 0.02,
) -> dict[str, torch.Tensor]:
    """Write ``model.safetensors`` and ``config.json`` into ``path``, made if need be; return the state dict.

    All other arguments are those of :func:`mistral_tensors`.
    """
    tensors = mistral_tensors(
        seed,
        vocabulary=vocabulary,
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        dtype=dtype,
        base=base,
        change=change,
    )
    path.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return tensors


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256, in hex, over names, dtypes, shapes and bytes, whatever order and file they are in."""
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()
