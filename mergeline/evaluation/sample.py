"""Sample inference: let models continue a few prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.evaluate_models import ModelToEvaluate, check_device_and_dtype, check_labels
from mergeline.evaluation.model_directory import check_model_directory
from mergeline.evaluation.results import Dtype, Sample
from mergeline.evaluation.stored_evaluation import package_versions
from mergeline.evaluation.worker.process import run_worker


def sample_models(
    models: Sequence[ModelToEvaluate],
    prompts: Sequence[str],
    max_new_tokens: int = 100,
    seed: int = 0,
    *,
    dtype: Dtype = "auto",
    device: str = "cpu",
    time_limit_seconds: float = 3600.0,
    on_line: Callable[[str], None] | None = None,
) -> tuple[Sample, ...]:
    """Let every model continue every prompt with greedy decoding, in a separate process.

    Args:
        models: Local model directories with distinct labels.
        prompts: Passed to the models unchanged, without a chat template.
        max_new_tokens: Longest completion, in tokens; it ends earlier at the model's end-of-text token.
        seed: Recorded; greedy decoding draws no random numbers.
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        device: ``cpu``, ``cuda`` or ``cuda:n``.
        time_limit_seconds: For all models together.
        on_line: Called with each line of progress.

    Returns:
        One sample per model and prompt: all prompts of the first model, then of the next.

    Raises:
        EvaluationInputError: a model, prompt or setting cannot be used.
        EvaluationError: generation failed or exceeded the time limit.
    """
    package_versions()
    check_labels(models)
    check_device_and_dtype(device, dtype)
    _check_prompts(prompts, max_new_tokens)
    for model in models:
        check_model_directory(model.directory)
    completions: list[str] = run_worker(
        {
            "job": "sample",
            "models": [{"label": model.label, "directory": str(model.directory)} for model in models],
            "prompts": list(prompts),
            "max_new_tokens": max_new_tokens,
            "seed": seed,
            "dtype": dtype,
            "device": device,
        },
        time_limit_seconds=time_limit_seconds,
        on_line=on_line,
    )
    pairs = [(model.label, prompt) for model in models for prompt in prompts]
    return tuple(
        Sample(label, prompt, completion, max_new_tokens, seed, dtype)
        for (label, prompt), completion in zip(pairs, completions, strict=True)
    )


def _check_prompts(prompts: Sequence[str], max_new_tokens: int) -> None:
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise EvaluationInputError("Sample inference needs at least one prompt, and none of them empty.")
    if max_new_tokens < 1:
        raise EvaluationInputError(f"max_new_tokens is {max_new_tokens}; expected 1 or more.")
