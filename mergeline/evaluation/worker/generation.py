"""Greedy generation from one loaded model; runs in the worker process."""

from __future__ import annotations

from typing import Any


def complete(model: Any, tokenizer: Any, prompt: str, max_new_tokens: int, seed: int) -> str:
    """Return what ``model`` writes after ``prompt``, choosing the likeliest token each time.

    The prompt is given as it is, without a chat template. ``seed`` matters only to models whose forward pass draws
    random numbers.
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
            # Sampling settings that a model brings along have no part in greedy decoding, and transformers says so.
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        )
    # Decoded together, since many tokenizers drop a leading blank from a lone continuation.
    whole = tokenizer.decode(generated[0], skip_special_tokens=True)
    return whole[len(tokenizer.decode(tokens[0], skip_special_tokens=True)) :]
