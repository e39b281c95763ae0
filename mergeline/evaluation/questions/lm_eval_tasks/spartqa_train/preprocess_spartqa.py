"""The prompt of the lm-eval task ``spartqa_train``."""

from __future__ import annotations

from typing import Any


def doc_to_text(doc: dict[str, Any]) -> str:
    """Render one question as the model reads it, up to and including ``Answer:``.

    SpartQA's generator leaves blanks around its candidates ("the big square "); they are stripped, because a
    blank before a line break changes the tokens.
    """
    candidates = "\n".join(
        f"{letter}. {candidate.strip()}" for letter, candidate in zip("ABCD", doc["candidate_answers"], strict=True)
    )
    return f"Context:\n{doc['story']}\n\nQuestion: {doc['question']}\n{candidates}\nAnswer:"
