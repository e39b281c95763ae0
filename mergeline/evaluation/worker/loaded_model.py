"""Load a model and its tokenizer from a local directory, or fail if any weight is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergeline.errors import EvaluationInputError


def check_device(device: str) -> None:
    """Raise :class:`EvaluationInputError` if this machine has no such device.

    lm-eval would silently use another device.
    """
    import torch

    requested = torch.device(device)
    if requested.type != "cuda":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (requested.index or 0) >= count:
        raise EvaluationInputError(f"Device {device!r}: this machine has {count} CUDA devices; use `cpu` or another.")


def load_model(label: str, directory: Path, dtype: str, device: str) -> tuple[Any, Any]:
    """Load a causal language model for inference and its tokenizer, from local files only and without remote code.

    Args:
        label: What the reader calls the model.
        directory: A model directory with safetensors weights.
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        device: ``cpu``, ``cuda`` or ``cuda:n``.

    Returns:
        The model, in ``eval`` mode on ``device``, and the tokenizer.

    Raises:
        EvaluationInputError: transformers cannot load it, or would initialise some weights at random.
    """
    import transformers

    # Its annotation lacks the pair that output_loading_info returns.
    auto_model: Any = transformers.AutoModelForCausalLM
    try:
        model, loading = auto_model.from_pretrained(
            directory,
            dtype=dtype,
            device_map=None if device == "cpu" else device,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise EvaluationInputError(f"{label}: transformers cannot load the model: {reason}") from error
    # transformers initialises missing weights at random and only warns.
    for problem in ("missing_keys", "mismatched_keys"):
        if loading[problem]:
            first = sorted(str(key) for key in loading[problem])[0]
            raise EvaluationInputError(
                f"{label}: {len(loading[problem])} weights do not fit the model of config.json, the first: {first} "
                f"({problem.replace('_', ' ')}); its answers would be made up."
            )
    return model.eval(), tokenizer
