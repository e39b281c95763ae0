"""config.json of the output: the base model's, with the dtype, layers and vocabulary of what is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mergeline.recipe.recipe import Recipe
from mergeline.sources.architecture import has_vocabulary_rows, is_head, with_layers
from mergeline.sources.checkpoint import Checkpoint

if TYPE_CHECKING:
    from mergeline.plan.inputs import MergeDraft
    from mergeline.plan.problems import Problems

_MUST_AGREE = ("model_type", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act")
"""Entries that change what the same weights compute."""
_SHOULD_AGREE = (
    "rope_theta", "rope_scaling", "rope_parameters", "sliding_window", "rms_norm_eps", "max_position_embeddings",
    "eos_token_id", "bos_token_id",
)  # fmt: skip
"""Entries that may differ between fine-tunes; the output has the base model's."""
_NOT_CARRIED = ("_name_or_path", "auto_map")
"""A local path, and Python code of the repository to run on loading."""


def output_config(
    recipe: Recipe, checkpoints: Sequence[Checkpoint], draft: MergeDraft, problems: Problems
) -> dict[str, Any]:
    """Return the output's config, adding to ``problems`` where the sources cannot share one."""
    by_label = {checkpoint.label: checkpoint for checkpoint in checkpoints}
    base = by_label[draft.donor]
    for other in checkpoints:
        _compare(base, other, problems)
    config = with_layers(base.config, ((by_label[name].config, layer) for name, layer in draft.layer_donors))
    config = {key: value for key, value in config.items() if key not in _NOT_CARRIED}
    if recipe.output_dtype is not None:
        config["dtype" if "dtype" in config else "torch_dtype"] = recipe.output_dtype
    rows = {t.name: t.inputs[0].spec.shape[0] for t in draft.tensors if has_vocabulary_rows(t.name)}
    if len(set(rows.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in rows.items())
        problems.add(f"vocabulary: the output's tensors would have unequal rows: {shown}; set `base_model`.", "shape")
    elif rows:
        own = {base.tensors[name].shape[0] for name in rows if name in base.tensors}
        if own and own != set(rows.values()):
            problems.add(
                f"vocabulary: the output's embedding has {max(rows.values())} rows, but {base.label}, whose tokenizer "
                f"it gets, has {max(own)}; name the model whose layers come first as `base_model`.",
                "shape",
            )
        if "vocab_size" in config:
            config["vocab_size"] = max(rows.values())
    if any(is_head(tensor.name) for tensor in draft.tensors) and config.get("tie_word_embeddings"):
        config["tie_word_embeddings"] = False
    return config


def _compare(base: Checkpoint, other: Checkpoint, problems: Problems) -> None:
    """Add a problem for entries that prevent a merge, a note for those where the output follows the base model."""
    if "quantization_config" in other.config:
        problems.add(f"{other.label}: its weights are quantized; merge the original checkpoint instead.")
    for key in _MUST_AGREE:
        ours, theirs = base.config.get(key), other.config.get(key)
        if ours is not None and theirs is not None and ours != theirs:
            problems.add(f"config `{key}`: {base.label} has {ours!r}, {other.label} has {theirs!r}; they must agree.")
    for key in _SHOULD_AGREE:
        if base.config.get(key) != other.config.get(key):
            problems.note(
                f"config `{key}`: {base.label} has {base.config.get(key)!r}, {other.label} has "
                f"{other.config.get(key)!r}; the output has {base.label}'s."
            )
