"""Greedy generation; runs in the worker process."""

from __future__ import annotations

from typing import Any


def complete(model: Any, tokenizer: Any, prompt: str, max_new_tokens: int, seed: int) -> str:
    """Return the greedy completion of ``prompt``, which is passed on without a chat template.

    ``seed`` matters only for models whose forward pass draws random numbers.
    """
    import torch

    torch.manual_seed(seed)
    encoded = tokenizer(prompt, return_tensors="pt").to(model.device)
    tokens = encoded["input_ids"]
    with torch.inference_mode():
        generated = model.generate(
            tokens,
            attention_mask=encoded["attention_mask"],
            max_new_tokens=max_new_tokens,
            # transformers warns about a model's own sampling settings, which greedy decoding does not use.
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        )
    # Decoded together, since many tokenizers drop a leading blank from a separate continuation.
    whole = tokenizer.decode(generated[0], skip_special_tokens=True)
    return whole[len(tokenizer.decode(tokens[0], skip_special_tokens=True)) :]
