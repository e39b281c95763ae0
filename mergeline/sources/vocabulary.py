"""Vocabularies of different sizes: whose rows the output has, and which tokens differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from mergeline.sources.checkpoint import Checkpoint

_SHOWN = 6


def token_texts(checkpoint: Checkpoint) -> dict[int, str] | None:
    """Return row -> text of its token according to tokenizer.json; None without a readable one."""
    if "tokenizer.json" not in checkpoint.auxiliary_files:
        return None
    try:
        tokenizer: Any = json.loads(checkpoint.read_small_file("tokenizer.json"))
        vocabulary: Any = tokenizer["model"]["vocab"]
        added = cast("list[dict[str, Any]]", tokenizer.get("added_tokens", []))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    texts: dict[int, str] = {}
    if isinstance(vocabulary, Mapping):
        texts = {int(index): str(text) for text, index in cast("Mapping[str, Any]", vocabulary).items()}
    elif isinstance(vocabulary, list):
        # Unigram tokenizers list [text, score] pairs in row order.
        texts = {index: str(pair[0]) for index, pair in enumerate(cast("list[list[Any]]", vocabulary))}
    return texts | {int(token["id"]): str(token["content"]) for token in added}


def describe_difference(base: Checkpoint, base_rows: int, other: Checkpoint, other_rows: int) -> list[str]:
    """Describe, in sentences, how a model's vocabulary differs from the base model's, which the output follows.

    Args:
        base: Gives the output's rows and tokenizer.
        base_rows: Rows of its embedding.
        other: The model whose embedding has another number of rows.
        other_rows: That number.
    """
    common = min(base_rows, other_rows)
    base_texts, other_texts = token_texts(base), token_texts(other)
    extra_of, extra_texts = (other, other_texts) if other_rows > base_rows else (base, base_texts)
    extra = [(extra_texts or {}).get(row) for row in range(common, max(base_rows, other_rows))]
    fate = "are not in the output" if extra_of is other else f"are {base.label}'s own"
    sentences = [
        f"vocabulary: {base.label} has {base_rows} rows, {other.label} has {other_rows}; the output follows "
        f"{base.label}, and rows {common} to {max(base_rows, other_rows) - 1} {fate}{_listed(extra)}."
    ]
    if base_texts is not None and other_texts is not None:
        differing = sum(base_texts.get(row) != other_texts.get(row) for row in range(common))
        if differing:
            sentences.append(
                f"vocabulary: {differing} of the {common} common rows mean different tokens in {base.label} and "
                f"{other.label}; they are merged row by row all the same and may give a poor model."
            )
    return sentences


def _listed(texts: Sequence[str | None]) -> str:
    """List the first few token texts."""
    known = [repr(text) for text in texts if text is not None]
    if not known:
        return ""
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f" ({', '.join(known[:_SHOWN])}{more})"
